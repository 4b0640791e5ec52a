"""Folders that exist whole or not at all: written beside, checked, synced, renamed.

A finished folder holds `manifest.json` with the size and SHA-256 of each file. A crash at any moment leaves either
the old folder or the new one, plus at most a `.tmp-` sibling that nothing reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swift.core.safetensors_header import require_filled

MANIFEST = "manifest.json"
UNFINISHED = ".tmp-"


@contextmanager
def write_folder(target: Path) -> Iterator[Path]:
    """Yield a scratch sibling of `target`; on success seal it and rename it into place, on failure remove it.

    `target` must not exist. On SIGKILL the scratch folder `.tmp-<name>` stays behind and the next writer replaces it.
    """
    target = Path(target)
    if target.exists():
        raise FileExistsError(target)
    scratch = target.with_name(UNFINISHED + target.name)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        seal(scratch)
        os.rename(scratch, target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def seal(folder: Path) -> None:
    """Sync every file of `folder` to disk and write the manifest that names them all.

    Raises CheckFailed when a weight in it is empty.
    """
    for path in folder.rglob("*.safetensors"):
        require_filled(path)
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        sync(path)
    write_file(folder / MANIFEST, json.dumps({"version": 1, "files": files}, indent=1))
    for directory in {folder, *(p for p in folder.rglob("*") if p.is_dir())}:
        sync(directory)


def write_file(path: Path, text: str) -> None:
    """Replace the file at `path` in one step, so that a reader sees the old text or the new one."""
    scratch = path.with_name(f"{UNFINISHED}{path.name}")
    scratch.write_text(text, encoding="utf-8")
    sync(scratch)
    os.replace(scratch, path)


def fault(folder: Path, *, hashes: bool = True) -> str | None:
    """What is wrong with a sealed folder, in words, or None when it is whole."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return f"{MANIFEST} is missing"
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError):
        return f"{MANIFEST} is not readable"
    for name, given in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != given["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {given['bytes']}"
        if hashes and sha256(path) != given["sha256"]:
            return f"{name} differs from its hash"
    return None


def sha256(path: Path) -> str:
    """Hex digest of the file at `path`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file or a directory entry to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
