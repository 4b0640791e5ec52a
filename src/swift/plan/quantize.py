"""Quantizing a model for good: by which method, on which rows, where to, how far from the original it may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.form import given_line
from swift.params.groups import Checkpoint, Data, Export, Hub
from swift.plan.data import DataPlan, plan_data
from swift.plan.device_map import require_place
from swift.plan.model import ModelPlan, plan_model
from swift.plan.prompt import PromptPlan, plan_prompt
from swift.plan.quantization import ON_DISK
from swift.plan.reward_model import local_reward_model

Method = Literal["awq", "gptq", "bnb"]
BITS: Mapping[str, tuple[int, ...]] = {"awq": (4,), "gptq": (2, 3, 4, 8), "bnb": (4, 8)}
MAX_PERPLEXITY_RATIO: Mapping[tuple[str, int], float] = {
    ("gptq", 8): 1.05,
    ("gptq", 4): 1.25,
    ("gptq", 3): 2.0,
    ("gptq", 2): 20.0,
    ("awq", 4): 1.25,
    ("bnb", 8): 1.05,
    ("bnb", 4): 2.0,
}
"""Perplexity on the held rows, as a multiple of the original's, above which a result is thrown away.

It finds what went wrong. Models of billions of parameters stay far below; nf4 on one of 135 million gave 1.56.
"""
HELD_RATIO = 0.1
"""Share of the rows that the result is compared on, and that calibration does not see."""
SHIPPED_ROWS = Path(__file__).parents[1] / "data" / "calibration.jsonl"
"""Rows for models of which nobody says what they will read."""


@dataclass(frozen=True, kw_only=True)
class QuantizePlan:
    """One quantization."""

    model: ModelPlan
    prompt: PromptPlan
    data: DataPlan
    """Training rows calibrate, validation rows are held back for the comparison."""
    checkpoint: Path | None
    target: Path
    method: Method
    bits: int
    samples: int
    samples_given: bool
    """Whether the user asked for that many, so that fewer are too few."""
    seqlen: int
    """Tokens that are taken of a row at most."""
    batch_size: int
    device_map: str | None
    max_perplexity_ratio: float
    command: str
    """What was given, for the model card."""

    def summary(self) -> str:
        """One line for people."""
        rows = ", ".join(spec.text for spec in self.data.train)
        data = "" if self.method == "bnb" else f" on {self.samples} rows of {rows}"
        return f"quantize {self.model.summary()} to {self.bits} bit with {self.method}{data} -> {self.target}"


def plan_quantize(args: Args, catalog: Catalog, machine: Machine) -> QuantizePlan:
    """The quantization that `--quant_bits` asks for; with `--merge_lora`, of what will have been merged.

    Raises SwiftError for an adapter that is not merged, weights that are quantized already, a model of more than text,
    and an output folder that exists, unless more steps follow: then the command may be going on where it stopped.
    """
    check_method(args, machine)
    export, given = args[Export], args[Checkpoint].ckpt_dir
    checkpoint = Path(given).expanduser() if given else None
    model = plan_model(args.with_values(quantization_bit=0, quant_method=None), catalog, machine)
    _check_model(model, merged=args[Checkpoint].merge_lora)
    name = checkpoint.resolve() if checkpoint else model.model_type
    require_place(export.quant_device_map, "--quant_device_map", machine)
    target = target_of(args, Path(name))
    goes_on = export.to_gguf is not None or export.to_ollama or args[Hub].push_to_hub
    if target.exists() and not goes_on:
        raise SwiftError(
            f"{target} exists", where="--quant_output_dir", next="remove it, or name a folder that does not exist"
        )
    return QuantizePlan(
        model=model,
        prompt=plan_prompt(args, catalog, model.entry.template if model.entry else None),
        data=_plan_rows(args, catalog),
        checkpoint=checkpoint,
        target=target,
        method=export.quant_method,
        bits=export.quant_bits,
        samples=export.quant_n_samples,
        samples_given=args.is_explicit("quant_n_samples"),
        seqlen=export.quant_seqlen,
        batch_size=export.quant_batch_size,
        device_map=export.quant_device_map,
        max_perplexity_ratio=export.quant_max_perplexity_ratio
        or MAX_PERPLEXITY_RATIO[export.quant_method, export.quant_bits],
        command=given_line(args),
    )


def target_of(args: Args, source: Path) -> Path:
    """The folder of the weights that are made of those in `source`."""
    export = args[Export]
    return Path(export.quant_output_dir or f"{source}-{export.quant_method}-int{export.quant_bits}").expanduser()


def check_method(args: Args, machine: Machine) -> None:
    """Raise SwiftError for bits that the method has not, and a package that is missing; known before any merge."""
    method, bits = args[Export].quant_method, args[Export].quant_bits
    if bits not in BITS[method]:
        able = [name for name, has in BITS.items() if bits in has]
        raise SwiftError(
            f"--quant_method {method} has no {bits} bit",
            where="--quant_bits",
            why=f"it has {', '.join(map(str, BITS[method]))}",
            next=f"--quant_method {' or '.join(able)}",
        )
    modules, get = ON_DISK["bitsandbytes" if method == "bnb" else method]
    missing = [module for module in modules if module not in machine.packages]
    if missing:
        raise SwiftError(
            f"--quant_method {method} needs the package `{missing[0]}`, which is not installed",
            where="--quant_method",
            next=get,
        )


def _check_model(model: ModelPlan, *, merged: bool) -> None:
    if model.adapter is not None and not merged:
        raise SwiftError(
            f"{model.adapter} is an adapter, and weights are quantized whole",
            where="--quant_bits",
            next="add --merge_lora true",
        )
    if model.stored_quant is not None:
        raise SwiftError(
            f"{model.source} is quantized already ({model.stored_quant})",
            where="--quant_bits",
            why="quantizing it again would only lose precision",
            next="give the model in full precision",
        )
    if (model.entry is not None and model.entry.multimodal) or local_reward_model(model):
        kind = "a reward model" if local_reward_model(model) else "a multimodal model"
        raise SwiftError(
            f"{model.source} is {kind}, which --quant_bits cannot quantize",
            where="--quant_bits",
            why="only the answers of a model of text are compared",
            next="give a model of text that writes answers",
        )
    if model.model_kwargs or model.rope_scaling:
        raise SwiftError(
            "--quant_bits takes the model as its folder says",
            where="--rope_scaling" if model.rope_scaling else "--model_kwargs",
            next="leave it out here, and give it where the model is loaded",
        )


def _plan_rows(args: Args, catalog: Catalog) -> DataPlan:
    """The rows of `--dataset`, else those we ship; a part is held back unless `--val_dataset` names others."""
    if not args[Data].dataset:
        args = args.with_values(dataset=(str(SHIPPED_ROWS),))
    data = plan_data(args, catalog)
    ratio = 0.0 if data.val else HELD_RATIO
    return replace(data, kind="chat", mode="eager", packing=False, max_length=None, test_ratio=ratio)
