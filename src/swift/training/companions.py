"""The models that a run loads beside the trained one, a reference or a reward model: what must be so before any is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from swift import models
from swift.core.errors import SwiftError
from swift.plan.model import ModelPlan
from swift.plan.reward_model import require_head
from swift.plan.rlhf import AlignmentPlan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REFERENCE = "--ref_model_id_or_path"
REWARD = "--reward_model_id_or_path"


def check_companions(plan: AlignmentPlan, tokenizer: PreTrainedTokenizerBase) -> None:
    """Fetch their files. Raises SwiftError for token numbers that mean other tokens to one of them, and for a reward
    model without a head."""
    reference = plan.reference and plan.reference.model
    if reference is not None:
        _same_vocabulary(tokenizer, "reference", reference, models.fetch(reference), REFERENCE)
    reward = plan.reward_model
    if reward is not None:
        folder = models.fetch(reward)
        require_head(folder if reward.adapter is None else Path(reward.adapter), REWARD)
        _same_vocabulary(tokenizer, "reward", reward, folder, REWARD)


def _same_vocabulary(tokenizer: PreTrainedTokenizerBase, role: str, other: ModelPlan, folder: Path, where: str) -> None:
    if models.load_tokenizer(other, folder).get_vocab() != tokenizer.get_vocab():
        raise SwiftError(
            f"the {role} model {other.source} has another vocabulary than the trained one",
            where=where,
            next=f"take a {role} model of the same family",
        )
