"""The arguments a checkpoint was trained with: `sft_args.json` beside its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError

SFT_ARGS = "sft_args.json"
ADAPTER_CONFIG = "adapter_config.json"
INSIDE = ("default", "reft")
"""Folders in which checkpoints of `--tuner_backend swift` hold their adapter."""


def adapter_folder(checkpoint: str | os.PathLike[str]) -> Path | None:
    """Where the files of the adapter in `checkpoint` are: in it, or in a folder inside; None when it has no adapter."""
    folder = Path(checkpoint)
    places = (folder, *(folder / name for name in INSIDE))
    return next((place for place in places if (place / ADAPTER_CONFIG).is_file()), None)


def adapter_kind(checkpoint: str | os.PathLike[str]) -> str | None:
    """The method of the adapter in `checkpoint` in small letters, by its configuration; None when it has no adapter."""
    folder = adapter_folder(checkpoint)
    if folder is None:
        return None
    import json

    path = folder / ADAPTER_CONFIG
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SwiftError(f"{path} cannot be read", why=str(error), next="use another checkpoint") from error
    kind = (fields.get("swift_type") or fields.get("peft_type")) if isinstance(fields, dict) else None
    return str(kind or "").lower()


def read_saved(ckpt_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Every value of the checkpoint's `sft_args.json` (ours or the 2.5 release's), or nothing when it has none.

    A plain PEFT adapter or a folder that does not exist has none. Raises SwiftError for a file that is not JSON.
    """
    path = os.path.join(ckpt_dir, SFT_ARGS)
    if not os.path.isfile(path):
        return {}
    import json

    try:
        with open(path, encoding="utf-8") as file:
            saved = json.load(file)
    except ValueError as error:
        raise SwiftError(
            "the arguments of the checkpoint cannot be read",
            where=path,
            why=str(error),
            next="take another checkpoint, or add --load_args_from_ckpt_dir false and give the model yourself",
        ) from error
    if not isinstance(saved, dict):
        raise SwiftError("the arguments of the checkpoint are not a JSON object", where=path)
    return saved
