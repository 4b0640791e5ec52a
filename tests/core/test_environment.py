"""Environment variables are read by one reader, with the words that flags take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from swift import hub
from swift.catalog import load_catalog
from swift.core.environment import FALSE, TRUE, read_bool, read_int
from swift.core.errors import SwiftError
from swift.core.hubs import default_hub
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.data import parse_dataset
from swift.plan.model import plan_model

SOURCES = Path(__file__).parents[2] / "src" / "swift"


@pytest.mark.parametrize("word", ["", " ", *sorted(TRUE), *sorted(FALSE), "ON", "True", " 1 "])
def test_models_and_data_sets_come_from_one_hub(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_HF", word)
    expected = "huggingface" if word.strip().lower() in TRUE else "modelscope"
    model = plan_model(parse(["sft", "--model_id_or_path", "a/b"]), load_catalog(), Machine())
    assert (default_hub(), parse_dataset("a/b").hub, model.hub) == (expected, expected, expected)


@pytest.mark.parametrize("name", ["USE_HF", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_an_unknown_word_names_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(name, "maybe")
    with pytest.raises(SwiftError, match=f"{name} is `maybe`, not true or false"):
        default_hub() if name == "USE_HF" else hub.offline()


def test_numbers_are_checked() -> None:
    assert read_int("RANK", 3, {}) == read_int("RANK", 3, {"RANK": ""}) == read_int("RANK", 0, {"RANK": " 3 "}) == 3
    for text in ("-1", "1.5", "two", "0x1"):
        with pytest.raises(SwiftError, match=f"RANK is `{re.escape(text)}`"):
            read_int("RANK", 0, {"RANK": text})
    with pytest.raises(SwiftError, match="from 1 up"):
        read_int("WORLD_SIZE", 1, {"WORLD_SIZE": "0"}, low=1)


def test_no_value_is_not_a_mistake() -> None:
    assert not read_bool("ANYTHING", {}) and not read_bool("ANYTHING", {"ANYTHING": ""})


def test_nobody_else_reads_a_boolean() -> None:
    readers = [
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if re.search(r"(environ|getenv)\b.*lower\(\)", path.read_text("utf-8"))
    ]
    assert readers == []
