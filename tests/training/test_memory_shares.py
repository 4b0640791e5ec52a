"""Shares of memory: the figures of the ZeRO paper, and what a dry run shows of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swift.training.memory_shares import DDP, FSDP, ZERO_1, ZERO_2, ZERO_3, Whole, chosen_and_next, shares
from training.held_memory import start_measured
from training.parallel_runs import ZERO_3 as ZERO_3_STRICT
from training.process import finished, ranks

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


@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["lora", "full"])
@pytest.mark.parametrize(
    ("engine", "flags"),
    [
        (DDP, []),
        (ZERO_2, ["--deepspeed", "default-zero2"]),
        (ZERO_3, ["--deepspeed", ZERO_3_STRICT]),
        (FSDP, ["--fsdp", "full_shard"]),
    ],
)
def test_a_process_holds_the_share_that_a_dry_run_shows(
    engine: str, flags: list[str], tuner: str, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    """To the padding of flat pieces, which is a few hundred bytes for each weight of a tiny model."""
    if "--deepspeed" in flags:
        pytest.importorskip("deepspeed")
    (tmp_path / "rows.jsonl").write_text('{"query": "Hi", "response": "Hello"}\n' * 8)
    words = ["--model_id_or_path", str(tiny_llama_dir), "--dataset", str(tmp_path / "rows.jsonl"), *flags]
    words += ["--sft_type", tuner, "--output_dir", str(tmp_path / "run"), "--add_output_dir_suffix", "false"]
    words += ["--max_steps", "1", "--save_strategy", "no", "--dataset_test_ratio", "0", "--warmup_ratio", "0"]
    words += ["--report_to", "none", "--batch_size", "2", "--gradient_accumulation_steps", "2"]
    words += ["--micro_batching", "said"]
    together = [start_measured(words, tmp_path, place) for place in ranks(2)]
    assert [finished(process) for process in together] == [0, 0], (tmp_path / "0.log").read_text()
    for number in range(2):
        found = json.loads((tmp_path / f"{number}.json").read_text())
        sizes, held = found["estimate"], found["held"]
        parts = ("parameters", "trainable", "weights", "gradients", "states", "layer", "outside")
        of = {share.engine: share for share in shares(Whole(**{name: sizes[name] for name in parts}), 2)}
        for name in ("weights", "gradients", "optimizer"):
            assert held[name] == pytest.approx(getattr(of[engine], name), rel=0.02), name
