"""Encodings recorded from the 2.5 release, id for id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.prompts.conftest import read_gz

import swift

ENCODINGS = read_gz("encodings.json.gz")
CASES = read_gz("cases.json.gz")


def _arguments(record: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a case: `@DEFAULT` names shipped rules, LEN is the length of the row."""
    given = dict(CASES[record["case"]]["template_kwargs"])
    rules = given.pop("loss_scale_map", None)
    if given.pop("use_loss_scale", False):
        given["loss_scale"] = rules.removeprefix("@").lower()
    if given.get("max_length") == "LEN":
        given["max_length"] = record["max_length"]
    return given


@pytest.mark.parametrize("name", ENCODINGS)
def test_encoding_is_equal(name: str, golden_tokenizer: Callable[[str], Any]) -> None:
    recorded = ENCODINGS[name]
    tokenizer = golden_tokenizer(recorded["tokenizer"])
    for record in recorded["records"]:
        template = swift.get_template(recorded["template"], tokenizer, **_arguments(record))
        found = template.encode(CASES[record["case"]]["example"])
        kept = {key: record[key] for key in ("input_ids", "labels", "loss_scale") if key in record}
        assert found == (None if record.get("dropped") else kept), record["case"]
