"""Write the generated documents, or with --check fail when one of them is out of date."""

from __future__ import annotations

import ast
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from not_built import write_not_built

from swift.catalog.render import write_models
from swift.core.installation import extras
from swift.params.render import write_reference
from swift.params.stubs import write_stubs

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "bench" / "faults"))

from page import write as write_evidence  # noqa: E402

EXTRAS = ("<!-- extras -->", "<!-- end of extras -->")
FILES = ("<!-- files -->", "<!-- end of files -->")


def write_contributing(path: Path) -> None:
    """CONTRIBUTING.md with every source file and the first sentence of its docstring."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    before, after = text.partition(FILES[0])[0], text.partition(FILES[1])[2]
    path.write_text("\n".join([before + FILES[0], *_file_list(), FILES[1] + after]), encoding="utf-8")


def _file_list() -> Iterator[str]:
    source = ROOT / "src" / "swift"
    for folder in sorted({path.parent for path in source.rglob("*.py")}):
        name = folder.relative_to(source.parent).as_posix()
        yield f"\n**`{name}/`** {_first_sentence(folder / '__init__.py')}\n"
        for path in sorted(folder.glob("*.py")):
            if path.name not in ("__init__.py", "__main__.py"):
                yield f"- `{path.name}` {_first_sentence(path)}"
    yield ""


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=[.:]) (?=[A-Z])", paragraph)[0].rstrip(".:")


def write_install(path: Path) -> None:
    """docs/install.md with the optional parts: what each is for, which packages it brings, how it is installed."""
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    rows = [
        f"| `{part.name}` | {part.what} | {', '.join(f'`{line}`' for line in declared[part.name])} |"
        for part in extras().values()
    ]
    table = "\n".join(["| extra | what for | brings |", "|---|---|---|", *rows])
    before, after = text.partition(EXTRAS[0])[0], text.partition(EXTRAS[1])[2]
    path.write_text(f"{before}{EXTRAS[0]}\n\n{table}\n\n{EXTRAS[1]}{after}", encoding="utf-8")


GENERATED: dict[str, Callable[[Path], None]] = {
    "docs/reference": write_reference,
    "docs/supported-models.md": write_models,
    "CONTRIBUTING.md": write_contributing,
    "docs/install.md": write_install,
    "src/swift/__init__.pyi": write_stubs,
    "docs/evidence.md": write_evidence,
    "docs/not-built.md": write_not_built,
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
            write(ROOT / name)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            fresh = Path(scratch) / name
            fresh.parent.mkdir(parents=True, exist_ok=True)
            write(fresh)
            if _texts(fresh) != _texts(ROOT / name):
                stale.append(name)
    for name in stale:
        print(f"{name} is out of date: run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
