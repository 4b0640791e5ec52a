"""Folders that exist whole or not at all: written beside, checked, synced, renamed.

A finished folder holds `manifest.json` with the size and SHA-256 of each file. A crash at any moment leaves either
the old folder or the new one, plus at most a `.tmp-` sibling that nothing reads. Of processes that write the same
folder at once one does, and the others wait for it or are told.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swift.core.errors import SwiftError
from swift.core.locks import lock
from swift.core.log import log
from swift.core.safetensors_header import require_filled

MANIFEST = "manifest.json"
UNFINISHED = ".tmp-"
POLL = 0.2
"""Seconds between two looks at what another process is making."""


@contextmanager
def write_folder(target: Path) -> Iterator[Path]:
    """Yield a scratch sibling of `target`; on success seal it and rename it into place, on failure remove it.

    `target` must not exist. On SIGKILL the scratch folder `.tmp-<name>` stays behind and the next writer replaces it.
    Raises SwiftError while another process writes the same folder.
    """
    target = Path(target)
    with _claim(target) as scratch:
        if scratch is None:
            raise SwiftError(f"another process is writing {target}", next="wait for it, or write to another folder")
        if target.exists():
            raise FileExistsError(target)
        yield scratch
        _publish(scratch, target)


@contextmanager
def write_cached(target: Path) -> Iterator[Path | None]:
    """As `write_folder`, for what every process would make alike: one makes it, and the others wait for it.

    Yields None where `target` is whole, before or by then. A damaged one is made again.
    """
    said = False
    while fault(target, hashes=False) is not None:
        with _claim(target) as scratch:
            if scratch is not None and fault(target, hashes=False) is not None:
                shutil.rmtree(target, ignore_errors=True)
                yield scratch
                _publish(scratch, target)
                return
        if scratch is None:
            if not said:
                log.info("another process is making %s: waiting for it", target)
            said = True
            time.sleep(POLL)
    yield None


def _publish(scratch: Path, target: Path) -> None:
    seal(scratch)
    os.rename(scratch, target)
    sync(target.parent)


@contextmanager
def _claim(target: Path) -> Iterator[Path | None]:
    """The scratch folder of `target`, new, empty and this process's own until the end; None while it is another's."""
    scratch = target.with_name(UNFINISHED + target.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    held = _hold(scratch)
    if held is None:
        yield None
        return
    try:
        yield scratch
    finally:
        if scratch.exists() and os.path.samestat(os.fstat(held), scratch.stat()):
            shutil.rmtree(scratch, ignore_errors=True)
        os.close(held)


def _hold(scratch: Path) -> int | None:
    """Make `scratch` anew and lock it: its descriptor, or None while another process holds it.

    The folder above is locked meanwhile, or one that is just made and not locked yet would pass for a leftover.
    """
    with _opened(scratch.parent) as parent:
        lock(parent, scratch.parent, wait=True)
        try:
            with _opened(scratch) as found:
                if not lock(found, scratch):
                    return None
        except FileNotFoundError:
            pass
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        descriptor = os.open(scratch, os.O_RDONLY)
        lock(descriptor, scratch)
        return descriptor


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def seal(folder: Path) -> None:
    """Sync every file of `folder` to disk and write the manifest that names them all.

    Raises CheckFailed when a weight in it is empty.
    """
    for path in folder.rglob("*.safetensors"):
        require_filled(path)
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        path.chmod(path.stat().st_mode | folder.stat().st_mode & 0o666)  # safetensors shuts out all but the owner
        sync(path)
    write_file(folder / MANIFEST, json.dumps({"version": 1, "files": files}, indent=1))
    for directory in {folder, *(p for p in folder.rglob("*") if p.is_dir())}:
        sync(directory)


def write_file(path: Path, text: str) -> None:
    """Replace the file at `path` in one step, so that a reader sees the old text or the new one."""
    scratch = path.with_name(f"{UNFINISHED}{threading.get_native_id()}-{path.name}")
    try:
        scratch.write_text(text, encoding="utf-8")
        sync(scratch)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


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
    with _opened(path) as descriptor:
        os.fsync(descriptor)
