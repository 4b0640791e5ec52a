"""The head of a reward model: one number for a hidden state.

It lies in `value_head.safetensors` beside the weights, or among them in a sequence classifier of one label.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from swift.core.errors import SwiftError
from swift.models.integrity import weight_files
from swift.plan.model import read_config

NAME = "v_head"
FILES = ("value_head.safetensors", "value_head.bin")
CRITIC = "critic.safetensors"
"""The head of a critic, in the checkpoints of a policy: a name of its own, or they would look like reward models."""
KEYS = (f"{NAME}.summary.weight", f"{NAME}.summary.bias")
CLASSIFIER_KEYS = ("score.weight", "score.bias")
"""What the decoders of transformers call the head of their sequence classifiers; most have no bias."""


class ValueHead(nn.Module):
    """A linear layer from hidden states (…, H) to scores (…), in fp32 whatever the model computes in."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.summary = nn.Linear(hidden_size, 1, dtype=torch.float32)

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores, fp32. A product and a sum: autocast would make a matrix product of 16 bits of it."""
        return (hidden.float() * self.summary.weight[0]).sum(-1) + self.summary.bias[0]


def has_head(folder: Path) -> bool:
    """Whether the model or adapter in `folder` scores answers. Raises SwiftError for a classifier of several labels."""
    return head_file(folder) is not None or _is_classifier(folder)


def head_file(folder: Path, names: Sequence[str] = FILES) -> Path | None:
    """The file of a value head in a folder, if it has one."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_head(head: ValueHead, folder: Path, names: Sequence[str] = FILES) -> bool:
    """Fill `head` from `folder`; False when there is none. Raises SwiftError for one that does not fit."""
    path = head_file(folder, names)
    if path is None and not _is_classifier(folder):
        return False
    try:
        weight, bias = _tensors(folder) if path is None else _tensors_of_file(path)
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise SwiftError(
            f"{path or folder} is not a value head", why=why, next="copy the reward model again"
        ) from error
    if weight.numel() != head.summary.in_features or bias.numel() != 1:
        raise SwiftError(
            f"{path or folder} does not fit the model",
            why=f"it is for hidden states of {weight.numel()} numbers, the model has {head.summary.in_features}",
        )
    with torch.no_grad():
        head.summary.weight.copy_(weight.reshape(1, -1))
        head.summary.bias.copy_(bias.reshape(1))
    return True


def _is_classifier(folder: Path) -> bool:
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
    return any(name.endswith("ForSequenceClassification") for name in architectures or ())


def _tensors_of_file(path: Path) -> tuple[Tensor, Tensor]:
    binary = path.suffix == ".bin"
    tensors = torch.load(path, map_location="cpu", weights_only=True) if binary else load_file(path)
    weight, bias = (tensors[key].float() for key in KEYS)
    return weight, bias


def _tensors(folder: Path) -> tuple[Tensor, Tensor]:
    """Weight and bias of a sequence classifier's head, wherever its files keep them. Raises KeyError without one."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        if path.suffix == ".bin":
            stored = torch.load(path, map_location="cpu", weights_only=True)
            tensors.update((key, stored[key]) for key in CLASSIFIER_KEYS if key in stored)
            continue
        with safe_open(path, "pt") as file:
            tensors.update((key, file.get_tensor(key)) for key in CLASSIFIER_KEYS if key in file.keys())  # noqa: SIM118
    weight = tensors[CLASSIFIER_KEYS[0]].float()
    return weight, tensors.get(CLASSIFIER_KEYS[1], torch.zeros(1)).float()


def save_head(head: ValueHead, folder: Path, name: str = FILES[0]) -> None:
    """Write the file of the head."""
    tensors = {KEYS[0]: head.summary.weight, KEYS[1]: head.summary.bias}
    save_file(
        {key: t.detach().float().cpu().contiguous() for key, t in tensors.items()},
        folder / name,
        {"format": "pt"},
    )
