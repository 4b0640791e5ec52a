"""The optimizer of a run: transformers' own, over the groups of LoRA+, or inside GaLore's spaces."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import nn
from torch.optim import Optimizer

from swift import tuners
from swift.core.errors import SwiftError
from swift.core.optional_imports import need
from swift.params.groups import Galore
from swift.plan.train import TrainPlan
from swift.plan.tuner import TunerPlan
from swift.training.optimizers.galore import GaLore
from swift.training.optimizers.projection import Projection
from swift.tuners.target_modules import embeddings, linear_layers

Kind = Callable[..., Optimizer]
Build = Callable[[nn.Module, Kind, dict[str, Any], Collection[str]], Optimizer]
"""From the model, an optimizer's class, its settings, and the names of parameters with weight decay."""


def builder(plan: TrainPlan, tuner: TunerPlan) -> Build | None:
    """What makes the run's optimizer; None leaves it to transformers."""
    ratio = tuner.lora_lr_ratio
    if plan.galore is not None:
        return lambda model, kind, settings, decay: _galore(model, kind, settings, decay, plan)
    if ratio is not None:
        rate, weight_decay = plan.learning_rate, plan.optim.weight_decay
        return lambda model, kind, settings, decay: kind(
            tuners.loraplus_groups(model, rate, ratio, weight_decay, decay), **settings
        )
    return None


def _galore(model: nn.Module, kind: Kind, settings: dict[str, Any], decay: Collection[str], plan: TrainPlan) -> GaLore:
    galore = plan.galore
    assert galore is not None
    if galore.galore_quantization:
        kind = need("bitsandbytes", extra="quant", why="--galore_quantization").optim.AdamW8bit
    projected = projected_names(model, galore)
    groups: dict[str, dict[str, Any]] = {
        "projected": {"params": [], "projected": True, "weight_decay": plan.optim.weight_decay},
        "decay": {"params": [], "projected": False, "weight_decay": plan.optim.weight_decay},
        "no decay": {"params": [], "projected": False, "weight_decay": 0.0},
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = "projected" if name in projected else "decay" if name in decay else "no decay"
            groups[group]["params"].append(parameter)
    used = [{**group, "lr": plan.learning_rate} for group in groups.values() if group["params"]]
    own = {name: value for name, value in settings.items() if name != "lr"}
    return GaLore(used, lambda inner: kind(inner, **own), projection(galore), at_once=galore.galore_optim_per_parameter)


def projection(galore: Galore) -> Projection:
    """The flags as the optimizer takes them. The flags of Q-GaLore count where it is asked for."""
    lazy = galore.galore_quantization
    return Projection(
        rank=galore.galore_rank,
        gap=galore.galore_update_proj_gap,
        scale=galore.galore_scale,
        side=galore.galore_proj_type,
        lazy=lazy,
        cos_threshold=galore.galore_cos_threshold,
        gamma=galore.galore_gamma_proj,
        queue=galore.galore_queue_size,
        bits=galore.galore_proj_bits if lazy and galore.galore_proj_quant else None,
        group_size=galore.galore_proj_group_size,
    )


def projected_names(model: nn.Module, galore: Galore) -> set[str]:
    """Names of the trained matrices whose gradients are projected. Raises SwiftError when there are none."""
    base = tuners.base_model(model)
    paths = linear_layers(base)
    if galore.galore_target_modules is not None:
        paths = [path for path in paths if any(target in path for target in galore.galore_target_modules)]
    if galore.galore_with_embedding:
        paths += embeddings(base)
    trained = {name for name, p in model.named_parameters() if p.requires_grad and p.dim() == 2}
    names = {f"{path}.weight" for path in paths} & trained
    if not names:
        raise SwiftError(
            "GaLore has no matrix to work on",
            where="--galore_target_modules",
            why="none of the trained weights belongs to a layer of these names",
            next=f"layers are called {', '.join(sorted({path.rpartition('.')[2] for path in linear_layers(base)}))}",
        )
    return names
