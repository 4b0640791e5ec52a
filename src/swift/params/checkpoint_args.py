"""The arguments a checkpoint was trained with: `sft_args.json` beside its weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.params.flag import Flag, Json

SFT_ARGS = "sft_args.json"
EARLIER, EARLIER_STEPS = "earlier_command_lines", "earlier_steps"
"""Where the arguments of a resumed run keep the command lines before its own, and the step up to which each counts."""
ADAPTER_CONFIG = "adapter_config.json"
INSIDE = ("default", "reft")
"""Folders in which checkpoints of `--tuner_backend swift` hold their adapter."""


def adapter_folder(checkpoint: str | os.PathLike[str]) -> Path | None:
    """Where the files of the adapter in `checkpoint` are: in it, or in a folder inside; None when it has no adapter."""
    folder = Path(checkpoint)
    places = (folder, *(folder / name for name in INSIDE))
    return next((place for place in places if (place / ADAPTER_CONFIG).is_file()), None)


_OTHERWISE = "take another checkpoint, or add --load_args_from_ckpt_dir false and give the model yourself"


def adapter_kind(checkpoint: str | os.PathLike[str]) -> str | None:
    """The method of the adapter in `checkpoint` in small letters, by its configuration; None when it has no adapter."""
    folder = adapter_folder(checkpoint)
    if folder is None:
        return None
    fields = adapter_config(folder)
    return str(fields.get("swift_type") or fields.get("peft_type") or "").lower()


def adapter_config(folder: Path) -> dict[str, Any]:
    """`adapter_config.json` of an adapter's folder. Raises SwiftError where it is no object, or names no base."""
    import json

    path = folder / ADAPTER_CONFIG
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SwiftError(f"{path} cannot be read", why=str(error), next="use another checkpoint") from error
    if not isinstance(fields, dict):
        raise SwiftError(f"{path} is not a JSON object", next="use another checkpoint")
    base = fields.get("base_model_name_or_path")
    if base is not None and not isinstance(base, str):
        raise SwiftError(f"{path} names no base: base_model_name_or_path is {base!r}", next="use another checkpoint")
    return fields


def command_lines(saved: Mapping[str, Any]) -> list[str]:
    """The command lines that a run was made with, in order: the one it began with, and those that it went on with."""
    lines = [*saved.get(EARLIER, ()), saved.get("command_line")]
    return [line for line in lines if isinstance(line, str) and line]


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
    except (RecursionError, ValueError) as error:
        raise SwiftError(
            "the arguments of the checkpoint cannot be read",
            where=path,
            why=str(error),
            next=_OTHERWISE,
        ) from error
    if not isinstance(saved, dict):
        raise SwiftError("the arguments of the checkpoint are not a JSON object", where=path, next=_OTHERWISE)
    for flag in _flags(saved):
        value = saved[flag.name]
        items = value if flag.many and isinstance(value, list) else [value]
        if not all(_fits(flag, item) for item in items) or (items is value and None in value and not flag.empty_items):
            raise SwiftError(
                f"the arguments of the checkpoint give {flag.name} a value that it cannot have",
                where=path,
                why=repr(value)[:200],
                next=_OTHERWISE,
            )
    return saved


def _flags(saved: Mapping[str, Any]) -> Iterator[Flag]:
    """The flags of a training that have a value there; 2.5 writes down other things too."""
    from swift.params.commands import COMMANDS, TRAINING

    of = saved.get("command")
    known = COMMANDS[of if of in TRAINING else "rlhf"].flags
    return (known[name] for name in saved if name in known)


def _fits(flag: Flag, value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, dict | list):
        return isinstance(value, dict) and flag.marker(Json) is not None
    kind = {bool: "bool", int: "int", float: "float", str: "str"}[type(value)]
    return kind in flag.kinds or (kind == "int" and "float" in flag.kinds)
