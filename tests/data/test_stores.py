"""The three stores (eager, lazy, streaming) hold what they promise alike, over the same rows."""

from __future__ import annotations

import copy
import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swift import data
from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.data.ledger import Ledger
from swift.data.stream import StreamDataset
from swift.params.parse import parse
from swift.plan.data import plan_data
from swift.plan.prompt import PromptPlan
from swift.prompts.encode import Encoder, build_encoder
from swift.prompts.rewrites import THINKING

from .rows import chat_rows, entries, plan, run, totals, write_rows

STORES = {
    "eager": [],
    "lazy": ["--lazy_tokenize", "true"],
    "streaming": ["--streaming", "true", "--max_steps", "3", "--streaming_buffer_size", "1"],
}
DISCARD = ["--check_dataset_strategy", "discard"]
LIMIT = 60
"""Tokens; seven of the ten rows have more."""
stores = pytest.mark.parametrize("store", STORES)


def mostly_long(path: Path) -> Path:
    """Ten rows, seven of them too long, the eighth to the tenth short."""
    long = [{"query": f"q{number}", "response": "word " * 100} for number in range(7)]
    return write_rows(path, [*long, *({"query": f"q{number}", "response": "short"} for number in range(3))])


def built_from(built: data.Built, ledger: Path, run_ledger: Ledger) -> tuple[list[int], list[str]]:
    """Lengths and origins of all items, after every one was asked for twice; the ledger is closed then."""
    train = built.train
    if isinstance(train, StreamDataset):
        items = list(train)
        origins = [train.origin(item["row"]) for item in items]
        list(train)
    else:
        items = [train[number] for number in range(len(train))]
        assert [train[number] for number in range(len(train))] == items
        origins = [train.origin(item["row"]) for item in items]
    run_ledger.close()
    return [len(item["input_ids"]) for item in items], origins


@stores
@pytest.mark.parametrize("packed", ["a.jsonl", "a.jsonl.gz"])
def test_each_row_is_said_once_and_none_is_repeated(
    store: str, packed: str, encode_with: Callable[..., Encoder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = mostly_long(tmp_path / "a.jsonl")
    if packed != file.name:
        (tmp_path / packed).write_bytes(gzip.compress(file.read_bytes()))
        file = tmp_path / packed
    argv = ["--dataset", str(file), "--dataset_test_ratio", "0", "--no_cache", "--max_drop_ratio", "0.7"]
    planned = plan(*argv, *STORES[store])
    ledger = Ledger.of_plan(planned, tmp_path / "ledger")

    lengths, origins = built_from(data.build(planned, encode_with(LIMIT), ledger), tmp_path / "ledger", ledger)

    assert origins == [f"{file}:{line}" for line in (8, 9, 10)]
    assert [entry["line"] for entry in entries(tmp_path / "ledger")] == list(range(1, 11))
    given = totals(tmp_path / "ledger")
    assert (given["rows"], given["kept"], given["dropped"], given["reasons"]) == (10, 3, 7, {"too long": 7})
    assert given["tokens"] == sum(lengths) and 0 < given["trained"] < sum(lengths)
    log = capsys.readouterr().err
    assert "data: 10 rows: 3 kept, 0 truncated, 7 dropped (too long 7)" in log
    assert log.count(f"dropped {file}:1: too long") == 1


@stores
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "7 of 10 rows were dropped: too long 7"),
        (["--max_drop_ratio", "0"], "7 of 10 rows were dropped"),
        (["--max_drop_ratio", "1", "--strict", "true"], "too long: expected at most 60 tokens"),
    ],
)
def test_what_may_not_be_dropped_stops_the_run_before_it_starts(
    store: str, flags: list[str], message: str, encode_with: Callable[..., Encoder], tmp_path: Path
) -> None:
    file = mostly_long(tmp_path / "a.jsonl")

    with pytest.raises(SwiftError, match=message) as error:
        run(encode_with(LIMIT), tmp_path / "ledger", "--dataset", str(file), "--no_cache", *flags, *STORES[store])

    assert error.value.exit_code == 2
    assert f"{file}:1" in str(error.value)


@stores
def test_rows_without_an_answer_to_train_stop_the_run(store: str, encoder: Encoder, tmp_path: Path) -> None:
    silent = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]}
    file = write_rows(tmp_path / "a.jsonl", [silent] * 3)

    with pytest.raises(SwiftError, match="no row can be used: nothing to train on 3"):
        run(encoder, tmp_path / "ledger", "--dataset", str(file), "--no_cache", *STORES[store])


@stores
def test_answers_that_the_chat_template_cuts_stop_the_run(
    store: str, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cuts = copy.deepcopy(tokenizer)
    cuts.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.content.split('</think>')[-1] }}<|im_end|>{% endfor %}"
    )
    encoder = build_encoder(PromptPlan(template_type="jinja"), cuts, load_catalog())
    rows = chat_rows(40)
    rows[1]["response"] = rows[6]["response"] = rows[7]["response"] = "<think>why</think>so"
    flags = ["--dataset", str(write_rows(tmp_path / "a.jsonl", rows)), "--dataset_test_ratio", "0", "--no_cache"]

    with pytest.raises(SwiftError, match="3 of 40 rows would train other answers than they hold") as error:
        run(encoder, tmp_path / "ledger", *flags, *STORES[store])
    assert f"a.jsonl:2: {THINKING}" in str(error.value) and "--max_rewritten_ratio 1" in str(error.value)
    capsys.readouterr()

    for name, more in ("kept", ["--max_rewritten_ratio", "0.1"]), ("dropped", DISCARD):
        planned = plan(*flags, *more, *STORES[store])
        ledger = Ledger.of_plan(planned, tmp_path / name)
        built_from(data.build(planned, encoder, ledger), tmp_path / name, ledger)
        log = capsys.readouterr().err
        given = entries(tmp_path / name)
        assert [entry["line"] for entry in given if THINKING in str(entry)] == [2, 7, 8]
        assert {entry["status"] for entry in given if THINKING in str(entry)} == {name}
        if name == "kept":
            assert log.count(f"a.jsonl:2: {THINKING}") == 1 and log.count(THINKING) == 2
            assert f"trained; {THINKING}: 3" in log
            assert totals(tmp_path / name)["rewritten"] == 3


def test_lengths_and_items_of_the_lazy_store_are_those_of_the_eager_one(
    encode_with: Callable[..., Encoder], tmp_path: Path
) -> None:
    (tmp_path / "more.json").write_text(json.dumps(chat_rows(40, start=50), indent=1))
    write_rows(tmp_path / "a.jsonl", chat_rows(50))
    argv = ["--dataset", f"{tmp_path / 'a.jsonl'}#30", f"{tmp_path / 'more.json'}#25", "--cache_dir", str(tmp_path)]

    eager = run(encode_with(LIMIT), tmp_path / "l1", *argv).train
    for _ in range(2):  # the second time from what the cache holds
        lazy = run(encode_with(LIMIT), tmp_path / "l2", *argv, *STORES["lazy"]).train
        assert not isinstance(lazy, StreamDataset) and not isinstance(eager, StreamDataset)
        assert lazy.lengths.tolist() == eager.lengths.tolist()
        assert [lazy[number] for number in range(len(lazy))] == [eager[number] for number in range(len(eager))]
        assert (tmp_path / "l1").read_text() == (tmp_path / "l2").read_text()


def test_a_file_that_changes_under_a_lazy_run_is_named(encoder: Encoder, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", chat_rows(5))
    argv = ["--dataset", str(file), "--no_cache", "--dataset_test_ratio", "0"]
    train = run(encoder, tmp_path / "ledger", *argv, *STORES["lazy"]).train
    assert not isinstance(train, StreamDataset)

    file.write_text(file.read_text().replace("question 3", "another question"))

    assert train[2]["row"] == 2
    with pytest.raises(SwiftError, match="not what it was when the run began") as error:
        train[4]
    assert error.value.where == f"{file}:5"


COUNTING = """
import json, swift
def counted(record):
    with open({log!r}, "a") as file:
        file.write(record["query"] + "\\n")
    return record
swift.register_dataset("counted", {file!r}, None, counted, exist_ok=True)
"""


@stores
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_row_is_read_once(store: str, kind: str, encoder: Encoder, tmp_path: Path) -> None:
    rows = chat_rows(90)
    file = tmp_path / f"a.{kind}"
    file.write_text(json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "register.py").write_text(COUNTING.format(log=str(tmp_path / "read"), file=str(file)))
    catalog = load_catalog(tmp_path / "register.py")

    def reads(name: str) -> Counter[str]:
        """How often each row is converted until it has been trained on once."""
        (tmp_path / "read").write_text("")
        argv = ["sft", "--model_id_or_path", "m", "--dataset", name, "--dataset_test_ratio", "0", "--no_cache"]
        train = data.build(plan_data(parse([*argv, *STORES[store]]), catalog), encoder, Ledger()).train
        before = Counter((tmp_path / "read").read_text().splitlines())
        for item in train if isinstance(train, StreamDataset) else map(train.__getitem__, range(len(train))):
            assert item["input_ids"]
        return before if store == "lazy" else Counter((tmp_path / "read").read_text().splitlines())

    first = 1 if store == "lazy" else 0  # the first item is asked for while the data are built, to be shown
    whole = reads("counted")
    assert len(whole) == len(rows) and sum(whole.values()) == len(rows) + first
    # Of a sample, only the rows that were drawn are fetched again; a stream takes the first.
    sample = reads("counted#20")
    assert sum(sample.values()) == (20 if store == "streaming" else len(rows) + 20 + first)
    assert max(sample.values()) <= (1 if store == "streaming" else 2 + first)
