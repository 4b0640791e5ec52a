"""A CPU answers in bf16 where that is measured to be faster and nobody asked for another precision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swift.catalog import load_catalog
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.infer import plan_infer
from swift.plan.model import ModelPlan

GPU = Machine(device="cuda", device_count=1, packages=frozenset({"bitsandbytes"}))
LARGE = {"model_type": "llama", "dtype": "bfloat16", "hidden_size": 576, "intermediate_size": 1536}


class Measurement:
    """Says what it is told to, and remembers what it was asked."""

    def __init__(self, times: float):
        self.times = times
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, inputs: int, outputs: int) -> float:
        self.sizes.append((inputs, outputs))
        return self.times


def model_folder(place: Path, config: dict[str, object]) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps(config))
    return place


def plan(words: str, measure: Measurement, machine: Machine | None = None) -> ModelPlan:
    args = parse(["infer", *words.split()])
    return plan_infer(args, load_catalog(), machine or Machine(), bf16_speedup=measure).model


@pytest.mark.parametrize(
    ("times", "dtype", "said"),
    [(2.0, "bf16", "2.0 times as fast"), (1.1, "fp32", "1.1 times as fast"), (0.0, "fp32", "no instructions for bf16")],
)
def test_the_plan_says_what_was_measured(tmp_path: Path, times: float, dtype: str, said: str) -> None:
    measure = Measurement(times)
    found = plan(f"--model_id_or_path {model_folder(tmp_path, LARGE)}", measure)
    assert found.dtype == dtype and measure.sizes == [(576, 1536)]
    assert said in found.summary()


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        ({"model_type": "gpt2", "n_embd": 768}, (768, 3072)),
        ({"model_type": "llava", "text_config": {"hidden_size": 2048, "intermediate_size": 5632}}, (2048, 5632)),
        ({"model_type": "odd", "hidden_size": [4]}, (1024, 4096)),
        ({"model_type": "odd", "hidden_size": 0, "intermediate_size": None}, (1024, 4096)),
    ],
)
def test_the_layer_has_the_sizes_of_the_model(
    tmp_path: Path, config: dict[str, object], sizes: tuple[int, int]
) -> None:
    measure = Measurement(2.0)
    plan(f"--model_id_or_path {model_folder(tmp_path, config)}", measure)
    assert measure.sizes == [sizes]


def test_nothing_is_measured_where_it_decides_nothing(tmp_path: Path) -> None:
    measure = Measurement(9.0)
    large = f"--model_id_or_path {model_folder(tmp_path / 'large', LARGE)}"
    small = (
        f"--model_id_or_path {model_folder(tmp_path / 'small', {**LARGE, 'hidden_size': 64, 'intermediate_size': 128})}"
    )
    assert plan(f"{large} --dtype fp32", measure).dtype == "fp32"
    assert plan(f"{large} --dtype bf16", measure).dtype_reason == ""
    assert plan(large, measure, GPU).dtype == "bf16"
    assert plan(small, measure).dtype == "fp32"
    assert plan(f"{large} --quantization_bit 8", measure).dtype_reason == ""
    assert measure.sizes == []


def test_the_precision_of_training_is_no_wish_for_answers(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-2"
    model_folder(checkpoint, LARGE)
    for saved, given, dtype in (("fp32", "", "bf16"), ("fp32", "--dtype fp32", "fp32"), ("bf16", "", "bf16")):
        (checkpoint / "sft_args.json").write_text(json.dumps({"dtype": saved}))
        assert plan(f"--ckpt_dir {checkpoint} {given}", Measurement(2.0)).dtype == dtype
