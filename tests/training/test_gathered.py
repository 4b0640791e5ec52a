"""Tensors that a checkpoint is written of, in memory and on the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from swift.training.parallel.gathered import Gathered


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
def test_what_exceeds_the_room_lies_in_files_without_a_name(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {f"{n}": (torch.arange(24) + n).reshape(4, 6).t().to(dtype) for n in range(3)}
    tensors |= {"one number": torch.tensor(7).to(dtype), "none": torch.empty(0, dtype=dtype)}
    keep = Gathered(tmp_path, room=24 * dtype.itemsize)
    kept = {name: keep(tensor) for name, tensor in tensors.items()}
    assert list(tmp_path.iterdir()) == []
    for name, tensor in tensors.items():
        assert torch.equal(kept[name], tensor)
        assert kept[name].data_ptr() != tensor.data_ptr() or not tensor.numel()
    maps = Path("/proc/self/maps")
    if maps.is_file():
        assert maps.read_text().count(f"{tmp_path}/.gathered (deleted)") == 3, "all but the first, and the empty one"
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, tmp_path / "a.safetensors")
    torch.save(kept, tmp_path / "b.pt")
    for stored in (load_file(tmp_path / "a.safetensors"), torch.load(tmp_path / "b.pt", weights_only=True)):
        assert all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        Gathered(tmp_path, room=0)(torch.ones(4))
