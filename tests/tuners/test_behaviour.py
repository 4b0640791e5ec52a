"""What every tuning method has to do: train only its own weights, come back from disk as it was, and merge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tuners.conftest import ARCHITECTURES, Plans
from tests.tuners.rows import ON_EVERY_ARCHITECTURE, ROWS, Row
from torch import Tensor, nn

from swift import models, tuners
from swift.core.errors import SwiftError
from swift.params.checkpoint_args import adapter_folder
from swift.plan.model import ModelPlan

IDS = torch.randint(300, (2, 17), generator=torch.Generator().manual_seed(1))


def logits(model: nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def train(model: nn.Module, steps: int = 3, *, first: int = 1) -> None:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(first, first + steps):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        tuners.on_step(model, step)
        optimizer.zero_grad()


CASES = [
    *[pytest.param(row, "llama", id=row.name) for row in ROWS],
    *[
        pytest.param(row, base, id=f"{row.name}-{base}")
        for row in ROWS
        for base in ARCHITECTURES[1:]
        if (row.name in ON_EVERY_ARCHITECTURE and (row.name, base) != ("boft", "gpt2"))
        or (base == "qwen2" and row.name in ("bias", "head", "adalora_bias"))
    ],
]


@pytest.mark.parametrize(("row", "base"), CASES)
def test_train_save_load_merge(
    row: Row, base: str, plans: Plans, tmp_path: Path, small_models: Callable[[str], Path]
) -> None:
    model_plan, plan = plans(small_models(base), *row.flags)
    torch.manual_seed(0)
    tuned = tuners.attach(models.load_model(model_plan), plan, total_steps=10)
    frozen = {name: p.detach().clone() for name, p in tuned.named_parameters() if not p.requires_grad}
    train(tuned)
    trained = logits(tuned)
    untouched = logits(models.load_model(model_plan))
    assert (trained - untouched).abs().max() > 1e-3
    assert all(torch.equal(p, frozen[name]) for name, p in tuned.named_parameters() if name in frozen)
    if not row.changes_base and not row.whole_modules and not row.stays:
        with tuners.without_adapter(tuned):
            torch.testing.assert_close(logits(tuned), untouched)

    folder = tmp_path / "adapter"
    folder.mkdir()
    tuners.save(tuned, folder)
    again = _loaded(model_plan, folder)
    torch.testing.assert_close(logits(again), trained, atol=row.reload_error, rtol=0)
    if not row.merges:
        with pytest.raises(SwiftError, match="cannot be merged"):
            tuners.merge(again)
        return
    merged = tuners.merge(again)
    torch.testing.assert_close(logits(merged), trained, atol=max(3e-4, row.reload_error), rtol=0)

    merged.save_pretrained(tmp_path / "merged")
    reread, _ = plans(tmp_path / "merged")
    torch.testing.assert_close(logits(models.load_model(reread)), logits(merged), atol=1e-6, rtol=0)


def _loaded(model_plan: ModelPlan, folder: Path, *, trainable: bool = False, steps: int | None = None) -> nn.Module:
    """What `swift infer` or a resumed run makes of a saved folder: an adapter on its base, or a whole model."""
    if adapter_folder(folder) is None:
        whole = models.load_model(replace(model_plan, source=str(folder)))
        return whole.train() if trainable else whole
    return tuners.load(models.load_model(model_plan), folder, trainable=trainable, total_steps=steps)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_training_goes_on_from_a_checkpoint(row: Row, small_llama: Path, plans: Plans, tmp_path: Path) -> None:
    model_plan, plan = plans(small_llama, *row.flags)
    torch.manual_seed(0)
    tuned = tuners.attach(models.load_model(model_plan), plan, total_steps=10)
    train(tuned, 2)
    tuners.save(tuned, tmp_path)
    again = _loaded(model_plan, tmp_path, trainable=True, steps=10)
    if row.stays:
        again = tuners.attach(again, plan, resumed=True)  # type: ignore[arg-type]
    before = {name: (p.dtype, p.requires_grad) for name, p in tuned.named_parameters()}
    assert {name: (p.dtype, p.requires_grad) for name, p in again.named_parameters()} == before
    train(tuned, first=3)
    train(again, first=3)
    torch.testing.assert_close(logits(again), logits(tuned), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("base", "flags", "named"), [("gpt2", (), "Conv1D"), ("llama", ("--boft_n_butterfly_factor", "2"), "kernel")]
)
def test_what_peft_lacks_is_refused_in_words(
    base: str, flags: tuple[str, ...], named: str, small_models: Callable[[str], Path], plans: Plans
) -> None:
    model_plan, plan = plans(small_models(base), "--sft_type", "boft", *flags)
    with pytest.raises(SwiftError, match=named):
        tuners.attach(models.load_model(model_plan), plan)


@pytest.mark.parametrize(
    ("base", "reached"),
    [
        ("llama", {"q_proj", "k_proj", "v_proj", "down_proj"}),
        ("gpt2", {"c_attn", "c_proj"}),
        ("phi3", {"qkv_proj", "down_proj"}),
        ("qwen2_moe", {"q_proj", "k_proj", "v_proj", "down_proj"}),
    ],
)
def test_ia3_scales_what_goes_into_the_ends_of_mlps(
    base: str, reached: set[str], small_models: Callable[[str], Path], plans: Plans
) -> None:
    model_plan, plan = plans(small_models(base), "--sft_type", "ia3")
    tuned = tuners.attach(models.load_model(model_plan), plan)
    layers = {name: m for name, m in tuned.named_modules() if hasattr(m, "ia3_l") and hasattr(m, "is_feedforward")}
    assert {name.rpartition(".")[2] for name in layers} == reached
    assert all(layer.is_feedforward == (".mlp." in name) for name, layer in layers.items())


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
