"""Do adapters stand on the layers that were meant?"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel

from swift.core.errors import SwiftError


def adapted(tuned: nn.Module) -> set[str]:
    """Paths, in the base model, of the layers that carry an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = (name for name, module in tuned.named_modules() if isinstance(module, BaseTunerLayer))
    return {name.removeprefix("base_model.model.") for name in layers}


def check_adapted(tuned: nn.Module, planned: Iterable[str]) -> None:
    """Raise SwiftError unless exactly the `planned` layers (paths in the base model) carry an adapter."""
    wanted, reached = set(planned), adapted(tuned)
    for paths, what in ((wanted - reached, "got none"), (reached - wanted, "got one unasked")):
        if paths:
            raise SwiftError(
                f"adapters stand on other layers than --target_modules means: {min(paths)} {what}",
                where="--target_modules, --target_regex",
                why=f"{len(wanted)} layers were meant and {len(wanted & reached)} of them were reached",
                next="this is a fault of ours or of PEFT: report it with the model's config.json",
            )


def parameters_of_experts(model: PreTrainedModel) -> list[str]:
    """Last two names of the parameters that hold the weights of many experts in one, which no adapter stands on."""
    paths = (name for name, parameter in model.named_parameters() if parameter.dim() == 3 and ".experts." in name)
    return sorted({".".join(path.split(".")[-2:]) for path in paths})
