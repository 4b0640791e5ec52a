"""Damaged data: the run goes on without the bad rows, and the ledger names each with its line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from swift import data
from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.data.ledger import Ledger
from swift.data.stream import StreamDataset
from swift.plan.prompt import PromptPlan
from swift.prompts.encode import Encoder, build_encoder

from .rows import chat_rows, entries, plan, run, totals, write_rows

GOOD = '{"query": "q", "response": "r"}'
DAMAGE: list[tuple[str | bytes, str]] = [
    ('{"query": "q", "response": "r"', "broken JSON"),
    ('{"query": 5, "response": "r"}', "wrong type"),
    ('{"query": "q", "response": ""}', "empty value"),
    ('{"query": "q", "response": null}', "empty value"),
    ('{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}', "roles out of order"),
    ('{"messages": [{"role": "user", "content": "a"}, {"role": "narrator", "content": "b"}]}', "unknown role"),
    ('{"query": "q", "response": "r", "images": ["missing.jpg"]}', "missing file"),
    (b'{"query": "\xff\xfe", "response": "r"}', "not UTF-8"),
    ('{"query": "\\ud800", "response": "r"}', "not UTF-8"),
    ('{"query": "q", "response": "r", "label": NaN}', "wrong type"),
    ('{"front": "q", "back": "a"}', "unknown format"),
    ('["q", "r"]', "wrong type"),
    ("null", "wrong type"),
    (json.dumps({"query": "q", "response": "word " * 30_000}), "too long"),
    ("[" * 100_000, "broken JSON"),
    ('{"query": "q", "response": "r", "n": ' + "9" * 5000 + "}", "broken JSON"),
]


def damaged(path: Path) -> Path:
    """A good row before each bad one, and three ways of writing rows mixed."""
    content = b"\xef\xbb\xbf"
    for bad, _ in DAMAGE:
        content += GOOD.encode() + b"\r\n" + (bad if isinstance(bad, bytes) else bad.encode()) + b"\n"
    content += b'{"instruction": "i", "input": "", "output": "o"}\n'
    content += b'{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}\n'
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("mode", [[], ["--preprocess_num_proc", "2"], ["--lazy_tokenize", "true"]])
def test_each_bad_row_is_named_by_its_line(mode: list[str], encoder: Encoder, tmp_path: Path) -> None:
    file = damaged(tmp_path / "damaged.jsonl")

    built = run(encoder, tmp_path / "ledger", "--dataset", str(file), "--no_cache", *mode)
    for index in range(len(built.train)):  # a lazy row shows its fault when it is encoded
        built.train[index]

    found = {entry["line"]: entry["reason"] for entry in entries(tmp_path / "ledger") if entry["status"] == "dropped"}
    assert found == {2 * number + 2: reason for number, (_, reason) in enumerate(DAMAGE)}


def test_the_totals_add_up(encoder: Encoder, tmp_path: Path) -> None:
    file = damaged(tmp_path / "damaged.jsonl")

    built = run(encoder, tmp_path / "ledger", "--dataset", str(file))

    given = totals(tmp_path / "ledger")
    rows = entries(tmp_path / "ledger")
    assert given["rows"] == len(rows) == 2 * len(DAMAGE) + 2
    assert given["kept"] + given["truncated"] + given["dropped"] == given["rows"]
    assert given["dropped"] == len(DAMAGE) == sum(given["reasons"].values())
    assert built.val is not None
    assert len(built.train) + len(built.val) == given["kept"]
    assert given["tokens"] == sum(row.get("tokens", 0) for row in rows)
    assert {row["split"] for row in rows if row["status"] == "kept"} == {"train", "val"}


def test_the_first_bad_row_stops_a_strict_run(encoder: Encoder, tmp_path: Path) -> None:
    file = damaged(tmp_path / "damaged.jsonl")

    with pytest.raises(SwiftError) as error:
        run(encoder, tmp_path / "ledger", "--dataset", str(file), "--strict", "true")

    assert error.value.exit_code == 2
    assert error.value.where == f"{file}:2"
    assert "broken JSON" in error.value.what


def test_too_many_dropped_rows_stop_the_run(encoder: Encoder, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [*chat_rows(2), {"query": "q"}, {"query": "q"}, {"query": "q"}])

    with pytest.raises(SwiftError, match=r"3 of 5 rows were dropped: missing key 3"):
        run(encoder, tmp_path / "ledger", "--dataset", str(file))
    assert totals(tmp_path / "ledger")["dropped"] == 3

    built = run(encoder, tmp_path / "ledger", "--dataset", str(file), "--max_drop_ratio", "0.6")
    assert len(built.train) == 1


@pytest.mark.parametrize("mode", [[], ["--lazy_tokenize", "true"], ["--streaming", "true", "--max_steps", "1"]])
@pytest.mark.parametrize("content", ["", "\n\n", '{"question": "q"}\n', '{"query": "q", "response": null}\n'])
def test_nothing_to_train_on_stops_the_run(content: str, mode: list[str], encoder: Encoder, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(content)

    with pytest.raises(SwiftError, match="no row can be used"):
        run(encoder, tmp_path / "ledger", "--dataset", str(file), "--max_drop_ratio", "1", *mode)


def test_rows_that_needed_mending(encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = {"messages": [{"role": "user", "content": text} for text in "ab"] + [{"role": "assistant", "content": "c"}]}
    file = write_rows(tmp_path / "a.jsonl", [*chat_rows(3), twice])
    argv = ["--dataset", str(file), "--dataset_test_ratio", "0", "--no_cache", "--check_dataset_strategy"]

    assert len(run(encoder, tmp_path / "ledger", *argv, "none").train) == 4
    assert entries(tmp_path / "ledger")[-1]["note"] == "user turns in a row joined"
    given = capsys.readouterr().err
    assert f"{file}: user turns in a row joined (1 rows)" in given
    assert f"{file}:4: user turns" not in given

    assert len(run(encoder, tmp_path / "ledger", *argv, "warning").train) == 4
    assert f"{file}:4: user turns in a row joined" in capsys.readouterr().err

    assert len(run(encoder, tmp_path / "ledger", *argv, "discard").train) == 3
    assert entries(tmp_path / "ledger")[-1]["reason"] == "needed mending"

    with pytest.raises(SwiftError, match="user turns in a row joined"):
        run(encoder, tmp_path / "ledger", *argv, "error")


def test_a_key_that_stands_twice_is_said(encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_rows(tmp_path / "a.jsonl", chat_rows(3))
    with file.open("a") as more:
        more.write('{"query": "first", "query": "second", "response": "r"}\n')
        more.write(
            '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "content": "b"}]}'
        )
    argv = ["--dataset", str(file), "--dataset_test_ratio", "0", "--no_cache"]

    assert len(run(encoder, tmp_path / "ledger", *argv).train) == 5
    notes = [entry.get("note") for entry in entries(tmp_path / "ledger")]
    assert notes[3:] == [f'the key "{key}" stands twice, the last one is used' for key in ("query", "content")]
    assert 'the key "query" stands twice, the last one is used (1 rows)' in capsys.readouterr().err

    assert len(run(encoder, tmp_path / "ledger", *argv, "--check_dataset_strategy", "discard").train) == 3


def test_formats_and_unused_keys_are_said(encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"role": "user", "content": "q", "id": 7, "none": None}, {"role": "assistant", "content": "a", "id": 8}]
    rows = [*chat_rows(3), {"instruction": "i", "output": "o", "source": "web"}, {"messages": turns, "source": "web"}]
    run(encoder, tmp_path / "ledger", "--dataset", str(write_rows(tmp_path / "a.jsonl", rows)))

    given = capsys.readouterr().err
    assert "format query/response (3 rows), alpaca (1 rows), messages (1 rows); keys not used: " in given
    assert "keys not used: messages[].id (1 rows), source (2 rows)" in given
    assert "5 rows: 5 kept, 0 truncated, 0 dropped" in given


def test_preferences_that_a_method_does_not_read_are_said(
    encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"query": "q", "response": "a", "rejected_response": "b", "label": False}
    file = write_rows(tmp_path / "a.jsonl", [*chat_rows(3), row])
    argv = ["--dataset", str(file), "--dataset_test_ratio", "0", "--no_cache"]

    run(encoder, tmp_path / "ledger", *argv)
    assert "keys not used: label (1 rows), rejected_response (1 rows)" in capsys.readouterr().err


def test_the_format_of_a_sample_is_said_once(
    encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / "a.jsonl", chat_rows(30))
    run(encoder, tmp_path / "ledger", "--dataset", f"{file}#20", "--no_cache")

    assert capsys.readouterr().err.count("format query/response (30 rows)") == 1


def test_an_empty_data_set_beside_others_is_said(
    encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / "a.jsonl", chat_rows(3))
    (tmp_path / "empty.csv").write_text("query,response\n")
    run(encoder, tmp_path / "ledger", "--dataset", str(file), str(tmp_path / "empty.csv"))

    assert f"{tmp_path / 'empty.csv'}: there are no rows in it" in capsys.readouterr().err


def test_media_that_the_model_will_not_see_are_said(
    encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"jpg")
    row = {"query": "<image>What is it?", "response": "A cat.", "images": ["a.jpg"]}
    file = write_rows(tmp_path / "a.jsonl", [*chat_rows(3), row])
    run(encoder, tmp_path / "ledger", "--dataset", str(file))

    assert f"{file}: its images, videos or audios are left out" in capsys.readouterr().err
    assert "are left out" in entries(tmp_path / "ledger")[-1]["note"]


@pytest.mark.parametrize("mode", [[], ["--lazy_tokenize", "true"]])
def test_a_run_whose_rows_are_all_for_validation(mode: list[str], encoder: Encoder, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", chat_rows(3))

    with pytest.raises(SwiftError, match="no row is left to train on"):
        run(encoder, tmp_path / "ledger", "--dataset", str(file), "--dataset_test_ratio", "1", *mode)


@pytest.mark.parametrize("mode", [[], ["--lazy_tokenize", "true"], ["--streaming", "true", "--max_steps", "1"]])
def test_a_row_that_brings_a_second_bos_is_dropped_and_named(mode: list[str], tokenizer: Any, tmp_path: Path) -> None:
    encoder = build_encoder(PromptPlan(template_type="default-generation-bos"), tokenizer, load_catalog())
    doubled = {"text": f"{tokenizer.bos_token}Once upon a time."}
    file = write_rows(tmp_path / "a.jsonl", [{"text": "Once."}, doubled, {"text": "Twice."}])

    ledger = Ledger(tmp_path / "ledger")
    planned = plan("--dataset", str(file), "--no_cache", "--dataset_test_ratio", "0", *mode)
    train = data.build(planned, encoder, ledger).train
    items = list(train) if isinstance(train, StreamDataset) else [train[number] for number in range(len(train))]
    ledger.close()

    assert all(item["input_ids"][1] != tokenizer.bos_token_id for item in items)
    dropped = [entry for entry in entries(tmp_path / "ledger") if entry["status"] == "dropped"]
    assert {(entry["line"], entry["reason"]) for entry in dropped} == {(2, "two bos tokens")}

    with pytest.raises(SwiftError, match="no row can be used: two bos tokens 1") as error:
        run(encoder, tmp_path / "ledger", "--dataset", str(write_rows(tmp_path / "b.jsonl", [doubled])))
    assert "b.jsonl:1: two bos tokens" in str(error.value)


@pytest.mark.parametrize("mode", [[], ["--lazy_tokenize", "true"], ["--streaming", "true", "--max_steps", "1"]])
def test_answers_that_would_never_end_stop_the_run_with_the_row(
    mode: list[str], tokenizer: Any, tmp_path: Path
) -> None:
    endless = copy.copy(tokenizer)
    endless.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    file = write_rows(tmp_path / "a.jsonl", chat_rows(3))

    with pytest.raises(SwiftError, match="the end of the answer is never trained") as error:
        argv = ["--dataset", str(file), "--no_cache", "--dataset_test_ratio", "0", *mode]
        run(build_encoder(PromptPlan(template_type="jinja"), endless, load_catalog()), tmp_path / "ledger", *argv)
    assert error.value.where == f"{file}:1"
