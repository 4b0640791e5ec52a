"""In which dtype a CPU answers where nobody says: bf16 where one row is faster in it. Training stays in fp32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from swift.core.machine import Machine
from swift.params.args import Args
from swift.plan.model import ModelPlan, read_config

Speedup = Callable[[int, int], float]
"""(inputs, outputs) of a linear layer -> how many times as fast as in fp32 one row of it is in bf16; 0 without bf16."""
LEAST = 1.2
"""What bf16 has to bring. Near 1 a busy moment would decide, and the same command line would answer in either."""
SMALL = 2**18
"""Weights of a layer below which nothing is to be won: the time goes into calling it."""
USUAL = (1024, 4096)
"""Sizes of a layer where the model's own are not known yet."""


def in_faster_dtype(args: Args, model: ModelPlan, machine: Machine, speedup: Speedup) -> ModelPlan:
    """The model in bf16 where `--dtype` was not given, it would answer in fp32 on a CPU, and bf16 is faster.

    The fp32 that a checkpoint carries is what it was trained in, and no wish for its answers.
    """
    given = args.is_explicit("dtype") and args.values["dtype"] != "AUTO"
    if given or machine.device != "cpu" or model.dtype != "fp32" or model.quant or model.stored_quant:
        return model
    inputs, outputs = _sizes(model)
    if inputs * outputs < SMALL:
        return model
    times = speedup(inputs, outputs)
    if times < LEAST:
        reason = f"bf16 is {times:.1f} times as fast here" if times else "this CPU has no instructions for bf16"
        return replace(model, dtype_reason=reason)
    return replace(model, dtype="bf16", dtype_reason=f"{times:.1f} times as fast as fp32 here; --dtype fp32 is exact")


def _sizes(model: ModelPlan) -> tuple[int, int]:
    """Inputs and outputs of the widest layers, by the configuration of a local folder."""
    if model.hub != "local":
        return USUAL
    config: Mapping[str, Any] = read_config(Path(model.source))
    text = config.get("text_config") if isinstance(config.get("text_config"), Mapping) else config
    assert text is not None
    inputs = text.get("hidden_size") or text.get("n_embd") or text.get("d_model")
    outputs = text.get("intermediate_size") or (4 * inputs if isinstance(inputs, int) else None)
    sizes = (inputs, outputs)
    return sizes if all(isinstance(size, int) and size > 0 for size in sizes) else USUAL  # type: ignore[return-value]
