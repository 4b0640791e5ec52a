"""Shares of memory: the figures of the ZeRO paper, and what a dry run shows of them."""

from __future__ import annotations

import pytest

from swift.training.memory_shares import DDP, FSDP, ZERO_1, ZERO_2, ZERO_3, Whole, chosen_and_next, shares

BILLION = 10**9


def whole(weights: int, width: int, trained: int | None = None) -> Whole:
    """A model of so many numbers of so many bytes, stepped by Adam."""
    trained = weights if trained is None else trained
    return Whole(
        parameters=weights,
        trainable=trained,
        weights=weights * width,
        gradients=trained * width,
        states=2,
        layer=0,
        outside=0,
    )


def test_the_figures_of_the_paper() -> None:
    of = {share.engine: share for share in shares(whole(int(7.5 * BILLION), 2), 64, live=0)}
    for engine, gigabytes in ((ZERO_1, 31.4), (ZERO_2, 16.6), (ZERO_3, 1.9)):
        assert of[engine].total / BILLION == pytest.approx(gigabytes, abs=0.05)


def test_in_fp32_ddp_holds_sixteen_bytes_a_weight() -> None:
    of = {share.engine: share for share in shares(whole(BILLION, 4), 4, live=0)}
    assert of[DDP].total == 16 * BILLION
    assert of[FSDP].total == 4 * BILLION
    assert of[ZERO_2].total == 4 * BILLION + 4 * BILLION // 4 + 12 * BILLION // 4


def test_the_next_ways_hold_less_and_fit() -> None:
    table = shares(whole(7 * BILLION, 2, trained=10**6), 8, live=0)
    chosen, *others = chosen_and_next(table, DDP, None)
    assert chosen.engine == DDP and len(others) == 2
    assert all(share.total < chosen.total for share in others)
    (alone,) = chosen_and_next(table, DDP, 0)[:1]
    assert alone.engine == DDP
    assert all(share.total <= 4 * BILLION for share in chosen_and_next(table, ZERO_2, 4 * BILLION)[1:])
