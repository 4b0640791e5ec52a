"""Libraries that need a GPU, where there is none and where there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.sft import SftPlan, plan_sft

GPU = Machine(device="cuda", device_count=1, packages=frozenset({"liger_kernel", "unsloth", "bitsandbytes"}))
UNSLOTH = "--tuner_backend unsloth"


def plan(words: str, machine: Machine, rows: Path) -> SftPlan:
    own = f"sft --model_type qwen2-0_5b-instruct --dataset {rows} {words}"
    return plan_sft(parse(own.split()), load_catalog(), machine)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "a", "response": "b"}\n')
    return path


@pytest.mark.parametrize(
    ("words", "machine", "what", "next"),
    [
        (
            "--use_liger true",
            Machine(),
            "--use_liger true needs a GPU and this machine computes on cpu",
            "leave it out",
        ),
        ("--use_liger true", replace(GPU, packages=frozenset()), "package `liger_kernel`", "pip install liger-kernel"),
        (UNSLOTH, Machine(), "needs a GPU and this machine computes on cpu", "use --tuner_backend peft"),
        (UNSLOTH, replace(GPU, packages=frozenset()), "needs the package `unsloth`", "pip install unsloth"),
        (UNSLOTH, replace(GPU, world_size=2), "works with one process", "NPROC_PER_NODE=1"),
        (f"{UNSLOTH} --dtype fp32", GPU, "computes in bf16 or fp16", "--dtype bf16"),
        (f"{UNSLOTH} --sft_type longlora", GPU, "does not train longlora", "--sft_type lora"),
        (f"{UNSLOTH} --sft_type ia3", Machine(), "does not train ia3", "--sft_type lora"),
        (f"{UNSLOTH} --use_dora true", GPU, "no kernels for DoRA", "--tuner_backend peft"),
    ],
)
def test_refused_in_one_line(words: str, machine: Machine, what: str, next: str, rows: Path) -> None:
    with pytest.raises(SwiftError) as caught:
        plan(words, machine, rows)
    assert what in caught.value.what and next in str(caught.value.next)


@pytest.mark.parametrize(
    "words", ["--use_liger true", UNSLOTH, f"{UNSLOTH} --sft_type full", f"{UNSLOTH} --quantization_bit 4"]
)
def test_planned_where_they_work(words: str, rows: Path) -> None:
    assert plan(words, GPU, rows).model.dtype == "bf16"
