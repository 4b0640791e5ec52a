"""A reward model as its two parts: the decoder that reads an answer, and the head that scores its last token."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.models.load import load_model
from swift.models.value_head import ValueHead, load_head
from swift.plan.model import ModelPlan, read_config
from swift.plan.reward_model import HEAD_FILES, classifies, has_head


def load_reward_model(plan: ModelPlan, folder: Path, where: str | None = None) -> tuple[PreTrainedModel, ValueHead]:
    """Decoder and head of a whole model in `folder`: one with a value head, or a sequence classifier of one label.

    The score of an answer is the head's number for the decoder's last hidden state (H) at the answer's end token; both
    are frozen and in evaluation mode. Raises SwiftError for a folder without a head, before its weights are loaded;
    `where` is the flag that named it.
    """
    if not has_head(folder):
        raise SwiftError(
            f"{folder} is not a reward model",
            where=where,
            why=f"it has no {' or '.join(HEAD_FILES)}, and is no sequence classifier of one label",
            next="train one: swift rlhf --rlhf_type rm (an adapter becomes whole with swift merge-lora)",
        )
    model = load_model(plan, folder).requires_grad_(False).eval()
    return model, load_head(model, folder)


def require_tokens_head(folder: Path) -> None:
    """Raise SwiftError for the folder of a sequence classifier, which cannot write answers."""
    if classifies(read_config(folder).get("architectures")):
        raise SwiftError(
            f"{folder} is a sequence classifier",
            where="--model_id_or_path",
            why="it has no head that gives tokens",
            next="train the language model it was made from; swift rlhf --rlhf_type rm goes on from a classifier",
        )
