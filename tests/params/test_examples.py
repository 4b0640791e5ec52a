"""The files in examples/ are command lines that parse."""

from __future__ import annotations

from pathlib import Path

import pytest

from swift.params.parse import parse
from swift.params.rules import check

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
COMMANDS = {"merge": "merge-lora", "rm": "rlhf"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    stem = path.stem.partition("-")[0]
    args = parse([COMMANDS.get(stem, stem), str(path)])
    assert args.origins["model_type"] == "file" or check(args)
    assert check(args, unsure=True) == []


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {"sft-lora", "sft-full", "pt", "infer", "deploy", "merge"}
