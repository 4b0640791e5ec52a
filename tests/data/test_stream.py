"""Streams: the same rows as eager encoding, shuffled in a buffer, left and entered again anywhere."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from swift.core.errors import SwiftError
from swift.data.collator import unpacked
from swift.data.stream import StreamDataset
from swift.prompts.encode import Encoder

from .rows import chat_rows, entries, run, tokens, write_rows

STREAM = ["--streaming", "true", "--max_steps", "10", "--no_cache"]


def stream(encoder: Encoder, ledger: Path, *argv: str) -> StreamDataset:
    train = run(encoder, ledger, *STREAM, *argv).train
    assert isinstance(train, StreamDataset)
    return train


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two files, one that can be entered by its offsets and one that cannot, with a bad row in each."""
    write_rows(tmp_path / "a.jsonl", [*chat_rows(150), {"query": "q"}, *chat_rows(50, start=150)])
    (tmp_path / "b.json").write_text(json.dumps([*chat_rows(70, start=300), {"response": None}], indent=1))
    return ["--dataset", str(tmp_path / "a.jsonl"), str(tmp_path / "b.json")]


def test_a_stream_has_the_tokens_of_eager_encoding_in_their_order(
    files: list[str], encoder: Encoder, tmp_path: Path
) -> None:
    eager = run(encoder, tmp_path / "l1", *files, "--dataset_test_ratio", "0")
    in_order = stream(encoder, tmp_path / "l2", *files, "--streaming_buffer_size", "1")

    assert [item["input_ids"] for item in in_order] == tokens(eager.train)


def test_the_buffer_shuffles_and_loses_nothing(files: list[str], encoder: Encoder, tmp_path: Path) -> None:
    eager = run(encoder, tmp_path / "l1", *files, "--dataset_test_ratio", "0")
    shuffled = stream(encoder, tmp_path / "l2", *files, "--streaming_buffer_size", "40")

    first, second = list(shuffled), list(shuffled)

    assert sorted(item["input_ids"] for item in first) == sorted(tokens(eager.train))
    assert [item["input_ids"] for item in first] != tokens(eager.train)
    assert [item["input_ids"] for item in first] != [item["input_ids"] for item in second]
    again = stream(encoder, tmp_path / "l2", *files, "--streaming_buffer_size", "40")
    assert list(again) == first


def test_every_row_of_the_stream_is_in_the_ledger_once(files: list[str], encoder: Encoder, tmp_path: Path) -> None:
    shuffled = stream(encoder, tmp_path / "ledger", *files, "--streaming_buffer_size", "40")

    list(shuffled)
    list(shuffled)
    shuffled.ledger.close()

    found = entries(tmp_path / "ledger")
    assert len({(entry["source"], entry["line"]) for entry in found}) == len(found) == 272
    assert [entry["status"] for entry in found].count("dropped") == 2


@pytest.mark.parametrize("packing", ["false", "true"])
@pytest.mark.parametrize("cut", [0, 1, 63, 64, 65, 200])
def test_a_stream_goes_on_exactly_where_it_was_left(
    cut: int, packing: str, files: list[str], encoder: Encoder, tmp_path: Path
) -> None:
    argv = [*files, "--streaming_buffer_size", "30", "--packing", packing, "--max_length", "128"]
    whole = list(stream(encoder, tmp_path / "l", *argv))
    cut = min(cut, len(whole) - 1)

    left = stream(encoder, tmp_path / "l", *argv)
    fetched_ahead = list(itertools.islice(left, cut + 3))
    state = json.loads(json.dumps(left.state_dict(cut)))
    entered = stream(encoder, tmp_path / "l", *argv)
    entered.load_state_dict(state)

    assert fetched_ahead[:cut] + list(entered) == whole


def test_a_resumed_stream_can_be_left_again(files: list[str], encoder: Encoder, tmp_path: Path) -> None:
    argv = [*files, "--streaming_buffer_size", "30"]
    whole = list(stream(encoder, tmp_path / "l", *argv))
    taken: list[dict[str, Any]] = []
    state = None
    for _ in range(5):
        part = stream(encoder, tmp_path / "l", *argv)
        if state is not None:
            part.load_state_dict(state)
        taken += itertools.islice(part, 29)
        state = part.state_dict()
    assert taken == whole[: len(taken)]


def test_the_second_epoch_is_resumed_as_the_second(files: list[str], encoder: Encoder, tmp_path: Path) -> None:
    argv = [*files, "--streaming_buffer_size", "30"]
    left = stream(encoder, tmp_path / "l", *argv)
    list(left)
    second = iter(left)
    start = list(itertools.islice(second, 70))
    state = left.state_dict()
    rest = list(second)

    entered = stream(encoder, tmp_path / "l", *argv)
    entered.load_state_dict(state)

    assert len(start) == 70
    assert [item["input_ids"] for item in entered] == [item["input_ids"] for item in rest]


def test_packed_streams_hold_every_row_once(files: list[str], encoder: Encoder, tmp_path: Path) -> None:
    eager = run(encoder, tmp_path / "l1", *files, "--dataset_test_ratio", "0")
    packed = list(stream(encoder, tmp_path / "l2", *files, "--packing", "true", "--max_length", "256"))

    pieces = [piece["input_ids"] for item in packed for piece in unpacked(item)]
    assert sorted(pieces) == sorted(tokens(eager.train))
    assert max(len(item["input_ids"]) for item in packed) <= 256


def test_validation_rows_come_first_and_are_not_trained(files: list[str], encoder: Encoder, tmp_path: Path) -> None:
    eager = run(encoder, tmp_path / "l1", *files, "--dataset_test_ratio", "0")
    built = run(encoder, tmp_path / "l2", *STREAM, *files, "--streaming_val_size", "9", "--streaming_buffer_size", "1")

    assert built.val is not None
    assert tokens(built.val) == tokens(eager.train)[:9]
    assert [item["input_ids"] for item in built.train] == tokens(eager.train)[9:]


def test_a_sample_of_a_stream_is_its_start(tmp_path: Path, encoder: Encoder) -> None:
    file = write_rows(tmp_path / "a.jsonl", chat_rows(50))

    assert len(list(stream(encoder, tmp_path / "l", "--dataset", f"{file}#20"))) == 20


def test_rows_know_their_origin(files: list[str], encoder: Encoder, tmp_path: Path) -> None:
    in_order = stream(encoder, tmp_path / "l", *files, "--streaming_buffer_size", "1")
    items = list(in_order)

    assert in_order.origin(items[150]["row"]) == f"{files[1]}:152"


def test_a_sample_counts_over_all_files_of_a_folder(
    tmp_path: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        write_rows(tmp_path / f"{number}.jsonl", chat_rows(10, start=10 * number))
    eager = run(encoder, tmp_path / "l", "--dataset", str(tmp_path), "--dataset_test_ratio", "0", "--no_cache")

    taken = list(stream(encoder, tmp_path / "l", "--dataset", f"{tmp_path}#14", "--streaming_buffer_size", "1"))

    assert [item["input_ids"] for item in taken] == tokens(eager.train)[:14]
    assert len(list(stream(encoder, tmp_path / "l", "--dataset", f"{tmp_path}#50"))) == 30
    assert "#50: a stream repeats no rows, there are 30" in capsys.readouterr().err


def test_a_stream_says_formats_and_what_it_drops(
    files: list[str], encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = stream(encoder, tmp_path / "ledger", *files)
    list(left)
    left.ledger.close()

    given = capsys.readouterr().err
    assert given.count(f"{files[1]}: format query/response") == 1
    assert given.count(f"dropped {files[1]}:151: missing key") == 1
    assert "data: 272 rows: 270 kept" in given


def test_rows_of_a_stream_that_needed_mending(
    encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = {"messages": [{"role": "user", "content": text} for text in "ab"] + [{"role": "assistant", "content": "c"}]}
    argv = ["--dataset", str(write_rows(tmp_path / "a.jsonl", [*chat_rows(3), twice])), "--check_dataset_strategy"]

    noted = stream(encoder, tmp_path / "ledger", *argv, "warning")
    assert len(list(noted)) == 4
    noted.ledger.close()
    assert "user turns in a row joined" in {entry.get("note") for entry in entries(tmp_path / "ledger")}
    assert capsys.readouterr().err.count("a.jsonl:4: user turns in a row joined") == 1
    with pytest.raises(SwiftError, match="user turns in a row joined"):
        list(stream(encoder, tmp_path / "l", *argv, "error"))


def test_a_resumed_stream_goes_on_with_its_ledger(files: list[str], encoder: Encoder, tmp_path: Path) -> None:
    argv = [*files, "--streaming_buffer_size", "30", "--streaming_val_size", "5"]
    whole = stream(encoder, tmp_path / "whole", *argv)
    list(whole)
    whole.ledger.close()

    left = stream(encoder, tmp_path / "parts", *argv)
    list(itertools.islice(left, 130))  # 30 of them were fetched ahead of training
    state = json.loads(json.dumps(left.state_dict(100)))
    left.ledger.close()
    entered = stream(encoder, tmp_path / "parts", *argv)
    entered.load_state_dict(state)
    list(entered)
    entered.ledger.close()

    assert (tmp_path / "parts").read_text() == (tmp_path / "whole").read_text()
