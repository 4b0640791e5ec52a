"""From a command line's data flags to examples: choosing, mixing, truncating, lazily or not, for every objective."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from swift.core.errors import SwiftError
from swift.prompts.encode import Encoder

from .rows import chat_rows, entries, run, tokens, totals, write_rows


def test_items_hold_ids_labels_and_where_they_come_from(encoder: Encoder, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", chat_rows(5))

    built = run(encoder, tmp_path / "ledger", "--dataset", str(file), "--dataset_test_ratio", "0")

    item = built.train[3]
    assert item["row"] == 3
    assert built.train.origin(3) == f"{file}:4"
    assert len(item["input_ids"]) == len(item["labels"]) == built.train.lengths[3]
    assert item["labels"][0] == -100 and item["labels"][-1] == item["input_ids"][-1]
    assert built.val is None


def test_processes_cache_and_laziness_change_nothing(encoder: Encoder, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", chat_rows(1300))
    argv = ["--dataset", f"{file}#900", "--cache_dir", str(tmp_path / "cache")]

    plain = run(encoder, tmp_path / "l1", *argv, "--no_cache")
    for more in (
        ["--preprocess_num_proc", "2"],
        [],
        ["--lazy_tokenize", "true"],
        ["--no_cache", "--preprocess_num_proc", "3"],
    ):
        other = run(encoder, tmp_path / "l2", *argv, *more)
        assert tokens(other.train) == tokens(plain.train)
        assert tokens(other.val) == tokens(plain.val)


def test_rows_left_out_by_a_sample_are_counted_apart(encoder: Encoder, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", chat_rows(50))

    built = run(encoder, tmp_path / "ledger", "--dataset", f"{file}#20")

    assert built.val is not None
    assert (len(built.train), len(built.val)) == (19, 1)
    assert totals(tmp_path / "ledger")["rows"] == 20
    assert totals(tmp_path / "ledger")["not_sampled"] == {f"{file}#20": 30}


def test_more_than_there_are_repeats_for_training_only(encoder: Encoder, tmp_path: Path) -> None:
    train = write_rows(tmp_path / "a.jsonl", chat_rows(10))
    val = write_rows(tmp_path / "b.jsonl", chat_rows(10, start=100))

    built = run(encoder, tmp_path / "ledger", "--dataset", f"{train}#25", "--val_dataset", f"{val}#25")

    assert built.val is not None
    assert (len(built.train), len(built.val)) == (25, 10)
    assert tokens(built.train)[:20] == tokens(built.train)[:10] * 2
    assert totals(tmp_path / "ledger")["rows"] == 20


def test_several_data_sets_follow_each_other(encoder: Encoder, tmp_path: Path) -> None:
    first = write_rows(tmp_path / "a.jsonl", chat_rows(10))
    (tmp_path / "more").mkdir()
    for number in range(2):
        write_rows(tmp_path / "more" / f"{number}.jsonl", chat_rows(5, start=100 + 10 * number))

    built = run(encoder, tmp_path / "ledger", "--dataset", f"{first},{tmp_path / 'more'}", "--dataset_test_ratio", "0")

    assert [built.train.origin(row) for row in (0, 10, 15)] == [
        f"{first}:1", f"{tmp_path / 'more'}/0.jsonl:1", f"{tmp_path / 'more'}/1.jsonl:1",
    ]  # fmt: skip


def test_deprecated_mixing_and_sampling(encoder: Encoder, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", chat_rows(20))
    info = {"general": {"dataset_path": str(write_rows(tmp_path / "g.jsonl", chat_rows(30, start=500)))}}
    argv = ["--dataset", str(file), "--dataset_test_ratio", "0", "--custom_dataset_info", json.dumps(info)]

    sampled = run(encoder, tmp_path / "ledger", *argv, "--train_dataset_sample", "8")
    assert len(sampled.train) == 8
    assert totals(tmp_path / "ledger")["rows"] == 8
    assert len(run(encoder, tmp_path / "ledger", *argv, "--train_dataset_sample", "50").train) == 20  # none is repeated

    argv = ["--dataset", str(file), "--no_cache"]
    for more, train, val in (
        (["--val_dataset", str(tmp_path / "g.jsonl"), "--val_dataset_sample", "6"], 20, 6),
        (["--dataset_test_ratio", "0.5", "--val_dataset_sample", "4"], 10, 4),
        (["--dataset_test_ratio", "0.5", "--train_dataset_sample", "6"], 6, 3),
    ):
        built = run(encoder, tmp_path / "ledger", *argv, *more)
        assert built.val is not None
        assert (len(built.train), len(built.val)) == (train, val)


def test_over_length_rows_follow_the_strategy(encode_with: Callable[..., Encoder], tmp_path: Path) -> None:
    rows = [*chat_rows(3), {"query": "q", "response": "word " * 200}]
    file = write_rows(tmp_path / "a.jsonl", rows)
    argv = ["--dataset", str(file), "--dataset_test_ratio", "0"]

    dropped = run(encode_with(100), tmp_path / "l1", *argv, "--max_length", "100")
    assert len(dropped.train) == 3
    assert entries(tmp_path / "l1")[-1] == {
        "source": str(file), "line": 4, "status": "dropped", "reason": "too long",
        "detail": "expected at most 100 tokens, got 212", "split": "train",
    }  # fmt: skip

    cut = run(encode_with(100, "truncation_left"), tmp_path / "l2", *argv, "--max_length", "100")
    assert len(cut.train[3]["input_ids"]) == 100
    assert entries(tmp_path / "l2")[-1]["status"] == "truncated"

    assert len(run(encode_with(None), tmp_path / "l3", *argv, "--max_length", "-1").train) == 4


def test_self_cognition_teaches_both_names(encoder: Encoder, tokenizer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    names = ["--model_name", "小燕", "Swallow", "--model_author", "燕社", "Nest"]

    built = run(encoder, tmp_path / "ledger", "--dataset", "self-cognition#250", "--dataset_test_ratio", "0", *names)

    texts = [tokenizer.decode(ids) for ids in tokens(built.train)]
    assert len(texts) == 250
    assert not any("{{" in text for text in texts)
    assert any("小燕" in text and "燕社" in text for text in texts)
    assert any("Swallow" in text and "Nest" in text for text in texts)
    assert not any("Swallow" in text and "燕社" in text for text in texts)


def test_pairs_and_kto_and_prompts(encoder: Encoder, tmp_path: Path) -> None:
    pairs = [{"query": f"q{n}", "response": "good", "rejected_response": "bad answer"} for n in range(4)]
    liked = [{"query": f"q{n}", "response": "r", "label": n % 2 == 0} for n in range(4)]
    liked[0]["rejected_response"] = "worse"
    file = write_rows(tmp_path / "p.jsonl", [*pairs, {"query": "q", "response": "r"}])
    kto = write_rows(tmp_path / "k.jsonl", [*liked, {"query": "q", "response": "r"}])
    argv = ["--dataset_test_ratio", "0", "--no_cache"]

    built = run(encoder, tmp_path / "l1", "--rlhf_type", "dpo", "--dataset", str(file), *argv, command="rlhf")
    assert len(built.train) == 4
    assert set(built.train[0]) == {"chosen_input_ids", "chosen_labels", "rejected_input_ids", "rejected_labels", "row"}
    assert len(built.train[0]["rejected_input_ids"]) == built.train.lengths[0]
    assert entries(tmp_path / "l1")[-1]["reason"] == "missing key"

    built = run(encoder, tmp_path / "l2", "--rlhf_type", "kto", "--dataset", str(kto), *argv, command="rlhf")
    assert [built.train[n]["label"] for n in range(4)] == [True, False, True, False]
    assert "its rejected answer is left out" in entries(tmp_path / "l2")[0]["note"]
    assert "label: expected true or false" in entries(tmp_path / "l2")[-1]["detail"]


def test_a_pair_loses_the_same_prompt_on_both_sides_and_no_answer(
    encode_with: Callable[..., Encoder], tmp_path: Path
) -> None:
    long, short = "word " * 40, "no"
    rows = [
        {"query": long, "response": "yes it is", "rejected_response": short},
        {"query": long, "response": short, "rejected_response": "yes it is"},
        {"query": "q", "response": short, "rejected_response": long},
        {"query": "q", "response": "same", "rejected_response": "same"},
        {"query": long, "response": short, "rejected_response": "yes", "history": [["once", long]]},
    ]
    file = write_rows(tmp_path / "p.jsonl", rows)
    encoder = encode_with(max_length=30, strategy="truncation_left")
    for kind in ("dpo", "orpo"):
        argv = ("--rlhf_type", kind, "--dataset", str(file), "--dataset_test_ratio", "0", "--no_cache")
        built = run(encoder, tmp_path / kind, *argv, command="rlhf")
        assert [entry["status"] for entry in entries(tmp_path / kind)] == [
            "truncated", "truncated", "dropped", "dropped", "truncated"
        ]  # fmt: skip
        reasons = [entry["reason"] for entry in entries(tmp_path / kind) if entry["status"] == "dropped"]
        assert reasons == ["answer too long", "identical answers"]
        for item in (built.train[number] for number in range(3)):
            sides = [(item[f"{end}_input_ids"], item[f"{end}_labels"]) for end in ("chosen", "rejected")]
            prompts = [ids[: labels.index(next(y for y in labels if y != -100))] for ids, labels in sides]
            assert prompts[0] == prompts[1] != []
            assert max(len(ids) for ids, _ in sides) == 30
            assert {encoder.tokens.tokenizer.decode([y for y in labels if y != -100]) for _, labels in sides} in (
                {"yes it is<|im_end|>", "no<|im_end|>"}, {"yes<|im_end|>", "no<|im_end|>"}
            )  # fmt: skip


def test_nothing_to_train_is_an_error(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(SwiftError, match="no training data"):
        run(encoder, tmp_path / "ledger")


def test_a_user_converter_that_fails_makes_bad_rows(encoder: Encoder, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"ask": "a", "reply": "b"}, {"ask": "a"}, {"ask": "c", "reply": "d"}])
    register = tmp_path / "register.py"
    register.write_text(
        "import swift\n"
        "def rows(record): return {'query': record['ask'], 'response': record['reply']}\n"
        f"swift.register_dataset('mine', {str(tmp_path / 'a.jsonl')!r}, None, rows)\n"
    )
    from swift.catalog import load_catalog
    from swift.data import Ledger, build
    from swift.params.parse import parse
    from swift.plan.data import plan_data

    args = parse(["sft", "--model_id_or_path", "m", "--dataset", "mine", "--dataset_test_ratio", "0"])
    built = build(plan_data(args, load_catalog(register)), encoder, Ledger(tmp_path / "ledger"))

    assert len(built.train) == 2
    assert "KeyError: 'reply'" in entries(tmp_path / "ledger")[1]["detail"]


def test_that_a_model_of_text_is_not_shown_pictures_is_a_warning(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = write_rows(
        tmp_path / "rows.jsonl", [{"query": "q", "response": "r", "images": ["https://example.org/a.png"]}]
    )
    run(encoder, tmp_path / "ledger", "--dataset", str(rows), "--no_cache")
    (said,) = [record for record in caplog.records if "videos or audios are left out" in record.message]
    assert said.levelname == "WARNING"
