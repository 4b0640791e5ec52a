"""Every command line that the README shows is one that parses, and each page it links to exists."""

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


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_readme_link_exists(target: str) -> None:
    assert (ROOT / target).exists()
