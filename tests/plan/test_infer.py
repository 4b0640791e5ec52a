"""What a surface that answers decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.infer import not_followed, plan_infer


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


def test_the_adapter_inside_a_run_is_named(tmp_path: Path) -> None:
    words = f"deploy --model_type smollm2-135m-instruct --lora_modules a={tmp_path}".split()
    for inside, named in ((None, "such as OUTPUT/checkpoint-100"), (tmp_path / "checkpoint-3", "a={}")):
        if inside is not None:
            inside.mkdir()
        with pytest.raises(SwiftError, match="holds no adapter") as error:
            plan_infer(parse(words), load_catalog(), Machine(), answers_rows=False)
        assert named.format(inside) in str(error.value.next)


def test_what_generate_would_follow_and_answers_do_not() -> None:
    own: dict[str, object] = {
        "forced_eos_token_id": 0,
        "min_p": 0.1,
        "typical_p": 1.0,
        "no_repeat_ngram_size": 0,
        "suppress_tokens": [],
    }
    own |= {"do_sample": True, "top_k": 20, "stop_strings": None}
    assert not_followed(own) == ["forced_eos_token_id", "min_p"]
