"""GaLore, Q-GaLore and LISA: their formulas, what they move, and that a resumed run is the uninterrupted one."""

from __future__ import annotations

import io
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.kit import Rows, losses, tiny_model, tiny_run, weights
from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.cli import main
from swift.core.errors import SwiftError
from swift.params.groups import Galore, Lisa
from swift.training.loop import Run, build, train
from swift.training.objectives.divisors import DIVISORS
from swift.training.objectives.sft import SftObjective
from swift.training.optimizer_state import load
from swift.training.optimizers.galore import GaLore
from swift.training.optimizers.projection import SIDES, Projection

STEPS: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "learning_rate": 1e-2, "optim": "adamw_torch"}
GALORE = {
    "std": Galore(use_galore=True, galore_rank=4, galore_update_proj_gap=3),
    "full": Galore(use_galore=True, galore_rank=4, galore_proj_type="full", galore_target_modules=("q_proj", "mlp")),
    "embedding": Galore(use_galore=True, galore_rank=4, galore_with_embedding=True),
    "at once": Galore(use_galore=True, galore_rank=4, galore_update_proj_gap=3, galore_optim_per_parameter=True),
    "quantized": Galore(
        use_galore=True, galore_rank=4, galore_update_proj_gap=1, galore_quantization=True, galore_proj_quant=True
    ),
}


def expected(weight: Tensor, gradients: list[Tensor], rank: int, gap: int, scale: float, side: str) -> Tensor:
    """AdamW of galore-torch on one matrix, with lr 0.01 and weight decay 0.1, as its source has it."""
    beta1, beta2, eps, lr, decay = 0.9, 0.95, 1e-8, 0.01, 0.1
    tall = weight.shape[0] >= weight.shape[1]
    right = {"std": tall, "reverse_std": not tall, "right": True, "left": False}[side]
    vectors = mean = square = torch.zeros(0)
    for step, gradient in enumerate(gradients):
        if step % gap == 0:
            u, _, v = torch.linalg.svd(gradient, full_matrices=False)
            vectors = v[:rank] if right else u[:, :rank]
        low = gradient @ vectors.T if right else vectors.T @ gradient
        if step == 0:
            mean, square = torch.zeros_like(low), torch.zeros_like(low)
        mean, square = beta1 * mean + (1 - beta1) * low, beta2 * square + (1 - beta2) * low**2
        size = lr * (1 - beta2 ** (step + 1)) ** 0.5 / (1 - beta1 ** (step + 1))
        change = mean / (square.sqrt() + eps)
        weight = weight - size * scale * (change @ vectors if right else vectors @ change)
        weight = weight - lr * decay * weight
    return weight


@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (8, 8)])
@pytest.mark.parametrize("side", SIDES[:-1])
def test_a_matrix_is_stepped_as_galore_does(shape: tuple[int, int], side: str) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(5)]
    matrix = nn.Parameter(start.clone())
    group = {"params": [matrix], "projected": True, "lr": 0.01, "weight_decay": 0.1}
    optimizer = GaLore(
        [group],
        lambda inner: torch.optim.AdamW(inner, betas=(0.9, 0.95)),
        Projection(rank=3, gap=2, scale=0.25, side=side),
    )
    for gradient in gradients:
        matrix.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(matrix, expected(start, gradients, 3, 2, 0.25, side), atol=1e-4, rtol=0)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    optimizer.load_state_dict(torch.load(file, weights_only=True))


@pytest.mark.parametrize("kind", GALORE)
def test_a_resumed_run_of_galore_is_the_whole_one(kind: str, tmp_path: Path) -> None:
    flags = {**STEPS, "galore": GALORE[kind], "accumulation": 1 if kind == "at once" else 2}
    start = weights(tiny_model())
    whole = train(tiny_run(tmp_path / "whole", **flags))
    assert (weights(whole.model) - start).abs().max() > 1e-3
    rest = train(tiny_run(tmp_path / "rest", resume=tmp_path / "whole" / "checkpoint-2", **flags))
    assert torch.equal(weights(rest.model), weights(whole.model))


def test_the_change_of_a_matrix_has_the_rank_of_its_space(tmp_path: Path) -> None:
    before = dict(tiny_model().named_parameters())
    galore = Galore(use_galore=True, galore_rank=3, galore_target_modules=("mlp",))
    after = dict(train(tiny_run(tmp_path / "run", galore=galore, **STEPS)).model.named_parameters())
    for name in before:
        change = after[name] - before[name]
        assert change.abs().max() > 0
        if change.dim() == 2:
            rank = int(torch.linalg.matrix_rank(change, atol=1e-5))
            assert rank <= 3 if ".mlp." in name else rank > 3


def test_gradients_that_are_freed_at_once_step_the_same(tmp_path: Path) -> None:
    flags = {**STEPS, "accumulation": 1, "save_strategy": "no", "max_grad_norm": 0.0}
    together = train(tiny_run(tmp_path / "together", galore=GALORE["std"], **flags))
    apart = train(tiny_run(tmp_path / "apart", galore=GALORE["at once"], **flags))
    torch.testing.assert_close(weights(apart.model), weights(together.model))


def test_a_space_that_stays_is_looked_for_less_often(tmp_path: Path) -> None:
    matrix = nn.Parameter(torch.zeros(6, 4))
    lazy = Projection(rank=2, gap=1, scale=1.0, side="std", lazy=True, queue=2, gamma=2, bits=4, group_size=8)
    optimizer = GaLore([{"params": [matrix], "projected": True, "lr": 0.1, "weight_decay": 0.0}], _sgd, lazy)
    gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    gaps = []
    for _ in range(8):
        matrix.grad = gradient.clone()
        optimizer.step()
        gaps.append(optimizer.state_dict()["spaces"][0]["gap"])
    assert gaps == [1, 1, 2, 2, 4, 4, 4, 4]
    assert optimizer.state_dict()["spaces"][0]["V"].dtype == torch.uint8


def _sgd(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups)


def test_a_galore_run_without_matrices_is_refused(tmp_path: Path) -> None:
    galore = Galore(use_galore=True, galore_target_modules=("c_attn",))
    with pytest.raises(SwiftError, match="no matrix to work on"):
        build(tiny_run(tmp_path / "run", galore=galore, **STEPS)).create_optimizer()


class _Moves:
    """Which layers of a run have moved from checkpoint to checkpoint."""

    def __init__(self, run: Run):
        self.model = run.model
        self.before = self._now()
        self.moved: list[list[int]] = []
        self._save = run.save_into

    def _now(self) -> list[Tensor]:
        return [nn.utils.parameters_to_vector(layer.parameters()).detach().clone() for layer in self.model.model.layers]  # type: ignore[union-attr]

    def save(self, folder: Path, weights: Any) -> None:
        now = self._now()
        self.moved.append([i for i, (a, b) in enumerate(zip(self.before, now, strict=True)) if not torch.equal(a, b)])
        self.before = now
        self._save(folder, weights)


def test_the_layers_that_lisa_draws_are_those_that_move(tmp_path: Path) -> None:
    flags = {**STEPS, "max_steps": 8, "lisa": Lisa(lisa_activated_layers=2, lisa_step_interval=2), "save_steps": 2}
    run = tiny_run(tmp_path / "whole", model=tiny_model(num_hidden_layers=6), **flags)
    moves = _Moves(run)
    whole = train(replace(run, save_into=moves.save))
    assert all(len(moved) == 2 for moved in moves.moved)
    assert len({tuple(moved) for moved in moves.moved}) > 1
    optimizer = torch.load(tmp_path / "whole" / "checkpoint-8" / "optimizer.pt", weights_only=True)
    assert len(optimizer["state"]) == 2 * 9 + 3  # two layers, embeddings, norm and head
    rest = tiny_run(tmp_path / "rest", resume=tmp_path / "whole" / "checkpoint-6", **flags)
    again = train(rest)
    for name, parameter in again.model.named_parameters():
        assert torch.equal(parameter, whole.model.get_parameter(name)), name
    assert losses(again)[-2:] == losses(whole)[-2:]


def test_more_layers_than_the_model_has_are_refused_in_a_dry_run(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "Hi", "response": "Hello"}\n' * 4)
    words = ["--model_id_or_path", str(tiny_llama_dir), "--template_type", "qwen", "--dataset", str(rows)]
    words += ["--sft_type", "full", "--lisa_activated_layers", "3", "--output_dir", str(tmp_path / "run")]
    assert main(["sft", *words, "--dry_run"]) == 2
    assert "--lisa_activated_layers 3 is more than the 2 layers of the model" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["long-ce", "loss-scale"])
def test_a_step_is_divided_as_its_loss_says(name: str, tmp_path: Path) -> None:
    flags = {**STEPS, "learning_rate": 0.0, "accumulation": 1, "weight_decay": 0.0}
    rows = Rows(16, weighted=True) if name == "loss-scale" else Rows(16)
    plain = losses(train(tiny_run(tmp_path / "plain", train=rows, **flags)))
    other = losses(train(tiny_run(tmp_path / "other", train=rows, objective=partial(_divided, name), **flags)))
    length = number = 0.0
    for step, (batch, mean, loss) in enumerate(zip(_batches(rows), plain, other, strict=False)):
        count = sum(label >= 0 for row in batch for label in row["labels"][1:])
        weight = sum(sum(row.get("loss_scale", [1.0] * len(row["labels"]))[1:]) for row in batch)
        weight = weight if name == "loss-scale" else count
        length, number = 0.9 * length + count, 0.9 * number + 1
        divisor = length / number if name == "long-ce" else count
        assert loss == pytest.approx(mean * weight / divisor, rel=1e-4), step


def _divided(name: str, model: PreTrainedModel) -> SftObjective:
    return SftObjective(model, divisor=DIVISORS[name]())


def _batches(rows: Rows) -> list[list[dict[str, Any]]]:
    """The rows of each step, in the order that the Trainer's sampler gives."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(42)).tolist()
    return [[rows[i] for i in order[start : start + 2]] for start in range(0, len(order), 2)]


def test_more_layers_than_there_are_cannot_take_turns(tmp_path: Path) -> None:
    with pytest.raises(SwiftError, match="more than the 2 layers"):
        build(tiny_run(tmp_path / "run", lisa=Lisa(lisa_activated_layers=3), **STEPS))


def test_moments_in_fp32_beside_weights_in_bf16_are_loaded_as_they_were() -> None:
    from transformers.optimization import Adafactor

    def steps(optimizer: Adafactor, weight: nn.Parameter, seeds: range) -> None:
        for seed in seeds:
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)).to(weight)
            optimizer.step()

    whole = nn.Parameter(torch.ones(16, 8, dtype=torch.bfloat16))
    first = Adafactor([whole], lr=0.1, relative_step=False, scale_parameter=False)
    steps(first, whole, range(3))
    resumed = nn.Parameter(whole.detach().clone())
    second = Adafactor([resumed], lr=0.1, relative_step=False, scale_parameter=False)
    load(second, deepcopy(first.state_dict()))
    steps(first, whole, range(3, 9))
    steps(second, resumed, range(3, 9))
    assert torch.equal(whole, resumed)
    assert all(torch.equal(value, second.state[resumed][name]) for name, value in _tensors(first.state[whole]).items())


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
