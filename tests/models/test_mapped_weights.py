"""Weights in the precision of their files are pages of these, which all processes of a machine have in common."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from swift import models, tuners
from swift.plan.model import ModelPlan
from swift.plan.tuner import TunerPlan


def of_file(tensor: torch.Tensor, path: Path) -> bool:
    """Whether the numbers of a tensor lie where the file is mapped."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            start, end = (int(place, 16) for place in line.split()[0].split("-"))
            if start <= tensor.data_ptr() and tensor.data_ptr() + tensor.numel() * tensor.element_size() <= end:
                return True
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped where")
def test_no_process_has_a_copy_of_its_own(tiny_llama_dir: Path) -> None:
    plan = ModelPlan(model_type="tiny", source=str(tiny_llama_dir), hub="local", dtype="fp32")
    model = models.load_model(plan, tiny_llama_dir)
    file = (tiny_llama_dir / "model.safetensors").resolve()
    assert all(of_file(weight, file) for weight in model.parameters())
    adapted = tuners.attach(model, TunerPlan(sft_type="lora", settings={"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}))
    base = [weight for name, weight in adapted.named_parameters() if "lora_" not in name]
    assert base and all(of_file(weight, file) for weight in base)
