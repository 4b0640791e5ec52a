"""Puts a run together from its plan and runs it to its end, wherever that is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift import tuners
from swift.core.errors import CheckFailed, Interrupted
from swift.core.log import log
from swift.data.stream import StreamDataset
from swift.hub.checkpoint_uploader import Pusher
from swift.plan.reward_model import how_to_try
from swift.plan.train import TrainPlan
from swift.plan.tuner import TunerPlan
from swift.training.artifacts import length_info, write_training_args
from swift.training.batches import Endless
from swift.training.callbacks.curve_watch import WatchedCurves
from swift.training.callbacks.lisa import LayersTakeTurns, layers_in_turn
from swift.training.callbacks.loss_watch import NotANumber, Watch
from swift.training.callbacks.progress import Progress
from swift.training.callbacks.stop import StopOnSignal, on_signal_exit_code
from swift.training.callbacks.tower_activations import TowerActivations
from swift.training.callbacks.weight_watch import WatchedWeights
from swift.training.checkpoints import require_room_for_one, step_of
from swift.training.curves import TensorBoard, draw
from swift.training.lost_processes import explain
from swift.training.neftune import Neftune
from swift.training.objectives import Batch, Objective
from swift.training.optimizers.build import builder
from swift.training.rows_to_blame import blame
from swift.training.run_dir import LOG, append, forget_after
from swift.training.smaller_batches import Kept, free, out_of_memory, say_smaller, smaller
from swift.training.throughput import Meter, peak_memory
from swift.training.trainer import PLACE, Evaluator, SaveInto, SwiftTrainer
from swift.training.training_arguments import training_arguments
from swift.training.why_not_learning import Notebook

ADAMW = ("adamw_torch", "adamw_torch_fused")
"""Optimizers that are known to keep two numbers of a weight's own type for each weight."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a run consists of."""

    plan: TrainPlan
    tuner: TunerPlan
    folder: Path
    model: nn.Module
    objective: Objective
    collate: Callable[[list[dict[str, Any]]], Batch]
    train: Any
    """A map-style dataset (length, items by index) or a `StreamDataset`."""
    val: Any | None
    steps: int | None = None
    """Optimizer steps; None counts them by the rows."""
    save_into: SaveInto
    """Writes what a checkpoint holds beside the Trainer's state into its folder."""
    resume: Path | None = None
    evaluator: Evaluator | None = None
    pusher: Pusher | None = None
    """Uploads checkpoints while training goes on, in the first process."""
    saved: Callable[[], object] = lambda: None
    """Called when a checkpoint is whole."""
    info: str
    """`model_info` of the model when all of it was here."""
    lengths: Sequence[int] | None = None
    """Tokens of each training row, where they are known."""
    val_lengths: Sequence[int] | None = None
    where: Callable[[int], str] = str
    """`file:line` of a training row, for messages."""
    command_line: str = "swift"
    """The one that it was started with, or that does the same as the call from Python."""
    last_step: int | None = None
    """The step after which the run is left, as if it went on; None goes to the end."""


def train(run: Run) -> SwiftTrainer:
    """Train to the end and write the curves. Raises Interrupted, after saving, when a signal ended the run.

    With `auto_find_batch_size`, a batch that does not fit is halved and the accumulation doubled, as often as needed,
    and the run goes on from its last checkpoint.
    """
    require_room(run)
    kept: Kept | None = None
    if run.plan.group.auto_find_batch_size and run.plan.world_size > 1:
        log.warning("--auto_find_batch_size works with one process: of several, one that lacks memory ends the run")
    while True:
        trainer = build(run, again=kept is not None)
        if run.plan.group.auto_find_batch_size and run.plan.world_size == 1:
            stream = run.train if isinstance(run.train, StreamDataset) else None
            kept = kept or Kept(run.model, run.objective, stream, run.resume)
            trainer.add_callback(kept)
        try:
            _loop(trainer, run)
            return trainer
        except RuntimeError as error:
            less = smaller(run.plan, evaluating=trainer.evaluating) if kept and out_of_memory(error) else None
            if kept is None or less is None:
                raise
        del trainer
        say_smaller(run.plan, less, kept.since)
        kept.put_back()
        free()
        run = replace(run, plan=less)
        if kept.checkpoint is not None:
            run = replace(run, plan=_as_its_own(less), resume=kept.checkpoint)


def _as_its_own(plan: TrainPlan) -> TrainPlan:
    """Of a run that goes on from a checkpoint of its own, whatever it took from another."""
    return replace(plan, group=plan.group.replace(resume_only_model=False, ignore_data_skip=False))


def require_room(run: Run) -> None:
    """What is trained is written whole, and AdamW keeps two numbers for each of it."""
    plan = run.plan
    if plan.group.save_strategy == "no":
        return
    twice = plan.optim.optim in ADAMW and plan.galore is None and not plan.group.save_only_model
    trained = sum(weight.numel() * weight.element_size() for weight in run.model.parameters() if weight.requires_grad)
    require_room_for_one(run.folder, trained * (3 if twice else 1))


def build(run: Run, *, again: bool = False) -> SwiftTrainer:
    """The Trainer of a run, with everything that watches it; `again` where the run does steps a second time."""
    plan = run.plan
    if plan.group.gpu_memory_fraction and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(plan.group.gpu_memory_fraction)
    stream = run.train if isinstance(run.train, StreamDataset) else None
    steps = run.steps
    if steps is None:
        steps = plan.group.max_steps if stream else plan.steps(len(run.train))[1]  # type: ignore[arg-type]
    args = training_arguments(plan, run.folder, steps=steps, evaluates=run.val is not None, streams=stream is not None)
    # The Trainer writes it into the model's configuration, with which the model is saved; batches say it themselves.
    args.use_cache = bool(tuners.base_model(run.model).config.to_dict().get("use_cache"))
    meter = Meter(plan.group.metric_warmup_step or 0)
    stop = StopOnSignal()
    progress = Progress(run.folder, meter, bar=not plan.group.disable_tqdm)
    callbacks: list[TrainerCallback] = [_Schedule(), _FrozenInputs(), progress, stop, _TunerStep(), _Saved(run.saved)]
    if run.tuner.parts is not None and not plan.group.vit_use_gc:
        callbacks.append(TowerActivations(run.tuner.parts.tower))
    if run.pusher is not None:
        callbacks.append(_Push(run.pusher))
    if run.last_step is not None:
        callbacks.append(_LeaveAfter(run.last_step))
    if any(name in ("tensorboard", "all") for name in plan.group.report_to):
        callbacks.append(TensorBoard(Path(plan.group.logging_dir or run.folder / "runs"), again=again))
    trainer = SwiftTrainer(
        model=run.model,
        args=args,
        objective=run.objective,
        collate=run.collate,
        plan=plan,
        train_dataset=Endless(stream) if stream else _in_order(run),
        eval_dataset=run.val,
        save_into=run.save_into,
        callbacks=callbacks,
        meter=meter,
        stop=stop,
        build_optimizer=builder(plan, run.tuner),
        evaluator=run.evaluator,
        where=run.where,
        stream=stream,
        stream_resumed=_enter(stream, run) if stream else None,
    )
    freed = plan.galore is not None and plan.galore.galore_optim_per_parameter
    freed = freed or not trainer.parallel.gradients_stay
    trainer.add_callback(Watch(may_start_flat=run.objective.may_start_flat, freed=freed))
    if plan.lisa is not None:
        layers = layers_in_turn(tuners.base_model(run.model), plan.lisa)
        trainer.add_callback(LayersTakeTurns(layers, plan.lisa, plan.group.seed))
    if args.process_index == 0:
        vocabulary = tuners.base_model(run.model).config.get_text_config().vocab_size
        notebook = Notebook(run.folder)
        guessed = vocabulary if plan.group.loss_name is None else None
        trainer.add_callback(WatchedCurves(notebook, guessed, plan.warmup(steps)))
        if plan.zero is None and not plan.shards_weights:
            trainer.add_callback(WatchedWeights(notebook))
        write_training_args(run.folder / "training_args.json", args)
    return trainer


def _in_order(run: Run) -> Any:
    """The training rows, for `--test_oom_error` the longest first: a lack of memory shows at the first step."""
    lengths = run.lengths
    if not run.plan.group.test_oom_error or lengths is None:
        return run.train
    return Subset(run.train, sorted(range(len(lengths)), key=lambda row: -lengths[row]))


def _enter(stream: StreamDataset, run: Run) -> Path | None:
    """Put the stream where the checkpoint left it. -> the checkpoint, when there is one to go on from."""
    if run.resume is None or run.plan.group.resume_only_model:
        return None
    place = run.resume / PLACE
    if place.is_file() and not run.plan.group.ignore_data_skip:
        stream.load_state_dict(json.loads(place.read_text(encoding="utf-8")))
    return run.resume


def _loop(trainer: SwiftTrainer, run: Run) -> None:
    alpha = run.plan.group.neftune_noise_alpha
    noise = Neftune(run.model, alpha) if alpha else None
    resume = None if run.plan.group.resume_only_model or run.resume is None else run.resume
    if trainer.is_world_process_zero():
        forget_after(run.folder, 0 if resume is None else step_of(resume))
    try:
        with trainer.stop.listening():
            trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    except CheckFailed as error:
        if isinstance(error, NotANumber) and run.plan.world_size == 1:
            blame(error, run.model, run.objective, run.collate, run.train, run.where)
        Notebook(run.folder).keep(error, trainer.state.global_step)
        raise
    except RuntimeError as error:
        lost = explain(error, trainer.state.global_step, run.plan.distributed.ddp_timeout)
        if lost is None:
            raise
        if trainer.stop.asked:  # a launcher that ends what is left of a run has told why
            raise SystemExit(lost.exit_code) from error
        raise lost from error
    finally:
        if noise is not None:
            noise.remove()
    received = trainer.stop.received
    if received is not None:
        raise Interrupted(
            f"stopped by a signal after step {trainer.state.global_step} of {trainer.state.max_steps}",
            exit_code=on_signal_exit_code(received),
            next=resume_command(run.command_line, run.folder, trainer.state.global_step),
        )
    if trainer.state.global_step < min(trainer.state.max_steps, run.last_step or trainer.state.max_steps):
        raise CheckFailed(
            f"the run ended after step {trainer.state.global_step} of {trainer.state.max_steps}",
            why="there were no more rows",
        )


def resume_command(command_line: str, folder: Path, step: int) -> str:
    """The command line that goes on from checkpoint `step`: the one of the run, with the checkpoint named."""
    words = _without(shlex.split(command_line), "--resume_from_checkpoint")
    return shlex.join([*words, "--resume_from_checkpoint", str(folder / f"checkpoint-{step}")])


def _without(words: Sequence[str], flag: str) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        name = word.partition("=")[0].replace("-", "_").lstrip("_")
        if name == flag.lstrip("-"):
            skip = "=" not in word
        elif skip:
            skip = False
        else:
            kept.append(word)
    return kept


def finish(trainer: SwiftTrainer, run: Run) -> dict[str, Any]:
    """Write the last line of the log, draw the curves, say where the results are and how to try them."""
    state = trainer.state
    last = run.folder / f"checkpoint-{state.global_step}"
    best = state.best_model_checkpoint or (str(last) if last.is_dir() else None)
    runtime = next((event["train_runtime"] for event in reversed(state.log_history) if "train_runtime" in event), 0.0)
    samples = trainer.trained_items()
    summary = {
        "memory": peak_memory(),
        "last_model_checkpoint": str(last) if last.is_dir() else None,
        "best_model_checkpoint": best,
        "best_metric": state.best_metric,
        "global_step": state.global_step,
        "log_history": state.log_history,
        "model_info": run.info,
        "dataset_info": {"train_dataset": length_info(run.lengths), "val_dataset": length_info(run.val_lengths)},
        "train_time": {
            "train_runtime": runtime,
            "n_train_samples": samples,
            "train_samples_per_second": samples / runtime if runtime else 0.0,
        },
    }
    if not trainer.is_world_process_zero():
        return summary
    append(run.folder / LOG, summary)
    draw(state.log_history, run.folder / "images")
    log.info("last checkpoint: %s", summary["last_model_checkpoint"])
    log.info("best checkpoint: %s", best)
    log.info("images_dir: %s", run.folder / "images")
    if run.pusher is not None and best:
        log.info("pushed to %s", run.pusher.finish(Path(best)))
    if best:
        log.info("try it:  %s", how_to_try(best))
    return summary


class _Schedule(TrainerCallback):
    """Evaluates after the last step, whatever `eval_steps` says."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for the evaluation."""
        if state.global_step >= state.max_steps and args.eval_strategy == "steps":
            control.should_evaluate = True


class _LeaveAfter(TrainerCallback):
    """Ends the run after a step."""

    def __init__(self, step: int):
        self._step = step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop when the step is done."""
        control.should_training_stop |= state.global_step >= self._step


class _TunerStep(TrainerCallback):
    """Lets the tuner do what it does after each optimizer step, while the gradients are still there."""

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The optimizer has stepped, or left the step out because fp16 gradients were not finite."""
        if not kwargs["optimizer"].step_was_skipped:
            tuners.on_step(kwargs["model"], state.global_step + 1)


class _FrozenInputs(TrainerCallback):
    """Lets frozen embeddings be without gradient again, which transformers asks for where it recomputes activations.

    Only the older way of recomputing needs it, and classes that add to their embeddings in place (GIT) fail with it.
    """

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Recomputing is set up: take the hooks out."""
        if model is not None:
            tuners.base_model(model).disable_input_require_grads()


class _Saved(TrainerCallback):
    """Tells somebody of each complete checkpoint."""

    def __init__(self, tell: Callable[[], object]):
        self._tell = tell

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A checkpoint has been written."""
        self._tell()


class _Push(TrainerCallback):
    """Hands each complete checkpoint to the uploader."""

    def __init__(self, pusher: Pusher):
        self._pusher = pusher

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A checkpoint has been written."""
        self._pusher.saved(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")
