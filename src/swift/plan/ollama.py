"""Handing a model to Ollama: which weights, which prompt, where the Modelfile goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.groups import Checkpoint, Export
from swift.plan.model import ModelPlan, plan_model
from swift.plan.prompt import PromptPlan, plan_prompt


@dataclass(frozen=True, kw_only=True)
class OllamaPlan:
    """One export. The Modelfile points at the weights; nothing is copied."""

    model: ModelPlan
    prompt: PromptPlan
    checkpoint: Path | None
    target: Path

    def summary(self) -> str:
        """One line for people."""
        return f"Modelfile for {self.model.summary()}, template {self.prompt.template_type} -> {self.target}"


def plan_ollama(args: Args, catalog: Catalog, machine: Machine) -> OllamaPlan:
    """The export that `--to_ollama` asks for. Raises SwiftError when the output folder exists."""
    model = plan_model(args, catalog, machine)
    checkpoint = args[Checkpoint].ckpt_dir
    target = Path(args[Export].ollama_output_dir or f"{model.model_type}-ollama").expanduser()
    if target.exists():
        raise SwiftError(
            f"{target} exists", where="--ollama_output_dir", next="remove it, or name a folder that does not exist"
        )
    return OllamaPlan(
        model=model,
        prompt=plan_prompt(args, catalog, model.entry.template if model.entry else None),
        checkpoint=Path(checkpoint).expanduser() if checkpoint else None,
        target=target,
    )
