"""What of a model's folders goes to a hub, as a folder of links: the model, its card, and nothing of its making."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from swift.core.transaction import MANIFEST
from swift.hub.model_card import README, complete_card, is_shown

ROWS_IN = {"quantization_report.json": ("answers",)}
"""Files that quote rows of the user's, and the fields that do."""


def stage(folders: Sequence[Path], place: Path, ignore: Sequence[str]) -> Path:
    """Fill the empty folder `place` with links to the files of `folders`, those of the first before the others.

    What matches a pattern of `ignore` in any part of its path is left out, and out of the manifest too; so are rows
    that a report quotes. A README.md that hubs would not take is replaced. -> `place`.
    """
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            link = place.joinpath(*parts)
            left_out = any(fnmatch(part, pattern) for part in parts for pattern in ignore)
            if path.is_file() and not left_out and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())
    if not is_shown(place):
        (place / README).unlink(missing_ok=True)
        complete_card(place)
    for name, fields in ROWS_IN.items():
        if (place / name).is_file():
            report = json.loads((place / name).read_text("utf-8"))
            (place / name).unlink()
            kept = {key: value for key, value in report.items() if key not in fields}
            (place / name).write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _list_what_is_there(place)
    return place


def _list_what_is_there(place: Path) -> None:
    """Let the manifest name no file that stays here: whoever downloads the rest would take it for damaged."""
    path = place / MANIFEST
    if not path.is_file():
        return
    manifest = json.loads(path.read_text("utf-8"))
    kept = {name: entry for name, entry in manifest["files"].items() if (place / name).is_symlink()}
    path.unlink()
    path.write_text(json.dumps({**manifest, "files": kept}, indent=1), encoding="utf-8")
