"""Batches: flat or padded, they hold the same rows."""

from __future__ import annotations

from swift.data.collator import flatten, pad

ITEMS = [
    {"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "row": 4},
    {"input_ids": [5, 6], "labels": [-100, 6], "loss_scale": [0.0, 2.0], "row": 9},
]
PACKED = {"input_ids": [1, 2, 3, 5, 6], "labels": [-100, 2, 3, -100, 6], "lengths": [3, 2], "rows": [4, 9]}


def test_flat_batches_have_no_padding() -> None:
    batch = flatten(ITEMS)

    assert batch["input_ids"].tolist() == [[1, 2, 3, 5, 6]]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["sequence_lengths"] == (3, 2)
    assert batch["loss_scale"].tolist() == [[1, 1, 1, 0, 2]]
    assert batch["rows"] == [4, 9]
    assert "loss_scale" not in flatten(ITEMS[:1])


def test_padded_batches_have_a_row_each() -> None:
    batch = pad(ITEMS, 0)

    assert batch["input_ids"].tolist() == [[1, 2, 3], [5, 6, 0]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [-100, 6, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["loss_scale"].tolist() == [[1, 1, 1], [0, 2, 0]]
    assert pad(ITEMS, 7, side="left")["input_ids"].tolist() == [[1, 2, 3], [7, 5, 6]]


def test_a_packed_item_is_its_rows() -> None:
    alone = flatten([{k: v for k, v in item.items() if k != "loss_scale"} for item in ITEMS])
    packed = flatten([PACKED])
    assert packed["rows"] == alone["rows"]
    assert packed["sequence_lengths"] == alone["sequence_lengths"]
    for name in ("input_ids", "labels", "position_ids"):
        assert packed[name].tolist() == alone[name].tolist()
    assert pad([PACKED], 0)["input_ids"].tolist() == pad(ITEMS, 0)["input_ids"].tolist()
    assert pad([PACKED], 0)["rows"] == [4, 9]
