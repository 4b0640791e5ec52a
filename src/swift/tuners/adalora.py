"""AdaLoRA (arXiv 2303.10512): PEFT allocates the ranks; its penalty, its schedule and what it must not forget are here.

Ranks go to where the importance of singular triplets, smoothed over the steps, is highest. A checkpoint's adapter has
lost the triplets that are masked when it is written, as PEFT has it. Training may still bring them back, so everything
that the allocation goes by is written beside the adapter, and a resumed run is the uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.adalora import AdaLoraModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from swift.core.errors import SwiftError
from swift.core.safetensors_header import read_header

FILE = "adalora_state.safetensors"
"""All triplets under their names in the adapter, and two averages for each parameter below the names here."""
AVERAGES = ("exp_avg_ipt", "exp_avg_unc")


def tuner_of(model: nn.Module) -> AdaLoraModel | None:
    """The AdaLoRA tuner inside `model`, if that is what it is tuned with."""
    if isinstance(model, peft.PeftModel) and isinstance(model.base_model, AdaLoraModel):
        return model.base_model
    return None


def penalty(tuner: AdaLoraModel) -> Tensor:
    """The term of the loss, a scalar: weight x mean Frobenius norm of P Pᵀ - I and QᵀQ - I (equation 4)."""
    norms = []
    for name, parameter in tuner.model.named_parameters():
        if ("lora_A" in name or "lora_B" in name) and tuner.trainable_adapter_name in name:
            gram = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
            identity = torch.eye(gram.shape[0], device=gram.device, dtype=gram.dtype)
            norms.append(torch.linalg.matrix_norm(gram - identity))
    return _config(tuner).orth_reg_weight * torch.stack(norms).mean()


def check_schedule(settings: Mapping[str, Any], total_steps: int) -> None:
    """Raise SwiftError for settings under which no rank would ever be taken away, or PEFT would stop on the way."""
    if settings["tinit"] + settings["tfinal"] >= total_steps:
        raise SwiftError(
            f"AdaLoRA's first {settings['tinit']} and last {settings['tfinal']} steps fill all {total_steps} steps",
            where="--adalora_tinit, --adalora_tfinal",
            why="ranks are allocated in the steps between them",
            next="make them smaller or train longer",
        )
    if settings["init_r"] <= settings["target_r"]:
        raise SwiftError(
            f"--adalora_init_r {settings['init_r']} is not above --adalora_target_r {settings['target_r']}",
            where="--adalora_init_r",
            why="ranks are only taken away",
            next="for a rank that stays as it is use --sft_type lora",
        )
    for name in ("beta1", "beta2"):
        if not 0 < settings[name] < 1:
            raise SwiftError(
                f"--adalora_{name} {settings[name]:g} is not between 0 and 1",
                where=f"--adalora_{name}",
                why="it is the share that an average keeps of its past",
            )


def write(model: nn.Module, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the state of the allocation, if `model` has one; `tensors` is its state dict."""
    tuner = tuner_of(model)
    if tuner is None:
        return
    end = f".{tuner.trainable_adapter_name}"
    kept = {
        name.removesuffix(end): tensor.contiguous()
        for name, tensor in tensors.items()
        if name.endswith(end) and name.removesuffix(end).endswith((".lora_A", ".lora_B", ".lora_E"))
    }
    allocator = tuner.rankallocator
    for average, of_parameters in zip(AVERAGES, (allocator.exp_avg_ipt, allocator.exp_avg_unc), strict=True):
        kept |= {f"{average}.{name}": tensor.contiguous() for name, tensor in of_parameters.items()}
    save_file(kept, folder / FILE, {"format": "pt"})


@dataclass(frozen=True)
class State:
    """What `write` left in a checkpoint."""

    tensors: Mapping[str, Tensor]
    rank_pattern: Mapping[str, list[bool]] | None

    @property
    def triplets(self) -> dict[str, Tensor]:
        """All of them, also those that were masked and taken out of the adapter's file."""
        return {name: tensor for name, tensor in self.tensors.items() if not name.startswith(AVERAGES)}

    def restore(self, model: nn.Module) -> None:
        """Put the ranks and the averages back, so that the next step goes on from them."""
        tuner = tuner_of(model)
        assert tuner is not None
        _config(tuner).rank_pattern = None if self.rank_pattern is None else dict(self.rank_pattern)
        allocator = tuner.rankallocator
        for name, parameter in tuner.model.named_parameters():
            if f"{AVERAGES[0]}.{name}" in self.tensors:
                allocator.ipt[name] = torch.zeros_like(parameter)
                allocator.exp_avg_ipt[name] = self.tensors[f"{AVERAGES[0]}.{name}"].to(parameter)
                allocator.exp_avg_unc[name] = self.tensors[f"{AVERAGES[1]}.{name}"].to(parameter)


def go_on(config: peft.PeftConfig, folder: Path, total_steps: int | None) -> State | None:
    """Let an adapter's configuration be that of a run of `total_steps`, with all triplets where their state is known.

    -> what an earlier `write` left in `folder`; None for another method, or where it left nothing. Raises SwiftError
    when the schedule does not fit in.
    """
    if not isinstance(config, peft.AdaLoraConfig):
        return None
    if total_steps is not None:
        check_schedule(config.to_dict(), total_steps)
        config.total_step = total_steps
    path = folder / FILE
    if not path.is_file():
        return None
    read_header(path)
    state = State(load_file(path), config.rank_pattern)
    config.rank_pattern = None
    return state


def _config(tuner: AdaLoraModel) -> peft.AdaLoraConfig:
    config = tuner.peft_config[tuner.trainable_adapter_name]
    assert isinstance(config, peft.AdaLoraConfig)
    return config
