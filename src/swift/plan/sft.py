"""A training run, decided: method, model, tuner, prompt, data, training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.groups import Train
from swift.plan.data import DataPlan, plan_data
from swift.plan.gpu_kernels import check_kernels
from swift.plan.methods import method_name
from swift.plan.model import ModelPlan, plan_model
from swift.plan.prompt import PromptPlan, plan_prompt
from swift.plan.quantization import check_stored
from swift.plan.rlhf import AlignmentPlan, plan_alignment, with_own_defaults
from swift.plan.samples import SamplesPlan, plan_samples
from swift.plan.train import TrainPlan, plan_train
from swift.plan.tuner import TunerPlan, plan_tuner
from swift.plan.unread import say_unread_by_shares


@dataclass(frozen=True, kw_only=True)
class SftPlan:
    """Everything a training command will do. `dry_run` stops before weights are loaded."""

    command: str
    method: str
    """Which row of `swift.plan.methods` is carried out."""
    model: ModelPlan
    tuner: TunerPlan
    prompt: PromptPlan
    data: DataPlan
    train: TrainPlan
    alignment: AlignmentPlan | None = None
    """What `swift rlhf` compares."""
    samples: SamplesPlan | None = None
    """Answers before and after training."""
    eval_after: Path | None = None
    """Questions for the base and the tuned model, asked at the end."""
    dry_run: bool

    def summary(self) -> str:
        """The plan in a few lines, as it is printed before anything is loaded."""
        train, data = self.train, self.data
        length = "any length" if data.max_length is None else f"up to {data.max_length} tokens"
        rows = ", ".join(spec.text for spec in data.train)
        held_back = ", ".join(spec.text for spec in data.val) or f"{data.test_ratio:.3g} of the rows held back"
        batch = f"{train.batch_size} x {train.accumulation} accumulation"
        if train.world_size > 1:
            batch += f" x {train.data_parallel} {'processes' if train.sequence_parallel == 1 else 'groups'}"
        if train.sequence_parallel > 1:
            batch += f" of {train.sequence_parallel} processes"
        engine = f", DeepSpeed ZeRO-{train.zero.stage}{' with offload' * train.zero.offloads}" if train.zero else ""
        count, max_steps = train.group.num_train_epochs, train.group.max_steps
        epochs = "1 epoch" if count == 1 else f"{count:g} epochs"
        length_of_run = f"{max_steps} steps" if max_steps > 0 else epochs
        below = f"{train.model_type}/vN-TIME" if train.group.add_output_dir_suffix else ""
        return "\n".join(
            [
                f"swift {self.command}",
                f"  model     {self.model.summary()}",
                f"  template  {self.prompt.template_type}, {length}, {self.prompt.truncation_strategy} what is longer",
                f"  tuner     {self.tuner.summary()}",
                *(self.alignment.summary(train.effective_batch) if self.alignment else ()),
                f"  data      {rows}; validation: {held_back}",
                f"  batch     {batch} = {train.effective_batch} rows a step, {length_of_run}",
                f"  optimizer {train.optim.optim}, {train.scheduler} from {train.learning_rate:g}{engine}",
                f"  output    {train.output_dir / below}",
            ]
        )


def plan_sft(args: Args, catalog: Catalog, machine: Machine) -> SftPlan:
    """Decide a run from what was said. Raises SwiftError for anything that cannot work."""
    method = method_name(args)
    args = with_own_defaults(args)
    model = plan_model(args, catalog, machine)
    check_kernels(args, machine, model)
    check_stored(model.stored_quant, model.source, machine)
    tuner = plan_tuner(args, model)
    prompt = plan_prompt(args, catalog, model.entry.template if model.entry else None)
    data = plan_data(args, catalog, multimodal=model.entry is not None and model.entry.multimodal)
    train = plan_train(
        args,
        machine,
        model_type=model.model_type,
        sft_type=tuner.sft_type,
        dtype=model.dtype,
        rows=data.mode,
    )
    if method == "rm" and train.distributed.ddp_find_unused_parameters is None:  # scores leave the last layer out
        train = replace(train, distributed=train.distributed.replace(ddp_find_unused_parameters=True))
    alignment = plan_alignment(args, catalog, machine, tuner) if args.command == "rlhf" else None
    samples = plan_samples(args, tuner)
    if train.shards_weights:  # shares come from the host, weight by weight
        model = replace(model, device_map=None)
        alignment = alignment and alignment.shared_out()
        if samples is not None:
            say_unread_by_shares(args)
            samples = None
    return SftPlan(
        command=args.command,
        method=method,
        model=model,
        tuner=tuner,
        prompt=prompt,
        data=data,
        train=train,
        alignment=alignment,
        samples=samples,
        eval_after=_questions(args, method),
        dry_run=args[Train].dry_run,
    )


def _questions(args: Args, method: str) -> Path | None:
    """What `--eval_after` names. Raises SwiftError where there will be nobody to answer."""
    train = args[Train]
    if train.eval_after is None:
        return None
    if method == "rm":
        raise SwiftError("a reward model answers no questions", where="--eval_after", next="leave it out")
    if train.save_strategy == "no":
        raise SwiftError(
            "--save_strategy no leaves no checkpoint to ask", where="--eval_after", next="drop one of the two"
        )
    return Path(train.eval_after).expanduser()
