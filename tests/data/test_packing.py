"""Packing: every row exactly once, sequences well filled."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift.core.errors import SwiftError
from swift.data.collator import flatten
from swift.data.packing import best_fit, fill_rate, unpacked
from swift.prompts.encode import Encoder

from .rows import chat_rows, run, tokens, write_rows


@given(st.lists(st.integers(1, 100), max_size=60))
def test_bins_hold_every_index_once_within_their_capacity(lengths: list[int]) -> None:
    bins = best_fit(lengths, 100)

    assert sorted(index for bin_ in bins for index in bin_) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in bin_) <= 100 for bin_ in bins)


def test_the_fullest_bin_that_fits_is_taken() -> None:
    assert [sorted(bin_) for bin_ in best_fit([60, 80, 40, 20], 100)] == [[1, 3], [0, 2]]
    assert best_fit([300, 10], 100) == [[0], [1]]


def test_many_rows_fill_their_sequences() -> None:
    chance = random.Random(0)
    lengths = [chance.randint(20, 700) for _ in range(5000)]

    assert fill_rate(lengths, best_fit(lengths, 2048), 2048) > 0.995


@pytest.mark.parametrize("mode", [[], ["--lazy_tokenize", "true"]])
def test_packed_items_are_their_rows_end_to_end(
    mode: list[str], encode_with: Callable[..., Encoder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / "a.jsonl", [*chat_rows(100), {"query": "q", "response": "long " * 500}])
    argv = ["--dataset", str(file), "--dataset_test_ratio", "0", "--max_length", "256"]

    plain = run(encode_with(256), tmp_path / "l1", *argv)
    packed = run(encode_with(256), tmp_path / "l2", *argv, "--packing", "true", *mode)

    pieces = [piece for number in range(len(packed.train)) for piece in unpacked(packed.train[number])]
    assert sorted(piece["input_ids"] for piece in pieces) == sorted(tokens(plain.train))
    assert len(packed.train) < 20 and max(packed.train.lengths) <= 256  # type: ignore[type-var]
    assert "packed 100 rows into" in capsys.readouterr().err
    assert packed.train.origin(0).startswith(f"{file}:1")


def test_positions_start_anew_in_every_row(encode_with: Callable[..., Encoder], tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", chat_rows(20))
    built = run(encode_with(256), tmp_path / "l", "--dataset", str(file), "--max_length", "256", "--packing", "true")

    item = built.train[0]
    batch = flatten([item, built.train[1]])

    starts = (batch["position_ids"][0] == 0).nonzero()[:, 0].tolist()
    assert len(starts) == len(item["lengths"]) + len(built.train[1]["lengths"])
    assert batch["rows"] == item["rows"] + built.train[1]["rows"]


def test_packing_needs_a_length_and_no_pairs(encode_with: Callable[..., Encoder], tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", chat_rows(4))
    with pytest.raises(SwiftError, match="needs a length"):
        run(encode_with(None), tmp_path / "l", "--dataset", str(file), "--max_length", "-1", "--packing", "true")
