"""The arguments a checkpoint was trained with: `sft_args.json` beside its weights."""

from __future__ import annotations

import os
from typing import Any

from swift.core.errors import SwiftError

SFT_ARGS = "sft_args.json"


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
