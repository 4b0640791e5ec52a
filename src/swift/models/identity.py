"""A fingerprint of a model's weights, so that an adapter is not put on a base it was not trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift.models.folder import weight_files

PAGE = 4096
PAGES = 256


def identity(folder: Path) -> dict[str, Any]:
    """Size and sampled SHA-256 of each weight file of a model folder; JSON values only.

    The hash covers 256 pages of 4 KiB spread over the file, first and last included: a different header, size or
    tuning of the same shape shows, and a 100 GB model costs a few megabytes of reading.
    """
    return {"version": 1, "files": {path.name: _sampled(path) for path in weight_files(folder)}}


def same_base(recorded: Mapping[str, Any], folder: Path) -> bool:
    """Whether the weights in `folder` are those of the record."""
    return recorded["files"] == identity(folder)["files"]


def _sampled(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    digest = hashlib.sha256()
    last = max(size - PAGE, 0)
    with path.open("rb") as file:
        for i in range(PAGES):
            file.seek(last * i // (PAGES - 1))
            digest.update(file.read(PAGE))
    return {"bytes": size, "sha256_sampled": digest.hexdigest()}
