"""What a surface that answers decides."""

from __future__ import annotations

import pytest

from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.infer import plan_infer


@pytest.mark.parametrize("words", ["--dataset alpaca-zh", "--eval_human false"])
def test_a_server_answers_no_rows(words: str) -> None:
    args = parse(["deploy", "--model_type", "smollm2-135m-instruct", *words.split()])
    assert plan_infer(args, load_catalog(), Machine(), answers_rows=False).rows is None


def test_rows_are_answered_where_there_are_some() -> None:
    model = ["infer", "--model_type", "smollm2-135m-instruct"]
    assert plan_infer(parse([*model, "--dataset", "alpaca-zh"]), load_catalog(), Machine()).rows is not None
    assert plan_infer(parse(model), load_catalog(), Machine()).rows is None
    with pytest.raises(SwiftError, match="no rows to answer"):
        plan_infer(parse([*model, "--eval_human", "false"]), load_catalog(), Machine())
