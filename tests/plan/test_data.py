"""The data set syntax, and what the plan makes of the data flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.params.parse import parse
from swift.plan.data import DataPlan, parse_dataset, plan_data, resolve

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "dataset_cases.json").read_text("utf-8"))
FILES = {"x.jsonl", "./x.jsonl", "a#b.jsonl", "c:d.jsonl", "/abs/path/x.jsonl"}


def plan(*argv: str, command: str = "sft") -> DataPlan:
    return plan_data(parse([command, "--model_id_or_path", "m", *argv]), load_catalog())


@pytest.mark.parametrize("case", CASES["dataset_name_parser"], ids=lambda case: case["text"] or "empty")
def test_the_syntax_reads_as_in_the_contract(case: dict[str, Any]) -> None:
    hf = case.get("env") == "USE_HF=1"
    if "error" in case:
        with pytest.raises(SwiftError):
            parse_dataset(case["text"], hf=hf, exists=FILES.__contains__)
        return

    spec = parse_dataset(case["text"], hf=hf, exists=FILES.__contains__)

    assert spec.name == case["name"]
    assert spec.sample == case["sample"]
    assert spec.subsets == (None if case["subsets"] is None else tuple(case["subsets"]))
    if spec.hub != "local":
        assert spec.hub == ("huggingface" if case["use_hf"] else "modelscope")


@pytest.mark.parametrize("case", CASES["id_resolution"], ids=lambda case: case["text"])
def test_ids_lead_to_their_registered_data_set(case: dict[str, Any]) -> None:
    spec = resolve(parse_dataset(case["text"], hf=False, exists=FILES.__contains__), load_catalog())

    registered = [name.split("::")[-1].split("#")[0].split(":")[0] for name in case["resolved"]]
    expected = None if registered[0].startswith("_") else registered[0]
    assert (spec.entry.name if spec.entry else None) == expected


def test_a_data_set_that_is_nothing_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(SwiftError, match="alpaca-zh"):
        plan("--dataset", "alpaca-zhh")
    with pytest.raises(SwiftError, match="no such file"):
        plan("--dataset", str(tmp_path / "missing.jsonl"))


@pytest.mark.parametrize("count", ["-5", "x", "1.5", ""])
def test_a_sample_that_is_no_number_of_rows(count: str) -> None:
    with pytest.raises(SwiftError, match="is not a number of rows"):
        parse_dataset(f"a/b#{count}", hf=True)


def test_self_cognition_asks_for_names() -> None:
    with pytest.raises(SwiftError, match="--model_name and --model_author"):
        plan("--dataset", "self-cognition#10")

    named = plan("--dataset", "self-cognition#10", "--model_name", "小燕", "Swallow", "--model_author", "A")

    assert (named.self_names, named.self_authors) == (("小燕", "Swallow"), ("A", "A"))


def test_validation_data_switch_the_split_off(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("{}")

    assert plan("--dataset", str(tmp_path / "a.jsonl")).test_ratio == 0.01
    assert plan("--dataset", str(tmp_path / "a.jsonl"), "--val_dataset", str(tmp_path / "b.jsonl")).test_ratio == 0


def test_deprecated_spellings_mean_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{}")
    old = plan(
        "--custom_train_dataset_path", str(file), "--self_cognition_sample", "5", "--train_dataset_sample", "7",
        "--train_dataset_mix_ratio", "0.5", "--train_dataset_mix_ds", "alpaca-en",
        "--model_name", "N", "--model_author", "A",
    )  # fmt: skip

    assert [spec.text for spec in old.train] == [str(file), "self-cognition#5"]
    assert (old.train_sample, old.mix_ratio, old.mix[0].name) == (7, 0.5, "alpaca-en")


def test_the_road_to_tokens_follows_flags_and_command(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{}")

    assert plan("--dataset", str(file)).mode == "eager"
    assert plan("--dataset", str(file), "--lazy_tokenize", "true").mode == "lazy"
    assert plan("--dataset", str(file), command="pt").mode == "lazy"
    assert plan("--dataset", str(file), "--streaming", "true", "--max_steps", "1").mode == "streaming"
    multimodal = parse(["sft", "--model_id_or_path", "m", "--dataset", str(file)])
    assert plan_data(multimodal, load_catalog(), multimodal=True).mode == "lazy"


def test_the_seed_and_the_cache_follow_their_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert plan("--dataset", str(file)).seed == 42
    assert plan("--dataset", str(file), "--seed", "1").seed == 1
    assert plan("--dataset", str(file), "--seed", "1", "--dataset_seed", "2").seed == 2
    assert plan("--dataset", str(file)).cache == tmp_path / "swift" / "tokens"
    assert plan("--dataset", str(file), "--no_cache", "true").cache is None
    assert plan("--dataset", str(file), "--max_length", "-1").max_length is None
