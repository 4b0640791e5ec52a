"""The habits that a machine can check: sizes, names, and no path of the machine it was written on."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "swift").rglob("*.py"))
LIMITS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["house"]
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "misc", "base_utils"}


def _where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=_where)
def test_file_can_be_read_in_one_sitting(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LIMITS["file-lines"], "split the file by what it is about"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= LIMITS["function-lines"], f"{_where(path)}:{node.lineno} {node.name} is {length} lines"


def test_names_say_what_is_inside() -> None:
    found = [_where(p) for p in (ROOT / "src").rglob("*") if p.stem in NAMES_THAT_SAY_NOTHING]
    assert found == []


def test_no_path_of_one_machine() -> None:
    rule = re.compile(r"""["'\s(](/work/|/root/|/home/\w)""")
    found = [_where(p) for p in SOURCES if rule.search(p.read_text(encoding="utf-8"))]
    assert found == []


def test_every_package_says_what_it_is_for() -> None:
    silent = [
        _where(p) for p in SOURCES if not (ast.get_docstring(ast.parse(p.read_text(encoding="utf-8"))) or "").strip()
    ]
    assert silent == []


def test_every_target_of_the_makefile_can_be_read() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"setup", "demo", "test", "check", "docs-check"} <= set(targets)
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    made = subprocess.run(["make", "-n", *targets], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert "warning" not in made.stderr
