"""Write the generated documents, or with --check fail when one of them is out of date."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from swift.catalog.render import write_models
from swift.params.render import write_reference

DOCS = Path(__file__).parent
GENERATED: dict[str, Callable[[Path], None]] = {
    "reference": write_reference,
    "supported-models.md": write_models,
}


def _texts(path: Path) -> dict[str, str]:
    files = sorted(path.rglob("*.md")) if path.is_dir() else [path] if path.exists() else []
    return {file.name: file.read_text(encoding="utf-8") for file in files}


def main() -> int:
    """Exit code 1 names what `make docs` would change."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, write in GENERATED.items():
        if not check:
            write(DOCS / name)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            write(Path(scratch) / name)
            if _texts(Path(scratch) / name) != _texts(DOCS / name):
                stale.append(name)
    for name in stale:
        print(f"docs/{name} is out of date: run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
