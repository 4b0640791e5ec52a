"""How a run trains: batches, steps, optimizer, evaluation, saving, logging. Pure: decisions, no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swift.core.errors import NotBuilt, SwiftError, raise_together
from swift.core.hubs import HubName, default_hub
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.groups import Data, Distributed, Generate, Hub, Optim, Train
from swift.plan.data import Mode
from swift.plan.model import Dtype

When = Literal["steps", "epoch", "no"]
ROWS_PER_STEP = 16
"""Rows of an optimizer step when `--gradient_accumulation_steps` is not said."""


@dataclass(frozen=True, kw_only=True)
class OptimPlan:
    """The optimizer and its learning rate."""

    name: str
    learning_rate: float
    scheduler: str
    scheduler_kwargs: Mapping[str, Any] = field(default_factory=dict)
    warmup_ratio: float = 0.0
    warmup_steps: int = 0
    """Above 0 it counts instead of the ratio."""
    weight_decay: float
    max_grad_norm: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float


@dataclass(frozen=True, kw_only=True)
class PushPlan:
    """Where checkpoints are pushed while the run goes on, and when."""

    repo: str
    hub: HubName
    token: str | None
    private: bool
    strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"]


@dataclass(frozen=True, kw_only=True)
class GenerationPlan:
    """How answers are made for `--predict_with_generate`; None follows the model's generation_config.json."""

    max_new_tokens: int
    num_beams: int
    do_sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """Everything the Trainer is told."""

    output_dir: Path
    """The folder the user named; the run's own folder may be one below it, see `dated`."""
    dated: bool
    model_type: str
    epochs: float
    max_steps: int
    """-1 follows `epochs`."""
    batch_size: int
    eval_batch_size: int
    accumulation: int
    auto_find_batch_size: bool
    gradient_checkpointing: bool
    seed: int
    data_seed: int
    """Seed of the order in which rows come."""
    full_determinism: bool
    resume: Path | Literal["auto"] | None
    resume_only_model: bool
    ignore_data_skip: bool
    eval_strategy: When
    eval_steps: int
    generation: GenerationPlan | None
    """None evaluates by the loss."""
    accuracy: Literal["token", "sentence"]
    acc_steps: int
    save_strategy: When
    save_steps: int
    save_total_limit: int | None
    """Checkpoints kept, None for all; the best and the last are kept in any case."""
    save_only_model: bool
    save_on_each_node: bool
    logging_steps: int
    logging_dir: str | None
    report_to: tuple[str, ...]
    count_tokens: bool
    speed_warmup: float
    """Steps (or, below 1, the share of them) left out of the measured speed."""
    disable_tqdm: bool
    neftune_alpha: float | None
    workers: int
    pin_memory: bool
    drop_last: bool
    longest_first: bool
    gpu_memory_fraction: float | None
    optim: OptimPlan
    push: PushPlan | None
    dtype: Dtype
    device: str
    world_size: int
    ddp_backend: str | None
    ddp_timeout: int
    ddp_find_unused_parameters: bool | None
    ddp_broadcast_buffers: bool | None

    @property
    def effective_batch(self) -> int:
        """Rows of one optimizer step over all processes."""
        return self.batch_size * self.accumulation * self.world_size

    def steps(self, rows: int) -> tuple[int, int]:
        """Optimizer steps of an epoch and of the run for `rows` training rows.

        The last step of an epoch takes what is left, so no row is lost: ceil(micro-batches / accumulation).
        """
        batches = rows // self.batch_size if self.drop_last else math.ceil(rows / self.batch_size)
        batches = batches // self.world_size if self.drop_last else math.ceil(batches / self.world_size)
        per_epoch = max(1, math.ceil(batches / self.accumulation))
        return per_epoch, self.max_steps if self.max_steps > 0 else math.ceil(self.epochs * per_epoch)

    def warmup(self, steps: int) -> int:
        """Warm-up steps of a run of `steps`."""
        return self.optim.warmup_steps or math.ceil(self.optim.warmup_ratio * steps)


def plan_train(args: Args, machine: Machine, *, model_type: str, sft_type: str, dtype: Dtype, rows: Mode) -> TrainPlan:
    """Decide how to train; `rows` says when rows become tokens.

    Raises SwiftError (all mistakes together) for combinations that cannot work, NotBuilt for what does not exist.
    """
    train, distributed = args[Train], args[Distributed]
    raise_together([*_unbuilt(args), *_mistakes(args), *_stream_mistakes(train, rows)])
    full = sft_type == "full"
    eval_steps = train.eval_steps if train.eval_steps is not None else (200 if full else 50)
    batch, data_seed = train.batch_size, args[Data].dataset_seed
    accumulation = train.gradient_accumulation_steps or math.ceil(ROWS_PER_STEP / batch / machine.world_size)
    return TrainPlan(
        output_dir=Path(train.output_dir).expanduser(),
        dated=bool(train.add_output_dir_suffix),
        model_type=model_type,
        epochs=train.num_train_epochs,
        max_steps=train.max_steps,
        batch_size=batch,
        eval_batch_size=train.eval_batch_size or (1 if train.predict_with_generate else batch),
        accumulation=accumulation,
        auto_find_batch_size=train.auto_find_batch_size,
        gradient_checkpointing=bool(train.gradient_checkpointing),
        seed=train.seed,
        data_seed=train.seed if data_seed is None else data_seed,
        full_determinism=train.full_determinism,
        resume=_resume(train),
        resume_only_model=train.resume_only_model,
        ignore_data_skip=train.ignore_data_skip,
        eval_strategy=train.evaluation_strategy,
        eval_steps=eval_steps,
        generation=_generation(args) if train.predict_with_generate else None,
        accuracy=train.acc_strategy,
        acc_steps=train.acc_steps,
        save_strategy=train.save_strategy,
        save_steps=train.save_steps or eval_steps,
        save_total_limit=None if train.save_total_limit == -1 else train.save_total_limit,
        save_only_model=train.save_only_model,
        save_on_each_node=train.save_on_each_node,
        logging_steps=train.logging_steps,
        logging_dir=train.logging_dir,
        report_to=tuple(train.report_to),
        count_tokens=bool(train.include_num_input_tokens_seen),
        speed_warmup=train.metric_warmup_step or 0,
        disable_tqdm=train.disable_tqdm,
        neftune_alpha=train.neftune_noise_alpha,
        workers=_workers(train, rows),
        pin_memory=train.dataloader_pin_memory and machine.device != "cpu",
        drop_last=train.dataloader_drop_last,
        longest_first=train.test_oom_error,
        gpu_memory_fraction=train.gpu_memory_fraction,
        optim=_optim(args[Optim], full),
        push=_push(args[Hub], f"{model_type}-{sft_type}"),
        dtype=dtype,
        device=machine.device,
        world_size=machine.world_size,
        ddp_backend=distributed.ddp_backend,
        ddp_timeout=distributed.ddp_timeout,
        ddp_find_unused_parameters=distributed.ddp_find_unused_parameters,
        ddp_broadcast_buffers=distributed.ddp_broadcast_buffers,
    )


def _resume(train: Train) -> Path | Literal["auto"] | None:
    if not train.resume_from_checkpoint:
        return None
    if train.resume_from_checkpoint == "auto":
        return "auto"
    folder = Path(train.resume_from_checkpoint).expanduser()
    if not folder.is_dir():
        raise SwiftError(
            f"there is no folder {folder}",
            where="--resume_from_checkpoint",
            next="name a checkpoint-N folder, or say auto for the newest complete one under --output_dir",
        )
    return folder


def _workers(train: Train, rows: Mode) -> int:
    """One process beside the training when it has rows to encode; making a batch of encoded rows needs none.

    A stream is read by the training process itself, which has to know how far it has come.
    """
    if train.dataloader_num_workers is None:
        return int(rows == "lazy")
    return train.dataloader_num_workers


def _optim(optim: Optim, full: bool) -> OptimPlan:
    kwargs = dict(optim.lr_scheduler_kwargs) if isinstance(optim.lr_scheduler_kwargs, Mapping) else {}
    if isinstance(optim.lr_scheduler_kwargs, str):
        kwargs = json.loads(optim.lr_scheduler_kwargs)
    scheduler = optim.lr_scheduler_type
    if optim.min_lr is not None:
        scheduler, kwargs = "cosine_with_min_lr", {**kwargs, "min_lr": optim.min_lr}
    return OptimPlan(
        name=optim.optim,
        learning_rate=optim.learning_rate if optim.learning_rate is not None else (1e-5 if full else 1e-4),
        scheduler=scheduler,
        scheduler_kwargs=kwargs,
        warmup_ratio=optim.warmup_ratio,
        warmup_steps=optim.warmup_steps,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        adam_beta1=optim.adam_beta1,
        adam_beta2=optim.adam_beta2,
        adam_epsilon=optim.adam_epsilon,
    )


def _generation(args: Args) -> GenerationPlan:
    generate = args[Generate]
    return GenerationPlan(
        max_new_tokens=generate.max_new_tokens,
        num_beams=generate.num_beams,
        do_sample=generate.do_sample,
        temperature=generate.temperature,
        top_k=generate.top_k,
        top_p=generate.top_p,
        repetition_penalty=generate.repetition_penalty,
    )


def _push(hub: Hub, name: str) -> PushPlan | None:
    if not hub.push_to_hub:
        return None
    return PushPlan(
        repo=hub.hub_model_id or name,
        hub=default_hub(),
        token=hub.hub_token,
        private=hub.hub_private_repo,
        strategy=hub.hub_strategy,
    )


def _unbuilt(args: Args) -> list[SwiftError]:
    """Flags of the contract whose work does not exist yet, where they are said with an effect."""
    train, distributed = args[Train], args[Distributed]
    given = {
        "deepspeed": distributed.deepspeed,
        "fsdp": distributed.fsdp,
        "fsdp_config": distributed.fsdp_config,
        "fsdp_num": distributed.fsdp_num > 1,
        "model_layer_cls_name": distributed.model_layer_cls_name,
        "sequence_parallel_size": distributed.sequence_parallel_size > 1,
        "sequence_parallel": distributed.sequence_parallel,
        "train_backend": distributed.train_backend != "transformers",
        "tp": distributed.tp > 1,
        "pp": distributed.pp > 1,
        "loss_name": train.loss_name,
        "use_liger": train.use_liger,
        "save_safetensors": not train.save_safetensors,
        "vit_use_gc": not train.vit_use_gc,
    }
    return [
        NotBuilt(f"--{flag} is not built yet", where=f"--{flag}", next="leave it out")
        for flag, on in given.items()
        if on
    ]


def _mistakes(args: Args) -> list[SwiftError]:
    train, optim = args[Train], args[Optim]
    found: list[SwiftError] = []
    if train.resume_only_model and not train.resume_from_checkpoint:
        found.append(
            SwiftError(
                "--resume_only_model has nothing to take the weights from",
                where="--resume_only_model",
                next="add --resume_from_checkpoint with a checkpoint folder",
            )
        )
    if optim.min_lr is not None and optim.lr_scheduler_type != "cosine":
        found.append(
            SwiftError(
                f"--min_lr goes with --lr_scheduler_type cosine, not {optim.lr_scheduler_type}", where="--min_lr"
            )
        )
    if train.predict_with_generate and train.evaluation_strategy == "no":
        found.append(SwiftError("--predict_with_generate evaluates, but --evaluation_strategy is no"))
    return found


def _stream_mistakes(train: Train, rows: Mode) -> list[SwiftError]:
    if rows != "streaming":
        return []
    found: list[SwiftError] = []
    if train.dataloader_num_workers:
        found.append(
            SwiftError(
                "--streaming true works with --dataloader_num_workers 0 only",
                where="--dataloader_num_workers",
                why="a resumed run has to know how far the stream was read",
            )
        )
    if train.test_oom_error:
        found.append(SwiftError("--test_oom_error sorts all rows by length, which a stream cannot be"))
    return found
