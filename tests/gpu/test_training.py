"""Training on a GPU computes what it computes on a CPU, and never waits for the GPU inside of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from swift.core.errors import CheckFailed
from swift.training.flash_varlen import has_kernel
from swift.training.loop import Run, build, train
from swift.training.varlen_attention import sequence_attention
from training.kit import FULL, LORA, Rows, losses, tiny_model, tiny_run

LENGTHS = (40, 1, 130, 17)
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped keys": {"kv_heads": 2},
    "a window": {"sliding_window": 16},
    "prefixes": {"prefix_lengths": (0, 30, 0, 100), "kv_heads": 2},
    "prefixes and a window": {"prefix_lengths": (0, 30, 0, 100), "sliding_window": 16},
}


def attended(device: str, dtype: torch.dtype, kv_heads: int = 4, **settings: Any) -> list[Tensor]:
    """The answer of attention, and the gradients of its inputs, as fp32 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    heads = (4, kv_heads, kv_heads)
    states = [torch.randn(1, count, sum(LENGTHS), 32, generator=generator).bfloat16() for count in heads]
    states = [state.to(device, dtype).requires_grad_() for state in states]
    if device == "cuda":
        assert has_kernel(*states, dropout=0.0)
    answer, _ = sequence_attention(torch.nn.Identity(), *states, None, sequence_lengths=LENGTHS, **settings)
    answer.backward(torch.randn(answer.shape, generator=generator).to(answer))
    return [each.detach().float().cpu() for each in (answer, *(state.grad for state in states)) if each is not None]


@pytest.mark.parametrize("case", CASES)
def test_one_kernel_for_all_sequences_gives_what_each_alone_gives(case: str) -> None:
    expected = attended("cpu", torch.float32, **CASES[case])
    for mine, theirs in zip(attended("cuda", torch.bfloat16, **CASES[case]), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-4), ("bf16", 2e-2)])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("tuner", [LORA, FULL], ids=["lora", "full"])
def test_losses_are_those_of_a_cpu(tuner: Any, flat: bool, dtype: str, tolerance: float, tmp_path: Path) -> None:
    options: dict[str, Any] = {"tuner": tuner, "flat": flat, "train": Rows(32, weighted=True), "optim": "adamw_torch"}
    options["learning_rate"] = 1e-3
    cpu = losses(train(tiny_run(tmp_path / "cpu", **options)))
    gpu = losses(train(on_gpu(tmp_path / "gpu", dtype=dtype, **options)))
    assert gpu == pytest.approx(cpu, rel=tolerance)


def on_gpu(folder: Path, **options: Any) -> Run:
    torch.backends.cuda.matmul.allow_tf32 = False
    return tiny_run(folder, model=tiny_model(head_dim=32).cuda(), device="cuda", pin_memory=True, **options)


def test_adamw_is_one_kernel(tmp_path: Path) -> None:
    trainer = build(on_gpu(tmp_path / "run", optim="adamw_torch"))
    assert trainer.create_optimizer().defaults["fused"] is True


class NoWaiting(TrainerCallback):
    """Makes an error of every wait for the GPU in steps 3 to 6."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        torch.cuda.set_sync_debug_mode("error" if 2 <= state.global_step < 6 else "default")


@pytest.mark.parametrize("accuracy", ["token", "sentence"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_no_step_waits_for_the_gpu(dtype: str, accuracy: Any, tmp_path: Path) -> None:
    run = on_gpu(tmp_path / "run", dtype=dtype, optim="adamw_torch", max_steps=8, logging_steps=100)
    run.objective.accuracy = accuracy  # type: ignore[attr-defined]
    trainer = build(run)
    trainer.add_callback(NoWaiting())
    try:
        trainer.train()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.state.global_step == 8


def test_a_loss_that_is_no_number_ends_the_run_and_names_its_rows(tmp_path: Path) -> None:
    run = on_gpu(tmp_path / "run", max_steps=6, learning_rate=1e30, save_strategy="steps", save_steps=1)
    with pytest.raises(CheckFailed, match="loss is") as failed:
        train(run)
    assert failed.value.where
