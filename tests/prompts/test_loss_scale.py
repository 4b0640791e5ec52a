"""Loss-scale rules: recorded splits, the order of the text, and files of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.prompts.conftest import FIXTURES

from swift.core.errors import SwiftError
from swift.prompts.loss_scale import load_loss_scale

RECORDED = json.loads((FIXTURES / "agent_functions.json").read_text(encoding="utf-8"))["calculate_loss_scale"]


def _rules(config: Any) -> Any:
    return config.lower() if isinstance(config, str) else config


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"{str(case['config'])[:20]}-{case['response'][:20]}")
def test_recorded_split(case: dict[str, Any]) -> None:
    parts = load_loss_scale(_rules({"DEFAULT": "default"}.get(str(case["config"]), case["config"])))
    found = parts.split(case["query"], case["response"])
    assert "".join(text for text, _ in found) == case["response"]
    if case.get("order_kept", True):
        assert found == list(zip(case["parts"], case["weights"], strict=True))
    else:  # The release moved text about; the weighed pieces are the same, in the order they have in the answer.
        assert {text for text, weight in found if weight != 1} <= {*case["parts"], "Observation:"}


def test_query_beats_literal_beats_pattern() -> None:
    rules = {"response": {"Action:": [2, 3], "<.*?>": [4]}, "query": {"secret": [0.5]}}
    scale = load_loss_scale(rules)
    assert scale.split("a secret", "Action: <x>") == [("Action: <x>", 0.5)]
    assert scale.split("q", "Action: <x>") == [("Action:", 2.0), (" <x>", 3.0)]
    assert scale.split("q", "a <x> Action: <y>") == [
        ("a ", 1.0),
        ("<x>", 4.0),
        (" ", 1.0),
        ("Action:", 2.0),
        (" <y>", 3.0),
    ]


def test_several_patterns_keep_the_text() -> None:
    scale = load_loss_scale({"a+": [2.0], "ab": [3.0]})
    assert scale.split("q", "xabyaa") == [("x", 1.0), ("a", 2.0), ("by", 1.0), ("aa", 2.0)]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text('{"Answer:": [1, 5]}')
    assert load_loss_scale(path).split("q", "Answer: 4") == [("Answer:", 1.0), (" 4", 5.0)]


@pytest.mark.parametrize(
    ("rules", "given"),
    [
        ("nothing-like-that", "there are no loss-scale rules called"),
        ({"Action:": "two"}, "is not a list of weights"),
        ({"Action:": [-1, 1]}, "is not a list of weights"),
        ({"(": [2.0]}, "is no regular expression"),
        ({"Action:": [float("inf"), 1]}, "is not a list of weights"),
        ({"response": [1], "query": {"b": [1]}}, "are two objects and nothing else"),
        ({"response": {"a": [1, 2]}, "Action:": [2, 2]}, "are two objects and nothing else"),
    ],
)
def test_wrong_rules_are_named(rules: Any, given: str) -> None:
    with pytest.raises(SwiftError, match=given):
        load_loss_scale(rules)


def test_broken_file_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text("{")
    with pytest.raises(SwiftError, match="not valid JSON") as found:
        load_loss_scale(path)
    assert str(path) in str(found.value)
