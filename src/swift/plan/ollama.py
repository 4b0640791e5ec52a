"""Handing a model to Ollama: which weights, which prompt, how answers are sampled, where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.form import given_line
from swift.params.groups import Checkpoint, Export, Generate, Hub, Vllm
from swift.plan.gguf import CONVERTED, GgufType
from swift.plan.model import ModelPlan, plan_model, read_config
from swift.plan.prompt import PromptPlan, plan_prompt


@dataclass(frozen=True, kw_only=True)
class OllamaPlan:
    """One export: a Modelfile, and beside it the weights as a GGUF file."""

    model: ModelPlan
    prompt: PromptPlan
    checkpoint: Path | None
    target: Path
    type: GgufType
    generate: Generate
    context: int | None
    """`--max_model_len`; None leaves it to the model."""
    min_agreement: float | None
    """As of a GGUF file alone."""
    command: str
    """What was given, for the model card."""

    def summary(self) -> str:
        """One line for people."""
        return f"for Ollama, {self.model.summary()}, template {self.prompt.template_type} -> {self.target}"


def plan_ollama(args: Args, catalog: Catalog, machine: Machine) -> OllamaPlan:
    """The export that `--to_ollama` asks for.

    Raises SwiftError when the output folder exists, unless a push follows: then the command may be going on.
    """
    model = plan_model(args, catalog, machine)
    export, checkpoint = args[Export], args[Checkpoint].ckpt_dir
    if export.gguf_output_dir is not None:
        raise SwiftError(
            "with --to_ollama the GGUF file lies beside the Modelfile",
            where="--gguf_output_dir",
            next="leave it out, or export once with --to_gguf alone",
        )
    target = Path(export.ollama_output_dir or f"{model.model_type}-ollama").expanduser()
    if target.exists() and not args[Hub].push_to_hub:
        raise SwiftError(
            f"{target} exists", where="--ollama_output_dir", next="remove it, or name a folder that does not exist"
        )
    return OllamaPlan(
        model=model,
        prompt=plan_prompt(args, catalog, model.entry.template if model.entry else None),
        checkpoint=Path(checkpoint).expanduser() if checkpoint else None,
        target=target,
        type=export.to_gguf or "f16",
        generate=args[Generate],
        context=args[Vllm].max_model_len,
        min_agreement=export.gguf_min_agreement,
        command=given_line(args),
    )


def converts(folder: Path) -> bool:
    """Whether the model in a folder becomes a GGUF file here; of others Ollama gets the folder itself."""
    return (read_config(folder).get("architectures") or [""])[0] in CONVERTED
