"""LoRA+ groups."""

from __future__ import annotations

from pathlib import Path

from tests.tuners.conftest import Plans

from swift import models, tuners


def test_b_learns_faster_and_every_parameter_has_one_group(small_qwen2: Path, plans: Plans) -> None:
    flags = ["--target_modules", "ALL", "EMBEDDING", "--modules_to_save", "lm_head", "--lora_bias_trainable", "all"]
    model_plan, plan = plans(small_qwen2, *flags, "--lora_lr_ratio", "16")
    tuned = tuners.attach(models.load_model(model_plan), plan)
    names = {id(p): name for name, p in tuned.named_parameters() if p.requires_grad}
    decay = {name for name in names.values() if "bias" not in name}
    groups = tuners.loraplus_groups(tuned, 1e-4, 16, 0.1, decay)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(names)
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            fast = "lora_B" in name or parameter.ndim == 1
            rate = 1e-6 if "lora_embedding" in name else 1.6e-3 if fast else 1e-4
            assert group["lr"] == rate, name
            assert group["weight_decay"] == (0.0 if "bias" in name else 0.1), name
