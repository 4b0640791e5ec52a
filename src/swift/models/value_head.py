"""The head of a reward model: one number for a hidden state.

It lies in `value_head.safetensors` beside the weights, or among them in a sequence classifier of one label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.models.integrity import weight_files
from swift.plan.reward_model import HEAD_FILES, head_file, is_classifier

NAME = "v_head"
CRITIC = "critic.safetensors"
"""The head of a critic, in the checkpoints of a policy: a name of its own, or they would look like reward models."""
KEYS = (f"{NAME}.summary.weight", f"{NAME}.summary.bias")
CLASSIFIER_KEYS = ("score.weight", "score.bias")
"""What the decoders of transformers call the head of their sequence classifiers; most have no bias."""


class ValueHead(nn.Module):
    """A linear layer from hidden states (…, H) to scores (…), in fp32 whatever the model computes in."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.summary = _Score(hidden_size, 1, dtype=torch.float32)

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores, fp32."""
        scores: Tensor = self.summary(hidden)
        return scores


class _Score(nn.Linear):
    """A product and a sum: autocast would make a matrix product of 16 bits of it.

    A layer with weights of its own has to be called: engines that share weights out fetch them then.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(…, H) -> (…), fp32."""
        return (input.float() * self.weight[0]).sum(-1) + self.bias[0]


def load_head(model: PreTrainedModel, folder: Path) -> ValueHead:
    """The head of the reward model in `folder`, frozen and on the model's device. Raises SwiftError without one."""
    head = ValueHead(model.config.get_text_config().hidden_size)
    if not read_head(head, folder):
        raise SwiftError(f"{folder} has no {' or '.join(HEAD_FILES)}", next="copy the reward model again")
    return head.to(model.device).requires_grad_(False).eval()


def read_head(head: ValueHead, folder: Path, names: Sequence[str] = HEAD_FILES) -> bool:
    """Fill `head` from `folder`; False when there is none. Raises SwiftError for one that does not fit."""
    path = head_file(folder, names)
    if path is None and not is_classifier(folder):
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


def save_head(
    head: ValueHead, folder: Path, name: str = HEAD_FILES[0], *, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write the file of the head, with what `weights` have under its keys where it has shares of them."""
    tensors = weights or {KEYS[0]: head.summary.weight, KEYS[1]: head.summary.bias}
    save_file(
        {key: tensors[key].detach().float().cpu().contiguous() for key in KEYS},
        folder / name,
        {"format": "pt"},
    )
