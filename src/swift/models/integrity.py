"""Is a model folder whole? Found out from sizes and headers, before anything heavy is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.core.safetensors_header import AGAIN, read_header
from swift.plan.model import read_config


def check_folder(folder: Path) -> None:
    """Raise SwiftError when the configuration is missing or a weight file is missing, cut short or not readable."""
    if not (folder / "config.json").is_file():
        raise SwiftError(f"{folder} is not a model", why="it has no config.json", next=AGAIN)
    read_config(folder)
    files = weight_files(folder)
    if not files:
        raise SwiftError(f"{folder} has no weights", why="there is no *.safetensors and no *.bin in it", next=AGAIN)
    for path in files:
        if not path.is_file():
            raise SwiftError(f"{path} is missing", why="the index of the weights names it", next=AGAIN)
        if path.suffix == ".safetensors":
            read_header(path)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, in the order of their names; the index decides where there is one."""
    for index, single in (
        ("model.safetensors.index.json", "model.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin"),
    ):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            names = set(_json(folder / index)["weight_map"].values())
            return [folder / name for name in sorted(names)]
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise SwiftError(f"{path} is not JSON", why=str(error), next=AGAIN) from error
