"""Full tuning: which of the model's own parameters are trained."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from transformers import PreTrainedModel

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError
from swift.plan.tuner import TunerPlan


def freeze(model: PreTrainedModel, plan: TunerPlan) -> None:
    """Set `requires_grad`: first the share from the bottom, then the prefixes, then what is trained all the same.

    The share counts parameters in the order of `model.parameters()`; a tensor that only partly fits stays trainable.
    """
    parameters = list(model.named_parameters())
    ends = list(accumulate(parameter.numel() for _, parameter in parameters))
    frozen = bisect_right(ends, int(ends[-1] * plan.freeze_parameters_ratio))
    for i, (_, parameter) in enumerate(parameters):
        parameter.requires_grad_(i >= frozen)
    if plan.freeze_vit:
        assert plan.parts is not None
        for name, parameter in parameters:
            if plan.parts.part_of(name) == "tower":
                parameter.requires_grad_(False)
    for prefix in plan.freeze_parameters:
        _switch(model, prefix, "--freeze_parameters", trainable=False)
    for prefix in plan.additional_trainable_parameters:
        _switch(model, prefix, "--additional_trainable_parameters", trainable=True)


def _switch(model: PreTrainedModel, prefix: str, flag: str, *, trainable: bool) -> None:
    matched = [parameter for name, parameter in model.named_parameters() if name.startswith(prefix)]
    for parameter in matched:
        parameter.requires_grad_(trainable)
    if not matched:
        known = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
        known |= {part for name in known for part in _prefixes(name)}
        raise SwiftError(
            f"no parameter starts with {prefix!r}",
            where=flag,
            next=suggestion(prefix, known) or f"names start like {', '.join(sorted(known)[:4])}",
        )


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
