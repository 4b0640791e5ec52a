"""Headers of safetensors files: what a weight file holds and whether it is whole, without reading the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swift.core.errors import CheckFailed, SwiftError

AGAIN = "download or copy it again"


def read_header(path: Path) -> dict[str, Any]:
    """Header of a safetensors file: tensor name -> dtype, shape, data_offsets.

    The format is 8 bytes of little-endian length, that much JSON, then the data. Raises SwiftError when the file does
    not end where its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise SwiftError(f"{path} is cut short", why=f"it has {size} bytes, less than its header", next=AGAIN)
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise SwiftError(f"{path} is not a safetensors file", why=str(error), next=AGAIN) from error
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise SwiftError(f"{path} is cut short", why=f"it has {size} bytes instead of {expected}", next=AGAIN)
    return header


def require_filled(path: Path) -> None:
    """Raise CheckFailed when a weight is empty: saved by a process that held only its share, or none, of it.

    Such a weight has one dimension; a matrix of rank 0 is AdaLoRA's. A file that is no safetensors file holds no
    weights.
    """
    try:
        header = read_header(path)
    except SwiftError:
        return
    for name, tensor in header.items():
        if name != "__metadata__" and tensor["shape"] == [0] and tensor["dtype"].startswith(("F", "BF")):
            raise empty(name, path)


def empty(name: str, path: Path) -> CheckFailed:
    """The error for a weight without numbers that would have gone into the file at `path`."""
    return CheckFailed(
        f"the weight {name} is empty and was not saved",
        where=str(path),
        why="its numbers lie in other processes",
        next="this is a bug of swift: report it with the command line",
    )
