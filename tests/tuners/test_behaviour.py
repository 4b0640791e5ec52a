"""What every tuning method has to do: train only its own weights, come back from disk as it was, and merge."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tuners.conftest import Plans
from tests.tuners.rows import ROWS, Row
from torch import Tensor, nn

from swift import models, tuners

IDS = torch.randint(300, (2, 17), generator=torch.Generator().manual_seed(1))


def logits(model: nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def train(model: nn.Module, steps: int = 3) -> None:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(1, steps + 1):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        tuners.on_step(model, step)
        optimizer.zero_grad()


CASES = [
    *[pytest.param(row, "small_llama", id=row.name) for row in ROWS],
    *[
        pytest.param(row, "small_qwen2", id=f"{row.name}-untied")
        for row in ROWS
        if row.name in ("lora", "bias", "head")
    ],
]


@pytest.mark.parametrize(("row", "base"), CASES)
def test_train_save_load_merge(
    row: Row, base: str, plans: Plans, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model_plan, plan = plans(request.getfixturevalue(base), *row.flags)
    torch.manual_seed(0)
    tuned = tuners.attach(models.load_model(model_plan), plan, total_steps=10)
    frozen = {name: p.detach().clone() for name, p in tuned.named_parameters() if not p.requires_grad}
    train(tuned)
    trained = logits(tuned)
    untouched = logits(models.load_model(model_plan))
    assert (trained - untouched).abs().max() > 1e-3
    assert all(torch.equal(p, frozen[name]) for name, p in tuned.named_parameters() if name in frozen)
    if not row.changes_base and not row.whole_modules:
        with tuned.disable_adapter():
            torch.testing.assert_close(logits(tuned), untouched)

    (tmp_path / "adapter").mkdir()
    tuners.save(tuned, tmp_path / "adapter")
    again = tuners.load(models.load_model(model_plan), tmp_path / "adapter")
    torch.testing.assert_close(logits(again), trained, atol=row.reload_error, rtol=0)
    merged = tuners.merge(again)
    torch.testing.assert_close(logits(merged), trained, atol=max(3e-4, row.reload_error), rtol=0)

    merged.save_pretrained(tmp_path / "merged")
    reread, _ = plans(tmp_path / "merged")
    torch.testing.assert_close(logits(models.load_model(reread)), logits(merged), atol=1e-6, rtol=0)


@pytest.mark.parametrize("row", [row for row in ROWS if "adalora" not in row.name], ids=lambda row: row.name)
def test_training_goes_on_from_a_checkpoint(row: Row, small_llama: Path, plans: Plans, tmp_path: Path) -> None:
    model_plan, plan = plans(small_llama, *row.flags)
    torch.manual_seed(0)
    tuned = tuners.attach(models.load_model(model_plan), plan)
    train(tuned, 1)
    tuners.save(tuned, tmp_path)
    again = tuners.load(models.load_model(model_plan), tmp_path, trainable=True)
    before = {name: (p.dtype, p.requires_grad) for name, p in tuned.named_parameters()}
    assert {name: (p.dtype, p.requires_grad) for name, p in again.named_parameters()} == before
    train(tuned)
    train(again)
    torch.testing.assert_close(logits(again), logits(tuned), atol=1e-6, rtol=0)


def test_adalora_adds_its_penalty_to_the_loss(small_llama: Path, plans: Plans) -> None:
    model_plan, plan = plans(small_llama, "--sft_type", "adalora", "--lora_dropout", "0")
    tuned = tuners.attach(models.load_model(model_plan), plan, total_steps=10)
    tuned.eval()
    with torch.no_grad():
        with_penalty = tuned(input_ids=IDS, labels=IDS).loss
        alone = tuned.get_base_model()(input_ids=IDS, labels=IDS).loss
        penalty = tuners.regularizer(tuned)
    assert penalty is not None and penalty > 0
    torch.testing.assert_close(with_penalty, alone + penalty)
    plain = tuners.attach(models.load_model(model_plan), plans(small_llama)[1])
    assert tuners.regularizer(plain) is None
