"""Fingerprints of what a run reads: rows, weights, code. Two runs with other numbers are told apart by them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

from swift import models
from swift.params.args import Args
from swift.plan.sft import SftPlan

SHOWN = 12
"""Characters of a digest, which are enough to see that it is another."""
PIECE = 1 << 20
PIECES = 128
"""The most pieces of a file that are read: a run does not wait for the whole of a large one."""
OWN_CODE = ("custom_register_path", "external_plugins", "custom_dataset_info")
"""Flags that name files of the user's which take part in a run."""


def inputs(args: Args, plan: SftPlan, source: Path) -> dict[str, str]:
    """A fingerprint of each file of rows on this machine, of weights in folder `source`, and of all code, by name."""
    found = {f"rows {path}": _of_file(path) for path in _files(plan)}
    for flag in OWN_CODE:
        named = args.values.get(flag) or ()
        for path in map(Path, (named,) if isinstance(named, str) else named):
            if path.expanduser().is_file():
                found[f"--{flag} {path}"] = _of_file(path.expanduser())
    identity = json.dumps(models.identity(source), sort_keys=True)
    return {**found, "weights": hashlib.sha256(identity.encode()).hexdigest()[:SHOWN], "code of swift": _of_code()}


def _files(plan: SftPlan) -> Iterator[Path]:
    named_once = {spec.name: spec.hub for spec in (*plan.data.train, *plan.data.val)}
    for name, hub in named_once.items():
        path = Path(name).expanduser()
        if hub == "local":
            named = sorted(path.rglob("*")) if path.is_dir() else [path]
            yield from (file.resolve() for file in named if file.is_file())


def _of_file(path: Path) -> str:
    """`24 lines, 3120 bytes, sha256 0123456789ab`; of a large file `9000000000 bytes, sha256 of 128 pieces 0123…`."""
    digest, lines, size = hashlib.sha256(), 0, path.stat().st_size
    starts = range(0, size, PIECE)
    whole = len(starts) <= PIECES
    with path.open("rb") as file:
        for start in starts if whole else (number * (size - PIECE) // (PIECES - 1) for number in range(PIECES)):
            file.seek(start)
            piece = file.read(PIECE)
            digest.update(piece)
            lines += piece.count(b"\n")
    shown = digest.hexdigest()[:SHOWN]
    return (
        f"{lines} lines, {size} bytes, sha256 {shown}" if whole else f"{size} bytes, sha256 of {PIECES} pieces {shown}"
    )


def _of_code() -> str:
    digest = hashlib.sha256()
    root = Path(str(files("swift")))
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:SHOWN]


def changes(before: Mapping[str, object], now: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """What of `before` is another now: as it was, as it is."""
    return {name: (was, now.get(name, "not there")) for name, was in before.items() if now.get(name) != was}
