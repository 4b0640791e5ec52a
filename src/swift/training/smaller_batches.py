"""Where memory is short: what says so, smaller batches with the same rows a step, and what a run goes back to."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift.core.environment_faults import explain
from swift.core.log import log
from swift.data.stream import StreamDataset
from swift.plan.train import TrainPlan
from swift.training.objectives import Objective
from swift.training.trainer import PLACE


def out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the host, had no room for a tensor."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, Exception) and should_reduce_batch_size(error)
    )


@contextmanager
def memory_explained(plan: TrainPlan) -> Iterator[None]:
    """A lack of memory inside becomes one message that says what takes less."""
    try:
        yield
    except RuntimeError as error:
        fault = explain(error) if out_of_memory(error) else None
        if fault is None:
            raise
        fault.next = _advice(plan)
        raise fault from error


def _advice(plan: TrainPlan) -> str:
    rows = plan.batch_size * plan.accumulation
    steps = [f"--batch_size 1 --gradient_accumulation_steps {rows}, the same rows a step"]
    if plan.recompute is False:
        steps.append("--gradient_checkpointing true")
    return "; ".join([*steps[plan.batch_size == 1 :], "a smaller --max_length; --dry_run true says what a run takes"])


def smaller(plan: TrainPlan, *, evaluating: bool = False) -> TrainPlan | None:
    """The plan with the next smaller batches, of an evaluation alone where it was one that did not fit.

    None where no batch can be smaller. What a step and an evaluation compute is the same.
    """
    if evaluating and plan.eval_batch_size > 1:
        size = plan.eval_batch_size // 2
        tokens = plan.pass_tokens and max(1, plan.pass_tokens // 2)
        return replace(plan, eval_batch_size=size, pass_tokens=tokens)
    if plan.batch_size == 1:
        return None
    less = halved(plan)
    return replace(less, eval_batch_size=min(plan.eval_batch_size, less.batch_size))


def halved(plan: TrainPlan) -> TrainPlan:
    """The same rows per optimizer step in micro-batches of half the size (rounded up for odd sizes)."""
    rows = plan.batch_size * plan.accumulation
    size = next(size for size in range(plan.batch_size // 2, 0, -1) if rows % size == 0)
    tokens = plan.pass_tokens and max(1, plan.pass_tokens * size // plan.batch_size)
    given = plan.given_batch_size or plan.batch_size
    return replace(plan, batch_size=size, given_batch_size=given, accumulation=rows // size, pass_tokens=tokens)


def say_smaller(before: TrainPlan, now: TrainPlan, since: str) -> None:
    """Tell the user in one line, with where it goes on."""
    if before.batch_size == now.batch_size:
        fits = f"an evaluation of {before.eval_batch_size} rows at a time"
        takes = f"{now.eval_batch_size} at a time"
    else:
        rows = now.batch_size * now.accumulation * now.data_parallel
        fits = f"batch size {before.batch_size}"
        takes = f"{now.batch_size} x {now.accumulation} accumulation, the same {rows} rows a step"
    log.warning("%s does not fit into memory: going on %s with %s", fits, since, takes)


def free() -> None:
    """Let go of what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Kept(TrainerCallback):
    """What a run goes back to when memory is short: its last whole checkpoint, or its start."""

    def __init__(self, model: nn.Module, objective: Objective, stream: StreamDataset | None, resume: Path | None):
        """Before the first step. `resume` is the checkpoint that the run goes on from."""
        self._model, self._objective, self._stream, self._resume = model, objective, stream, resume
        self._place = None if stream is None else {"account": stream.ledger.account(), **stream.state_dict()}
        self._names = [name for name, weight in model.named_parameters() if weight.requires_grad]
        self._weights = self._now()
        self.checkpoint: Path | None = None
        """The last that was saved with all it takes to go on."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A checkpoint has been written."""
        if not args.save_only_model:
            self._weights = self._now()
            self.checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            if self._stream is not None:
                self._place = json.loads((self.checkpoint / PLACE).read_text(encoding="utf-8"))

    @property
    def since(self) -> str:
        """Where it goes back to, in words."""
        return "from the start" if self.checkpoint is None else f"from {self.checkpoint.name}"

    @torch.no_grad()
    def put_back(self) -> None:
        """The trained weights, the place in a stream and what the objective keeps, as they were then."""
        self._objective.go_on_from(self.checkpoint or self._resume)
        if self._stream is not None and self._place is not None:
            self._stream.go_back(self._place)
        for name, weight in self._trained().items():
            weight.requires_grad_(True).copy_(self._weights[name])
            weight.grad = None

    def _trained(self) -> Mapping[str, nn.Parameter]:
        parameters = dict(self._model.named_parameters())
        return {name: parameters[name] for name in self._names}

    def _now(self) -> dict[str, Tensor]:
        return {name: weight.detach().to("cpu", copy=True) for name, weight in self._trained().items()}
