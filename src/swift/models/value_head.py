"""The head of a reward model: one number for a hidden state, in `value_head.safetensors` beside the weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from swift.core.errors import SwiftError

NAME = "v_head"
FILES = ("value_head.safetensors", "value_head.bin")
KEYS = (f"{NAME}.summary.weight", f"{NAME}.summary.bias")


class ValueHead(nn.Module):
    """A linear layer from hidden states (…, H) to scores (…), in fp32 whatever the model computes in."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.summary = nn.Linear(hidden_size, 1, dtype=torch.float32)

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores, fp32. A product and a sum: autocast would make a matrix product of 16 bits of it."""
        return (hidden.float() * self.summary.weight[0]).sum(-1) + self.summary.bias[0]


def head_file(folder: Path) -> Path | None:
    """The file of a value head in a folder, if it has one."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def read_head(head: ValueHead, folder: Path) -> bool:
    """Fill `head` from the file in `folder`; False when there is none. Raises SwiftError for one that does not fit."""
    path = head_file(folder)
    if path is None:
        return False
    try:
        binary = path.suffix == ".bin"
        tensors = torch.load(path, map_location="cpu", weights_only=True) if binary else load_file(path)
        weight, bias = (tensors[key].float() for key in KEYS)
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise SwiftError(f"{path} is not a value head", why=why, next="copy the reward model again") from error
    if weight.numel() != head.summary.in_features or bias.numel() != 1:
        raise SwiftError(
            f"{path} does not fit the model",
            why=f"it is for hidden states of {weight.numel()} numbers, the model has {head.summary.in_features}",
        )
    with torch.no_grad():
        head.summary.weight.copy_(weight.reshape(1, -1))
        head.summary.bias.copy_(bias.reshape(1))
    return True


def save_head(head: ValueHead, folder: Path) -> None:
    """Write the file of the head."""
    tensors = {KEYS[0]: head.summary.weight, KEYS[1]: head.summary.bias}
    save_file(
        {name: t.detach().float().cpu().contiguous() for name, t in tensors.items()},
        folder / FILES[0],
        {"format": "pt"},
    )
