"""Every command line that the README shows is one that parses, and every path that a page names exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from swift.params.parse import parse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.partition("#")[0] for line in README.splitlines() if line.startswith("swift ")]
CONTROLS = ("--help", "--print_config")


@pytest.mark.parametrize("line", COMMANDS)
def test_readme_command_parses(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)[1:]
    args = parse([word for word in words if word not in CONTROLS])
    assert args.command == words[0]


PAGES = sorted(path for path in ROOT.rglob("*.md") if not any(part[0] == "." for part in path.relative_to(ROOT).parts))
SOURCE = ROOT / "src" / "swift"
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
PATH = re.compile(
    r"(?<![\w/.<-])(?:(?:src|tests|docs|bench|examples)/[\w./*-]*[\w*/]|[\w-]+(?:/[\w-]+)*\.(?:py|md|toml|sh))"
)
MODULE = re.compile(r"`(swift(?:\.\w+)+)")
OF_ANOTHER_RELEASE = {"swift.llm"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    gone = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    gone += [path for path in PATH.findall(re.sub(r"https?:\S+", "", text)) if not _is_there(path, page)]
    gone += [name for name in MODULE.findall(text) if name not in OF_ANOTHER_RELEASE and not _is_module(name)]
    assert gone == []


def _is_there(path: str, page: Path) -> bool:
    if any(list(root.glob(path.rstrip("/"))) for root in (page.parent, ROOT, SOURCE, ROOT / "docs")):
        return True
    return "/" not in path and any(SOURCE.rglob(path))


def _is_module(name: str) -> bool:
    """Whether the dotted name is a module or something that a module has in its text."""
    path = SOURCE.parent
    for part in name.split("."):
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if (path / part).is_dir() or (path / f"{part}.py").is_file():
            path = path / part
        else:
            return file.is_file() and re.search(rf"\b{part}\b", file.read_text(encoding="utf-8")) is not None
    return True
