"""A GGUF file: of which model, in which type, where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.groups import Checkpoint, Export, Hub
from swift.plan.model import ModelPlan, plan_model
from swift.plan.prompt import PromptPlan, plan_prompt
from swift.plan.reward_model import local_reward_model

GgufType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
FILE = "model.gguf"
REPORT = "gguf_report.json"
CONVERTED = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "GemmaForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Phi3ForCausalLM",
)
"""Architectures that convert, as config.json names them; models/gguf/architectures.py says how. SmolLM is Llama."""
ORIGIN = "gguf_origin.json"
"""Names the file that a folder of the cache was made from, as which llama.cpp can run it."""
OF_BITS: Mapping[int, GgufType] = {4: "q4_0", 8: "q8_0"}
"""Types of the file that llama.cpp answers from, by --quantization_bit."""
OF_DTYPE: Mapping[str, GgufType] = {"AUTO": "f16", "fp16": "f16", "bf16": "bf16", "fp32": "f32"}


@dataclass(frozen=True, kw_only=True)
class GgufPlan:
    """One conversion. An adapter is merged before it."""

    model: ModelPlan
    prompt: PromptPlan
    checkpoint: Path | None
    type: GgufType
    target: Path
    """The folder of the file and its report."""
    min_agreement: float | None
    """Share of greedy tokens that must be the original's; None: what the type is known to reach."""
    command: str
    """What was given, for the model card."""

    def summary(self) -> str:
        """One line for people."""
        return f"convert {self.model.summary()} to GGUF {self.type} -> {self.target / FILE}"


def plan_gguf(args: Args, catalog: Catalog, machine: Machine) -> GgufPlan:
    """The conversion that `--to_gguf` asks for.

    Raises SwiftError when the output folder exists, unless a push follows: then the command may be going on.
    """
    from swift.params.form import given_line  # answers are planned without it

    export = args[Export]
    assert export.to_gguf is not None
    model = plan_model(args, catalog, machine)
    given = args[Checkpoint].ckpt_dir
    checkpoint = Path(given).expanduser() if given else None
    if local_reward_model(model):
        raise SwiftError(
            f"{model.source} is a reward model: llama.cpp has no place for its value head",
            where="--to_gguf",
            next="give a model that writes answers",
        )
    target = target_of(args, checkpoint.resolve() if checkpoint else Path(model.model_type))
    if target.exists() and not args[Hub].push_to_hub:
        raise SwiftError(
            f"{target} exists", where="--gguf_output_dir", next="remove it, or name a folder that does not exist"
        )
    return GgufPlan(
        model=model,
        prompt=plan_prompt(args, catalog, model.entry.template if model.entry else None),
        checkpoint=checkpoint,
        type=export.to_gguf,
        target=target,
        min_agreement=export.gguf_min_agreement,
        command=given_line(args),
    )


def target_of(args: Args, source: Path) -> Path:
    """The folder of the file that is made of the model in `source`."""
    export = args[Export]
    return Path(export.gguf_output_dir or f"{source}-gguf-{export.to_gguf}").expanduser()


def answering_type(args: Args, model: ModelPlan) -> GgufType | None:
    """The type of file that `--infer_backend llamacpp` answers from; None where the model came as a GGUF file.

    Raises SwiftError for bits that it has not.
    """
    if model.hub == "local" and model.adapter is None and (Path(model.source) / ORIGIN).is_file():
        return None
    of_training = args.origins["quantization_bit"] == "checkpoint"
    bits = 0 if of_training else args.values["quantization_bit"]
    if not bits:
        return OF_DTYPE[args.values["dtype"] if args.is_explicit("dtype") else "AUTO"]
    if bits not in OF_BITS:
        raise SwiftError(
            f"llama.cpp has no {bits} bits here",
            where="--quantization_bit",
            next=f"use {' or '.join(map(str, OF_BITS))}, or leave it out for 16 bits",
        )
    if args.values["quant_method"] is not None and args.is_explicit("quant_method"):
        raise SwiftError("llama.cpp quantizes in its own way", where="--quant_method", next="leave --quant_method out")
    return OF_BITS[bits]
