"""Handing a model to Ollama: which weights, which prompt, how answers are sampled, where it goes."""

from __future__ import annotations

import re
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

    @property
    def name(self) -> str:
        """What to call it in Ollama. That of a checkpoint names run and step: each is a model of its own."""
        if self.checkpoint is None:
            return self.model.model_type
        folder = self.checkpoint.resolve()
        name = f"{folder.parent.name}-{folder.name}" if folder.name.startswith("checkpoint-") else folder.name
        return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or self.model.model_type

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
    given = Path(checkpoint).expanduser() if checkpoint else None
    target = target_of(args, given.resolve() if given else Path(model.model_type))
    if target.exists() and not args[Hub].push_to_hub:
        raise SwiftError(
            f"{target} exists", where="--ollama_output_dir", next="remove it, or name a folder that does not exist"
        )
    return OllamaPlan(
        model=model,
        prompt=plan_prompt(args, catalog, model.entry.template if model.entry else None),
        checkpoint=given,
        target=target,
        type=export.to_gguf or "f16",
        generate=args[Generate],
        context=args[Vllm].max_model_len,
        min_agreement=export.gguf_min_agreement,
        command=given_line(args),
    )


def target_of(args: Args, source: Path) -> Path:
    """The folder for Ollama that is made of the model in `source`."""
    return Path(args[Export].ollama_output_dir or f"{source}-ollama").expanduser()


def converts(folder: Path) -> bool:
    """Whether the model in a folder becomes a GGUF file here; of others Ollama gets the folder itself."""
    return (read_config(folder).get("architectures") or [""])[0] in CONVERTED
