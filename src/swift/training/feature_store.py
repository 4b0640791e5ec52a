"""What a frozen tower makes of pictures, on disk: named by the tower, the pictures and how both are computed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from swift.data.bounded_store import BoundedStore

HEAD = 256
"""Bytes at the start of an entry in which its dtype and shape are found."""


class FeatureStore:
    """The states of one tower, whose weights do not change while it is used."""

    def __init__(self, tower: nn.Module, folder: Path, trained: Collection[str] = ()):
        """`trained` are modules inside the tower, by their paths there, that have no part in the states."""
        self._store = BoundedStore(folder)
        self._weights = _digest_of(tower, trained)

    def names(self, inputs: Sequence[Sequence[Tensor]]) -> list[str]:
        """The names of entries, each for all that the tower is given of one picture."""
        device = inputs[0][0].device
        autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        return [" ".join([f"{self._weights} {autocast}", *map(_digest, each)]) for each in inputs]

    def read(self, name: str, device: torch.device) -> list[Tensor] | None:
        """The states of a picture in the layers that are read; None where they are not known."""
        data = self._store.read(name)
        if data is None:
            return None
        dtype, shape, _ = bytes(data[:HEAD]).split(b"\n", 2)
        values = bytearray(data[len(dtype) + len(shape) + 2 :])
        whole = torch.frombuffer(values, dtype=getattr(torch, dtype.decode()))
        return list(whole.view(*map(int, shape.split())).to(device))

    def write(self, name: str, states: Sequence[Tensor]) -> None:
        """Keep the states of a picture, all of one shape."""
        whole = torch.stack(list(states)).detach().cpu().contiguous()
        head = f"{str(whole.dtype).removeprefix('torch.')}\n{' '.join(map(str, whole.shape))}\n"
        self._store.write(name, head.encode(), whole.view(torch.uint8).numpy().tobytes())


def _digest(part: Tensor) -> str:
    raw = part.detach().cpu().contiguous().view(torch.uint8).numpy()
    hashed = hashlib.blake2b(np.ascontiguousarray(raw).data, digest_size=20).hexdigest()
    return f"{part.dtype} {tuple(part.shape)} {hashed}"


def _digest_of(tower: nn.Module, trained: Collection[str]) -> str:
    """Changes with every weight of a tower, and with how it computes."""

    def counts(path: str) -> bool:
        return not any(path == each or path.startswith(f"{each}.") for each in trained)

    modules = [f"{path} {type(module)} {module.extra_repr()}" for path, module in tower.named_modules() if counts(path)]
    digest = hashlib.blake2b(f"{modules} {torch.__version__}".encode(), digest_size=20)
    for name, value in sorted(tower.state_dict().items()):
        if counts(name):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
