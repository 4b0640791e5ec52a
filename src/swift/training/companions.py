"""The models that a run loads beside the trained one, a reference or a reward model: what must be so before any is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from swift import models
from swift.core.errors import SwiftError
from swift.engines.model_images import media_processor_of
from swift.plan.model import ModelPlan
from swift.plan.reward_model import require_head
from swift.plan.rlhf import AlignmentPlan
from swift.prompts.parity import different_facts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from swift.models.families import MediaProcessor

REFERENCE = "--ref_model_id_or_path"
REWARD = "--reward_model_id_or_path"


def check_companions(plan: AlignmentPlan, tokenizer: PreTrainedTokenizerBase, images: MediaProcessor | None) -> None:
    """Fetch their files. Raises SwiftError for token numbers that mean other tokens to one of them, for one that does
    not see media as the trained model does, whose `images` both are given, and for a reward model without a head."""
    reference = plan.reference and plan.reference.model
    if reference is not None:
        folder = models.fetch(reference)
        _same_vocabulary(tokenizer, "reference", reference, folder, REFERENCE)
        if images is not None:
            _same_media(images, tokenizer, "reference", reference, folder, REFERENCE)
    reward = plan.reward_model
    if reward is not None:
        folder = models.fetch(reward)
        require_head(folder if reward.adapter is None else Path(reward.adapter), REWARD)
        _same_vocabulary(tokenizer, "reward", reward, folder, REWARD)
        if images is not None:
            _same_media(images, tokenizer, "reward", reward, folder, REWARD)


def _same_media(
    images: MediaProcessor,
    tokenizer: PreTrainedTokenizerBase,
    role: str,
    other: ModelPlan,
    folder: Path,
    where: str,
) -> None:
    """Raise SwiftError where the other model takes other numbers of the same media."""
    from swift.models.families import family_of, is_multimodal

    config = models.load_config(other, folder)
    if not is_multimodal(config) or family_of(config) is not type(images.family):
        raise SwiftError(
            f"the {role} model {other.source} is of the kind {config.model_type}, and the trained one is not",
            where=where,
            why="both are given the same images, each of which is the same tokens",
            next=f"take a {role} model of the same family",
        )
    own = media_processor_of(other, folder, tokenizer)
    assert own is not None
    if differences := different_facts(images.facts, own.facts):
        name, mine, theirs = differences[0]
        raise SwiftError(
            f"the {role} model {other.source} is shown media otherwise than the trained one",
            where=where,
            why=f"{name} is {theirs} there, and {mine} in the trained model",
            next=f"take a {role} model that was trained with the same image processor",
        )


def _same_vocabulary(tokenizer: PreTrainedTokenizerBase, role: str, other: ModelPlan, folder: Path, where: str) -> None:
    if models.load_tokenizer(other, folder).get_vocab() != tokenizer.get_vocab():
        raise SwiftError(
            f"the {role} model {other.source} has another vocabulary than the trained one",
            where=where,
            next=f"take a {role} model of the same family",
        )
