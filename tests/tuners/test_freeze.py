"""Full tuning with a part of the model frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tuners.conftest import Plans

from swift import models, tuners
from swift.core.errors import SwiftError


def trained(folder: Path, plans: Plans, *flags: str) -> list[str]:
    model_plan, plan = plans(folder, "--sft_type", "full", *flags)
    tuned = tuners.attach(models.load_model(model_plan), plan)
    return [name for name, p in tuned.named_parameters() if p.requires_grad]


def test_everything_is_trained_by_default(small_llama: Path, plans: Plans) -> None:
    names = trained(small_llama, plans)
    assert len(names) == len(list(models.load_model(plans(small_llama)[0]).named_parameters()))


def test_the_share_counts_parameters_from_the_bottom(small_llama: Path, plans: Plans) -> None:
    parameters = list(models.load_model(plans(small_llama)[0]).named_parameters())
    total = sum(p.numel() for _, p in parameters)
    names = trained(small_llama, plans, "--freeze_parameters_ratio", "0.5")
    frozen = [(n, p.numel()) for n, p in parameters if n not in names]
    assert [n for n, _ in frozen] == [n for n, _ in parameters[: len(frozen)]]
    count = sum(size for _, size in frozen)
    assert count <= total / 2 < count + parameters[len(frozen)][1].numel()


def test_prefixes_freeze_and_thaw(small_llama: Path, plans: Plans) -> None:
    names = trained(
        small_llama,
        plans,
        "--freeze_parameters_ratio=1",
        "--additional_trainable_parameters",
        "model.layers.1.mlp",
        "model.norm",
    )
    assert {name.rpartition(".")[0].removesuffix("_proj") for name in names} == {
        "model.layers.1.mlp.gate",
        "model.layers.1.mlp.up",
        "model.layers.1.mlp.down",
        "model.norm",
    }
    assert "model.embed_tokens.weight" not in trained(small_llama, plans, "--freeze_parameters", "model.embed")


def test_nothing_to_train_is_an_error(small_llama: Path, plans: Plans) -> None:
    with pytest.raises(SwiftError, match="nothing would be trained"):
        trained(small_llama, plans, "--freeze_parameters_ratio", "1")


@pytest.mark.parametrize("flag", ["--freeze_parameters", "--additional_trainable_parameters"])
def test_a_prefix_that_matches_nothing_is_an_error(flag: str, small_llama: Path, plans: Plans) -> None:
    with pytest.raises(SwiftError, match=r"model\.layer\.1") as error:
        trained(small_llama, plans, flag, "model.layer.1")
    assert error.value.where == flag and "model.layers.1" in str(error.value.next)
