"""Which folders hold a reward model: a value head beside the weights, or a sequence classifier of one label."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from swift.core.errors import SwiftError
from swift.plan.model import ModelPlan, read_config

HEAD_FILES = ("value_head.safetensors", "value_head.bin")


def has_head(folder: Path) -> bool:
    """Whether the model or adapter in `folder` scores answers. Raises SwiftError for a classifier of several labels."""
    return head_file(folder) is not None or is_classifier(folder)


def how_to_try(folder: str | Path) -> str:
    """The command that asks what lies in `folder`: a reward model answers nothing, but scores answers."""
    command = "deploy" if has_head(Path(folder)) else "infer"
    return shlex.join(["swift", command, "--ckpt_dir", str(folder)])


def head_file(folder: Path, names: Sequence[str] = HEAD_FILES) -> Path | None:
    """The file of a value head in a folder, if it has one."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def is_classifier(folder: Path) -> bool:
    """Whether it is a sequence classifier of one label."""
    if not (folder / "config.json").is_file():
        return False
    config = read_config(folder)
    if not classifies(config.get("architectures")):
        return False
    labels = len(config.get("id2label") or {0: "", 1: ""})  # two is what transformers takes where nothing is said
    if labels != 1:
        raise SwiftError(
            f"{folder} is a classifier of {labels} labels",
            why="a reward model has one: the score of an answer",
            next="take a causal language model, or a sequence classifier with num_labels 1",
        )
    return True


def classifies(architectures: Sequence[str] | None) -> bool:
    """Whether a configuration names a sequence classifier, which has no head for tokens."""
    return any(str(name).endswith("ForSequenceClassification") for name in architectures or ())


def require_head(folder: Path, where: str | None = None) -> None:
    """Raise SwiftError for a folder that is no reward model; `where` is the flag that names it."""
    if not has_head(folder):
        raise SwiftError(
            f"{folder} is not a reward model",
            where=where,
            why=f"it has no {' or '.join(HEAD_FILES)}, and is no sequence classifier of one label",
            next="name a checkpoint of swift rlhf --rlhf_type rm, or a sequence classifier of one label",
        )


def require_tokens_head(folder: Path) -> None:
    """Raise SwiftError for the folder of a sequence classifier, which cannot write answers."""
    if classifies(read_config(folder).get("architectures")):
        raise SwiftError(
            f"{folder} is a sequence classifier",
            where="--model_id_or_path",
            why="it has no head that gives tokens",
            next="train the language model it was made from; swift rlhf --rlhf_type rm goes on from a classifier",
        )


def local_reward_model(model: ModelPlan) -> bool:
    """Whether the plan's model is a reward model, as far as that shows before it is fetched."""
    if model.adapter is not None:
        return has_head(Path(model.adapter))
    return model.hub == "local" and has_head(Path(model.source))
