"""Is a model folder whole? Found out from sizes and headers, before anything heavy is loaded."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from swift.core.errors import SwiftError
from swift.core.safetensors_header import AGAIN, read_header
from swift.plan.model import read_config

INDEXED = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""The file of all weights, or the index of several, that transformers looks for."""
POINTER = b"version https://git-lfs"
LEGACY = b"\x80"
"""How a .bin file of PyTorch before 1.6 begins; its end cannot be told without reading it."""


def check_folder(folder: Path) -> None:
    """Raise SwiftError when the configuration is missing or a weight file is missing, cut short or not readable."""
    if not (folder / "config.json").is_file():
        raise SwiftError(f"{folder} is not a model", why="it has no config.json", next=AGAIN)
    read_config(folder)
    files = weight_files(folder)
    if not files:
        raise SwiftError(f"{folder} has no weights", why="there is no *.safetensors and no *.bin in it", next=AGAIN)
    if not any((folder / name).is_file() for names in INDEXED for name in names):
        raise SwiftError(
            f"{folder} has weights, but not under the names that are read",
            why=f"it has {files[0].name}; read are " + ", ".join(name for names in INDEXED for name in names),
            next="copy the index beside the files, or give the one file its name",
        )
    for path in files:
        if not path.is_file():
            raise SwiftError(f"{path} is missing", why="the index of the weights names it", next=AGAIN)
        _check_file(path)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, in the order of their names; the index decides where there is one."""
    for single, index in INDEXED:
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return [folder / name for name in _indexed(folder / index)]
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])


def _check_file(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(POINTER))
    if start == POINTER:
        raise SwiftError(f"{path} is a pointer of Git LFS, not the file itself", next="git lfs pull, or download it")
    if path.suffix == ".safetensors":
        read_header(path)
    elif not start.startswith(LEGACY):
        try:
            zipfile.ZipFile(path).close()  # reads the table at the end
        except zipfile.BadZipFile as error:
            why = f"it has {path.stat().st_size} bytes and does not end as PyTorch's files do"
            raise SwiftError(f"{path} is cut short or no file of weights", why=why, next=AGAIN) from error


def _indexed(path: Path) -> list[str]:
    """The names of the files in the index of the weights, sorted."""
    try:
        names = set(json.loads(path.read_text("utf-8"))["weight_map"].values())
        return sorted(names)
    except ValueError as error:
        raise SwiftError(f"{path} is not JSON", why=str(error), next=AGAIN) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise SwiftError(f"{path} is no index of weights", why="its weight_map is missing", next=AGAIN) from error
