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

    from swift.models.families import MediaProcessor

REFERENCE = "--ref_model_id_or_path"
REWARD = "--reward_model_id_or_path"


def check_companions(plan: AlignmentPlan, tokenizer: PreTrainedTokenizerBase, images: MediaProcessor | None) -> None:
    """Fetch their files. Raises SwiftError for token numbers that mean other tokens to one of them, for a reference
    that does not take the media of the trained model's `images`, and for a reward model without a head."""
    reference = plan.reference and plan.reference.model
    if reference is not None:
        folder = models.fetch(reference)
        _same_vocabulary(tokenizer, "reference", reference, folder, REFERENCE)
        if images is not None:
            _same_family(images, reference, folder)
    reward = plan.reward_model
    if reward is not None:
        folder = models.fetch(reward)
        require_head(folder if reward.adapter is None else Path(reward.adapter), REWARD)
        _same_vocabulary(tokenizer, "reward", reward, folder, REWARD)


def _same_family(images: MediaProcessor, reference: ModelPlan, folder: Path) -> None:
    from swift.models.families import family_of, is_multimodal

    config = models.load_config(reference, folder)
    if not is_multimodal(config) or family_of(config) is not type(images.family):
        raise SwiftError(
            f"the reference model {reference.source} is of the kind {config.model_type}, and the trained one is not",
            where=REFERENCE,
            why="both are given the same images, each of which is the same tokens",
            next="take a reference of the same family",
        )


def _same_vocabulary(tokenizer: PreTrainedTokenizerBase, role: str, other: ModelPlan, folder: Path, where: str) -> None:
    if models.load_tokenizer(other, folder).get_vocab() != tokenizer.get_vocab():
        raise SwiftError(
            f"the {role} model {other.source} has another vocabulary than the trained one",
            where=where,
            next=f"take a {role} model of the same family",
        )
