"""A fingerprint of a model's weights, so that an adapter is not put on a base it was not trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.models.integrity import weight_files

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


def check_base(checkpoint: Path, folder: Path) -> bool:
    """Whether the adapter in `checkpoint` records its base; if so, `folder` holds the very same weights.

    An adapter made elsewhere records none. Raises SwiftError when `folder` is another model.
    """
    path = checkpoint / "configuration.json"
    try:
        recorded = json.loads(path.read_text("utf-8")).get("base_identity") if path.is_file() else None
    except ValueError as error:
        raise SwiftError(f"{path} is not JSON", why=str(error), next="use another checkpoint") from error
    if not recorded:
        log.warning("%s does not record its base model; %s is taken as it is", checkpoint, folder)
        return False
    if not same_base(recorded, folder):
        raise SwiftError(
            f"{folder} is not the model that {checkpoint} was trained on",
            where="--model_id_or_path",
            why="its weight files differ from those the checkpoint recorded",
            next="give the original base model",
        )
    return True


def _sampled(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    digest = hashlib.sha256()
    last = max(size - PAGE, 0)
    with path.open("rb") as file:
        for i in range(PAGES):
            file.seek(last * i // (PAGES - 1))
            digest.update(file.read(PAGE))
    return {"bytes": size, "sha256_sampled": digest.hexdigest()}
