"""One Trainer for every objective: transformers' loop, our loss, our metrics, our checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import gather_object, send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from swift import tuners
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.stream import StreamDataset
from swift.plan.train import TrainPlan
from swift.training import checkpoints
from swift.training.batches import MicroBatch, pinned
from swift.training.callbacks.curve_watch import REGULARIZER
from swift.training.callbacks.loss_watch import LossCheck
from swift.training.callbacks.resumed_schedule import ResumedSchedule
from swift.training.callbacks.resumed_state import ResumedState
from swift.training.callbacks.stop import EvaluationStopped, StopOnSignal
from swift.training.dealt_rows import train_loader
from swift.training.forward_passes import ForwardPasses
from swift.training.objectives import Batch, Objective
from swift.training.optimizer_state import groups_of
from swift.training.optimizers.build import Build
from swift.training.parallel import parallel_of, sequence_group
from swift.training.parallel.gathered import Gathered, Keep, nothing
from swift.training.throughput import Meter, peak_memory
from swift.training.trainer_private import CheckpointTrainer
from swift.training.worker_group import keep_workers_apart

PLACE = "data_state.json"
TERM = "term of the loss "
NOTHING: Batch = {"input_ids": torch.empty((1, 0), dtype=torch.long)}
"""What stands for a micro-batch whose rows are in a pass with others."""
Evaluator = Callable[[nn.Module, int], dict[str, float]]
"""Measures a model, so many rows at a time."""
SaveInto = Callable[[Path, Mapping[str, Tensor] | None], None]
"""Writes into a checkpoint's folder, with the weights where the model does not have them whole."""


class SwiftTrainer(CheckpointTrainer):
    """`transformers.Trainer` that asks an Objective for sums and divides them by what the whole step adds up to.

    The denominator is counted over all micro-batches of an optimizer step and all processes before the first forward
    pass, so loss and gradient do not depend on how the rows of a step are split.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        model: nn.Module,
        args: TrainingArguments,
        objective: Objective,
        collate: Callable[[list[dict[str, Any]]], Batch],
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        save_into: SaveInto,
        callbacks: list[TrainerCallback],
        meter: Meter,
        stop: StopOnSignal,
        plan: TrainPlan,
        build_optimizer: Build | None = None,
        evaluator: Evaluator | None = None,
        where: Callable[[int], str] = str,
        stream: StreamDataset | None = None,
        stream_resumed: Path | None = None,
    ):
        self.objective = objective
        self.stop = stop
        self._meter = meter
        self._tokens = 0
        self._passes_of_step = 1
        self._save_into = save_into
        self._build_optimizer = build_optimizer
        self._evaluator = evaluator
        self._plan = plan
        self.parallel, self.groups = parallel_of(plan), []
        self._sequence = sequence_group(plan, model)
        self._passes = ForwardPasses(plan, collate, self._sequence, args.device)
        self._stream = stream
        self._items = 0
        self._items_before = stream.state_dict()["consumed"] if stream is not None else 0
        self._random_state_from = stream_resumed
        self._checkpoint_bytes = 0
        self._metrics: dict[str, Tensor] = {}
        self._losses = LossCheck(where)
        config: Any = model.config
        own = config.to_dict().get("use_cache")
        self.parallel.before_optimizer(model)
        into_micro_batch: Any = MicroBatch  # transformers expects a dict of tensors and only hands it on
        super().__init__(
            model=model,
            args=args,
            data_collator=into_micro_batch,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
        )
        if not self.parallel.wrapped:
            self.is_distributed_loading_by_transformers = True
        # transformers writes its own value into the configuration, which is saved with the weights.
        if own is not None:
            config.use_cache = own
        else:
            del config.use_cache
        self.remove_callback(PrinterCallback)
        self._schedule = ResumedSchedule()
        self.add_callback(self._schedule)
        self.add_callback(ResumedState())

    def trained_items(self) -> int:
        """Items trained on by all processes, those of an interrupted part before left out. All call it together."""
        mine = torch.tensor([float(self._items), 1.0], dtype=torch.float64)
        return int(self._over_processes({"items": mine})["items"][0]) // self._plan.sequence_parallel

    # The loss.

    def get_train_dataloader(self) -> DataLoader:
        """Rows dealt to the processes, and workers that outlive a signal to the group of the run."""
        if self._stream is not None:
            loader = super().get_train_dataloader()
        else:
            rows: Any = self.train_dataset
            dealt = train_loader(rows, self.args, self.data_collator, self._plan)
            loader = self.accelerator.prepare_data_loader(dealt)
        if self._sequence is not None:
            shard: Any = loader.batch_sampler if self._stream is None else loader.dataset
            shard.num_processes, shard.process_index = self._sequence.rows, self._sequence.row
        keep_workers_apart(loader)
        return loader

    def get_batch_samples(
        self, epoch_iterator: Iterator[MicroBatch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor]:
        """The forward passes of an optimizer step and its denominator, summed over them and over all processes.

        The loop counts in micro-batches, of which there are never fewer: the first may be `NOTHING`.
        """
        self._losses.check(self.state.global_step - 1)
        micro_batches = list(islice(epoch_iterator, num_batches))
        if self._random_state_from is not None:  # opening a stream must not touch the restored random state
            self.restore_random_state(self._random_state_from)
            self._random_state_from = None
        if not micro_batches:
            return [], torch.ones((), device=device)
        # Gradients that do not stay are exchanged in every pass, others in the last of a step, which all need.
        together = not self.parallel.gradients_stay
        batches = self._passes.of(micro_batches, self.train_dataset, together=together, least=1)
        assert self.model is not None
        with self.compute_loss_context_manager():
            self.objective.begin_step(self.model, map(self._on_device, batches))
        total = torch.stack([self.objective.denominator(batch) * bool(batch["items"]) for batch in batches]).sum(0)
        total = total.to(device, non_blocking=True)
        if self.args.world_size > 1:
            dist.all_reduce(total)
        self._passes_of_step = len(batches)
        least = torch.finfo(total.dtype).tiny * self.args.world_size  # by which the number of processes can be divided
        empty = [NOTHING] * (len(micro_batches) - len(batches))
        return [*empty, *map(self._on_device, batches)], total.clamp(min=least)

    def _on_device(self, batch: Batch) -> Batch:
        """The batch where it is computed, sent ahead: a GPU need not be waited for, nor wait itself."""
        device = self.args.device
        moved: Any = send_to_device(pinned(batch) if device.type == "cuda" else batch, device, non_blocking=True)
        return moved

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """The share of a pass in the step's mean, and in what the tuner adds to it.

        DDP averages gradients over processes, hence the factor.
        """
        sums = self.objective.sums(model, inputs)
        counts = bool(inputs["items"])  # else the pass is here for the sake of other processes
        for name, (total, count) in sums.metrics.items() if counts else ():
            self._metrics[name] = _pair(total, count) + self._metrics.get(name, 0)
        self._tokens += inputs["tokens"]
        self._items += inputs["items"]
        loss = (sums.loss * (counts * self.args.world_size / num_items_in_batch)).sum()
        assert self.model is not None
        term = tuners.regularizer(self.model)
        if term is None:
            return loss
        self._metrics[REGULARIZER] = _pair(term, torch.ones_like(term)) + self._metrics.get(REGULARIZER, 0)
        return loss + term / self._passes_of_step

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """A pass forward and backward. Raises CheckFailed, naming the rows, when a loss is not a number."""
        if inputs is NOTHING:
            return torch.zeros((), device=self.args.device)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._losses.add(loss, self.state.global_step + 1, inputs["rows"])
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the window's metrics, memory and speed to a training log line."""
        self._losses.check()
        if "loss" in logs:
            means, tokens = self._window()
            speeds = self._meter.speeds(self.state.global_step, tokens)
            logs = {"loss": logs["loss"], **means, **logs, "memory(GiB)": peak_memory(), **speeds}
        super().log(logs, start_time)

    def _window(self) -> tuple[dict[str, float], int]:
        """Means of the metrics since the last log line and tokens since the start, both over all processes."""
        tokens = torch.tensor([float(self._tokens), 1.0], dtype=torch.float64)
        metrics = {name: pair.cpu() for name, pair in self._metrics.items()}
        sums = self._over_processes({**metrics, "tokens": tokens})
        self._metrics.clear()
        return self.objective.derived(means(sums, but="tokens")), int(sums["tokens"][0])

    def _over_processes(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(sum, count) pairs added up over all processes; one that had no rows brings nothing."""
        if self.args.world_size == 1:
            return dict(sums)
        nothing = torch.zeros(2, dtype=torch.float64)
        pairs = {name: sums.get(name, nothing) for name in sorted(set(gather_object(list(sums))))}
        totals: dict[str, Tensor] = {}
        for name, pair in pairs.items():
            shared = pair.to(self.args.device, copy=True)
            dist.all_reduce(shared)
            totals[name] = shared.cpu()
        return totals

    # Evaluation.

    evaluating = False
    """Whether an evaluation has begun and not come to its end, as where it failed."""

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Loss and metrics over the validation rows, each counted once, and what the evaluator measures.

        When a signal comes the evaluation is left out, and the metric that tells the best checkpoint is NaN: better
        than none.
        """
        start, self.evaluating = time.time(), True
        model: Any = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        try:
            with self._meter.paused():
                measured = self._loss_over(model)
                if self._evaluator is not None:
                    measured.update(self._evaluator(model, self.args.per_device_eval_batch_size))
        except EvaluationStopped:
            log.warning("the evaluation after step %d is left out", self.state.global_step)
            return {f"{metric_key_prefix}_{self.args.metric_for_best_model}": math.nan}
        finally:
            model.train(was_training)
        self.evaluating = False
        seconds = time.time() - start
        rows = len(self.eval_dataset)  # type: ignore[arg-type]
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        metrics[f"{metric_key_prefix}_runtime"] = round(seconds, 4)
        metrics[f"{metric_key_prefix}_samples_per_second"] = round(rows / seconds, 3)
        batches = -(-rows // self.args.per_device_eval_batch_size)
        metrics[f"{metric_key_prefix}_steps_per_second"] = round(batches / seconds, 3)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def _loss_over(self, model: nn.Module) -> dict[str, float]:
        """Loss and metrics of the validation rows. Each process takes every n-th row, so none counts twice."""
        place = self.args.process_index // self._plan.sequence_parallel
        rows = Subset(self.eval_dataset, range(place, len(self.eval_dataset), self._plan.data_parallel))  # type: ignore[arg-type]
        size = self.args.per_device_eval_batch_size
        loader = DataLoader(
            rows,
            size,
            collate_fn=self.data_collator,
            generator=torch.Generator(),  # a loader without one draws from the random state that training depends on
        )
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(2, dtype=torch.float64))
        fewest = len(self.eval_dataset) // self._plan.data_parallel  # type: ignore[arg-type]
        micro_batches = iter(loader)
        number = 0  # of micro-batches begun
        while True:
            group = list(islice(micro_batches, self.args.gradient_accumulation_steps))
            # Shares of weights are of use to nobody alone.
            passes = self._passes.of(group, self.eval_dataset, together=self._plan.shards_weights)
            if not passes:
                break
            # Later, some processes may have no rows left, at which they would meet the others.
            if number * size < fewest:
                self._leave_when_stopped()
            number += len(group)
            for batch in passes:
                self._add(batch, model, sums)
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        self._leave_when_stopped()
        measured = means(self._over_processes(sums))
        terms = [measured.pop(name) for name in list(measured) if name.startswith(TERM)]
        return {"loss": sum(terms), **self.objective.derived(measured)}

    def _add(self, batch: Batch, model: nn.Module, sums: dict[str, Tensor]) -> None:
        """Add the terms of the loss of a pass, each with its denominator, and its metrics to `sums`."""
        denominator = self.objective.denominator(batch)
        result = self.objective.sums(model, self._on_device(batch))
        if not batch["items"]:
            return
        terms = zip(result.loss.detach().cpu().reshape(-1), denominator.cpu().reshape(-1), strict=True)
        for number, term in enumerate(terms):
            sums[f"{TERM}{number}"] += torch.stack(term).double()
        for name, (total, count) in result.metrics.items():
            sums[name] += torch.stack([total, count]).double().cpu()

    def _leave_when_stopped(self) -> None:
        self.stop.obey(self.args, self.control)
        if self.stop.received is not None:
            raise EvaluationStopped

    # Optimizer.

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """transformers' optimizer, or what the run makes of its class (LoRA+, GaLore)."""
        target: Any = self.model if model is None else model
        try:
            if self.optimizer is None and self._build_optimizer is not None:
                kind, settings = self.get_optimizer_cls_and_kwargs(self.args, target)
                decay = self.get_decay_parameter_names(target)
                self.optimizer = self._build_optimizer(target, kind, settings, decay)
            optimizer = super().create_optimizer(model)
        except ImportError as error:
            raise SwiftError(
                f"--optim {self._plan.optim.optim} needs a package that is not installed",
                where="--optim",
                why=str(error).partition("\n")[0],
                next="install it, or use --optim adamw_torch",
            ) from error
        if not self.groups:
            # transformers makes one for what has no weight decay, of which adapters have nothing; engines drop it.
            optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
            self.groups = groups_of(optimizer, target)
            self._schedule.planned(optimizer)
            self.parallel.after_optimizer(target)
        return optimizer

    # Checkpoints.

    def save_checkpoint(self) -> None:
        """Write checkpoint-STEP as one transaction, then remove what is neither best, last, nor within the limit."""
        run = Path(str(self.args.output_dir))
        target = run / f"checkpoint-{self.state.global_step}"
        if self._written == target:
            return
        self._losses.check()
        self.store_flos()
        self.state.best_model_checkpoint = self._best_with(target)
        with self._meter.paused(), ExitStack() as stack:
            scratch = target.with_name(f".tmp-{target.name}")
            if self.args.should_save:
                checkpoints.require_room(target, self._checkpoint_bytes)
                scratch = stack.enter_context(checkpoints.writing(target))
            self.accelerator.wait_for_everyone()
            keep: Keep = Gathered(scratch) if self.args.should_save else nothing
            weights = self.parallel.weights(self._inner_model(), keep)
            if self.args.should_save:
                self.state.save_to_json(str(scratch / checkpoints.TRAINER_STATE))
                self._save_into(scratch, weights)
                self._save_place(scratch)
            if not self.args.save_only_model:
                self.save_training_state(scratch, keep)
            self.accelerator.wait_for_everyone()
        self._written = target
        if self.args.should_save:
            self._checkpoint_bytes = checkpoints.size(target)
            best = self.state.best_model_checkpoint
            checkpoints.rotate(run, self._plan.save_total_limit, {target, *([Path(best)] if best else [])})

    _written: Path | None = None

    def _save_place(self, scratch: Path) -> None:
        """Where a stream of rows stands. Rows by index need none: their order follows from seed and step."""
        if self._stream is not None:
            consumed = self._items_before + self._items * self._plan.data_parallel
            (scratch / PLACE).write_text(json.dumps(self._stream.state_dict(consumed)))

    def _best_with(self, target: Path) -> str | None:
        """The best of the checkpoint noted so far and `target`, by their evaluations; a tie goes to the earlier one."""
        noted = self.state.best_model_checkpoint
        mine = self._metric_at(self.state.global_step)
        if noted is None or not Path(noted).is_dir():
            return str(target) if mine is not None else None
        theirs = self._metric_at(checkpoints.step_of(Path(noted)))
        if mine is None or theirs is None:
            return noted
        better = mine > theirs if self.args.greater_is_better else mine < theirs
        return str(target) if better else noted

    def _metric_at(self, step: int) -> float | None:
        name = f"eval_{self.args.metric_for_best_model}"
        values = [event[name] for event in self.state.log_history if event["step"] == step and name in event]
        return values[-1] if values else None


def means(sums: Mapping[str, Tensor], but: str = "") -> dict[str, float]:
    """The means of (sum, count) pairs; pairs that counted nothing are left out."""
    return {name: (pair[0] / pair[1]).item() for name, pair in sums.items() if name != but and pair[1]}


def _pair(total: Tensor, count: Tensor) -> Tensor:
    """(2) fp64, where they are: asking a GPU for them would wait for it. MPS has no fp64."""
    pair = torch.stack([total, count]).detach()
    return pair.cpu().double() if pair.device.type == "mps" else pair.double()
