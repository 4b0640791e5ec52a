"""A GGUF file: of which model, in which type, where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.groups import Checkpoint, Export
from swift.plan.model import ModelPlan, plan_model
from swift.plan.prompt import PromptPlan, plan_prompt
from swift.plan.reward_model import local_reward_model

GgufType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
FILE = "model.gguf"


@dataclass(frozen=True, kw_only=True)
class GgufPlan:
    """One conversion. An adapter is merged before it."""

    model: ModelPlan
    prompt: PromptPlan
    checkpoint: Path | None
    type: GgufType
    target: Path
    """The folder of the file and its report."""

    def summary(self) -> str:
        """One line for people."""
        return f"convert {self.model.summary()} to GGUF {self.type} -> {self.target / FILE}"


def plan_gguf(args: Args, catalog: Catalog, machine: Machine) -> GgufPlan:
    """The conversion that `--to_gguf` asks for. Raises SwiftError when the output folder exists."""
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
    name = f"{checkpoint.resolve() if checkpoint else model.model_type}-gguf-{export.to_gguf}"
    target = Path(export.gguf_output_dir or name).expanduser()
    if target.exists():
        raise SwiftError(
            f"{target} exists", where="--gguf_output_dir", next="remove it, or name a folder that does not exist"
        )
    return GgufPlan(
        model=model,
        prompt=plan_prompt(args, catalog, model.entry.template if model.entry else None),
        checkpoint=checkpoint,
        type=export.to_gguf,
        target=target,
    )
