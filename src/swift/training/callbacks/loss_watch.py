"""Looks after the numbers: a loss that is no number, a learning rate of zero, an adapter that gets no gradient."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift.core.errors import CheckFailed
from swift.core.log import log, once


class Watch(TrainerCallback):
    """Stops a run that cannot learn, at its first step, and names what is odd about one that hardly can.

    A run that `may_start_flat` is only warned of a first gradient of 0. There is nothing to see of gradients that are
    `freed` before the optimizer's step.
    """

    def __init__(self, *, may_start_flat: bool = False, freed: bool = False):
        self._may_start_flat, self._freed = may_start_flat, freed

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """At the first step: which trainable parameters got no gradient?"""
        if state.global_step != 0 or model is None or self._freed:
            return
        trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        without = [name for name, p in trainable if p.grad is None]
        if without and len(without) == len(trainable):
            raise CheckFailed(
                "no trainable parameter gets a gradient",
                where=without[0],
                why="nothing on the way from the trained weights to the loss is differentiable",
                next="check --target_modules; with --gradient_checkpointing true try false",
            )
        if not any(p.grad is not None and p.grad.any() for _, p in trainable):
            self._is_flat(trainable[0][0])
        if without:
            log.warning(
                "%d of %d trainable tensors get no gradient, the first is %s", len(without), len(trainable), without[0]
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Does this log line show a run that learns?"""
        logs = logs or {}
        if "grad_norm" in logs and not math.isfinite(logs["grad_norm"]):
            raise NotANumber("grad_norm", logs["grad_norm"], state.global_step)
        if self._freed and state.global_step == 1 and logs.get("grad_norm") == 0.0:
            self._is_flat(None)
        if logs.get("loss") == 0.0:
            once(f"the loss is exactly 0 at step {state.global_step}: nothing is learned from these rows")

    def _is_flat(self, name: str | None) -> None:
        if self._may_start_flat:
            log.warning("the gradient of the first step is 0: its answers teach nothing")
            return
        raise CheckFailed(
            "the gradient of the first step is 0 for every trainable parameter",
            where=name,
            why="the loss of these rows does not depend on the weights: nothing would be learned",
            next="look at the rows (are the two answers of a pair the same?), and at the numbers of the loss",
        )


class NotANumber(CheckFailed):
    """A loss or gradient of a step is infinite or not a number; `rows` are those that it may come from."""

    def __init__(self, name: str, value: float, step: int, rows: Sequence[int] = (), where: Callable[[int], str] = str):
        super().__init__(
            f"{name} is {value} at step {step}",
            where=_some([where(row) for row in rows]) or None,
            why="a weight or an activation left the range of its precision",
            next="lower --learning_rate, use --dtype bf16 or fp32, look at these rows; the last checkpoint is good",
        )
        self.rows, self.step = rows, step


class LossCheck:
    """Whether losses are numbers, and which rows are to blame where one is not; `where` says where a row is from.

    On a CPU a loss is looked at as it comes. On a GPU it is a number only when the GPU is through with it, so it is
    sent here and looked at when the next step but one begins, and before anything is logged or saved.
    """

    def __init__(self, where: Callable[[int], str]):
        self._where = where
        self._coming: deque[tuple[Tensor, torch.cuda.Event, int, Sequence[int]]] = deque()

    def add(self, loss: Tensor, step: int, rows: Sequence[int]) -> None:
        """Look at a scalar of optimizer step `step`, now or later."""
        if loss.device.type != "cuda":
            self._look_at(loss, step, rows)
            return
        copy = torch.empty((), dtype=loss.dtype, pin_memory=True).copy_(loss.detach(), non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._coming.append((copy, event, step, rows))

    def check(self, before: int | None = None) -> None:
        """Look at the losses of the steps up to `before`, or of all. Raises CheckFailed for one that is no number."""
        while self._coming and (before is None or self._coming[0][2] <= before):
            copy, event, step, rows = self._coming.popleft()
            event.synchronize()
            self._look_at(copy, step, rows)

    def _look_at(self, loss: Tensor, step: int, rows: Sequence[int]) -> None:
        if not torch.isfinite(loss):
            raise NotANumber("loss", loss.item(), step, rows, self._where)


def _some(rows: list[str]) -> str:
    shown = ", ".join(rows[:8])
    return f"{shown} …" if len(rows) > 8 else shown
