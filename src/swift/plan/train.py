"""How a run trains: batches, steps, optimizer, evaluation, saving, logging. Pure: decisions, no torch.

Flags that leave nothing to decide stay in their groups, which the plan carries along.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from swift.core.errors import SwiftError
from swift.core.hubs import HubName, default_hub
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.flag import chosen
from swift.params.groups import Data, Distributed, Galore, Generate, Hub, Lisa, Lora, Optim, Train
from swift.params.idle_flags import WITHOUT_WARMUP
from swift.plan.data import Mode
from swift.plan.deepspeed import ZeroPlan, plan_deepspeed
from swift.plan.fsdp import FsdpPlan, plan_fsdp, recomputes
from swift.plan.json_flag import json_mapping
from swift.plan.methods import METHODS, method_name, plan_best_metric
from swift.plan.model import Dtype
from swift.plan.sequence_parallel import plan_sequence_parallel

FEW_STEPS = 10
"""Fewer optimizer steps than this are told about."""
PACKABLE = ("lora", "longlora", "adalora", "ia3", "vera", "fourierft", "adapter", "reft")
"""The sft types whose layers call those of the base and never read their weights."""
BY_PLACE = ("longlora", "reft")
"""The sft types that treat a token by its place in its sequence."""
CHUNK_BYTES = 48 * 2**20
"""Logits in fp32 that the loss has in memory at once: they fill the matrix units, and are small beside activations."""
ROWS_PER_STEP = 16
"""Rows of an optimizer step when `--gradient_accumulation_steps` is not given."""


@dataclass(frozen=True, kw_only=True)
class PushPlan:
    """Where checkpoints are pushed while the run goes on, and when."""

    repo: str
    hub: HubName
    token: str | None
    private: bool
    strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"]


@dataclass(frozen=True, kw_only=True)
class Reuse:
    """How often the rows of a roll-out are trained on, and in how many optimizer steps each time."""

    epochs: int
    mini_batches: int
    generations: int = 1
    """Answers to each prompt of a roll-out."""

    @property
    def steps(self) -> int:
        """Optimizer steps of a roll-out."""
        return self.epochs * self.mini_batches


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """Everything the Trainer is told: what was decided, and the flags as they are."""

    group: Train
    optim: Optim
    distributed: Distributed
    output_dir: Path
    """The folder the user named; the run's own folder may be one below it, see `swift.training.run_dir`."""
    model_type: str
    batch_size: int
    """Rows of a micro-batch; halved where memory is short (`--auto_find_batch_size`), with `accumulation` doubled."""
    accumulation: int
    batch_size_said: bool = True
    """Whether it is the user's: a forward pass may be larger where it is not, and where there is room."""
    given_batch_size: int | None = None
    """Where it was halved: what it was, by which `--dataloader_drop_last` still counts."""
    pass_tokens: int | None = None
    """The most tokens of a forward pass, into which the rows of an optimizer step are laid; None keeps the
    micro-batches as they are. Decided when the rows are known, see `swift.training.passes`."""
    apart: str | None = None
    """Why each row is computed for itself, as far as the flags tell, whatever rows begin with."""
    shares_beginnings: bool = False
    """Whether what rows of a pass begin with alike is computed once. Decided when rows and model are known, see
    `swift.training.shared_beginnings`."""
    recompute: bool | None = None
    """Whether activations are computed again in the backward pass; None: where there is no room to keep them, which is
    known when the rows are, see `swift.training.room`."""
    cache_vision_features: bool | None = None
    """None: where it pays."""
    pack_frozen: bool | None = None
    """Whether frozen layers are held in the order that oneDNN reads them in; None: where there is room for it, see
    `swift.training.frozen_layers`."""
    eval_batch_size: int
    data_seed: int
    """Seed of the order in which rows come."""
    resume: Path | Literal["auto"] | None
    eval_steps: int
    best_metric: str
    """The metric over the validation rows that tells the best checkpoint."""
    generation: Generate | None
    """How answers are made for `--predict_with_generate`; None evaluates by the loss."""
    save_steps: int
    save_total_limit: int | None
    """Checkpoints kept, None for all; the best and the last are kept in any case."""
    workers: int
    pin_memory: bool
    learning_rate: float
    scheduler: str
    scheduler_kwargs: Mapping[str, Any] = field(default_factory=dict)
    push: PushPlan | None
    dtype: Dtype
    device: str
    world_size: int
    reuse: Reuse | None = None
    """Set where the model trains on answers of its own."""
    galore: Galore | None = None
    """How gradients are projected, where they are."""
    lisa: Lisa | None = None
    """How layers take turns, where they do."""
    sequence_parallel: int = 1
    """Processes that compute a row together."""
    zero: ZeroPlan | None = None
    """How DeepSpeed shares the optimizer out, where it does."""
    fsdp: FsdpPlan | None = None
    """How FSDP2 shares weights out, where it does."""

    @property
    def shards_weights(self) -> bool:
        """Whether each process has a share of every weight, so that a forward pass takes all of them."""
        return self.fsdp is not None or (self.zero is not None and self.zero.stage == 3)

    @property
    def data_parallel(self) -> int:
        """Processes, or groups of them, that have different rows."""
        return self.world_size // self.sequence_parallel

    @property
    def effective_batch(self) -> int:
        """Rows of one optimizer step over all processes."""
        return self.batch_size * self.accumulation * self.data_parallel

    def steps(self, rows: int) -> tuple[int, int]:
        """Optimizer steps of an epoch and of the run for `rows` training rows.

        The last step of an epoch takes what is left, so no row is lost: ceil(micro-batches / accumulation). Raises
        SwiftError when there is no batch at all.
        """
        if self.reuse is not None:
            return self._reusing(self.reuse, rows)
        max_steps = self.group.max_steps
        batches = math.ceil((rows - self.left_out(rows)) / (self.batch_size * self.data_parallel))
        if batches == 0:
            raise SwiftError(
                f"{rows} rows make no full batch of {self.batch_size * self.data_parallel}: there is nothing to train",
                where="--dataloader_drop_last",
                next="leave it out, or use a smaller --batch_size",
            )
        per_epoch = math.ceil(batches / self.accumulation)
        return per_epoch, max_steps if max_steps > 0 else math.ceil(self.group.num_train_epochs * per_epoch)

    def _reusing(self, reuse: Reuse, rows: int) -> tuple[int, int]:
        """A roll-out is always full: it goes on with the rows of the next pass."""
        size, max_steps = self.effective_batch * reuse.mini_batches, self.group.max_steps
        of_passes = (
            math.ceil(passes * rows * reuse.generations / size) * reuse.steps
            for passes in (1, self.group.num_train_epochs)
        )
        per_pass, of_all = of_passes
        return per_pass, max_steps if max_steps > 0 else of_all

    def left_out(self, rows: int) -> int:
        """How many of so many rows each epoch leaves out, as they make no full batch of all processes."""
        whole = (self.given_batch_size or self.batch_size) * self.data_parallel
        return rows % whole if self.group.dataloader_drop_last else 0

    def warmup(self, steps: int) -> int:
        """Warm-up steps of a run of `steps`, the first of which has a learning rate of 0."""
        if self.scheduler in WITHOUT_WARMUP:
            return 0
        return self.optim.warmup_steps or math.ceil(self.optim.warmup_ratio * steps)

    def few_steps(self, steps: int) -> str | None:
        """What to tell about a run of so few steps, or so much warm-up, that it will hardly learn."""
        warmup = min(self.warmup(steps), steps)
        if steps >= FEW_STEPS and warmup < steps:
            return None
        count = "only 1 optimizer step" if steps == 1 else f"only {steps} optimizer steps"
        lost = f", {warmup} of them warm-up, which begins at a learning rate of 0" if warmup else ""
        nothing = ": nothing will be learned" if warmup and steps == 1 else ""
        flags = ["--num_train_epochs or --max_steps for more"]
        if self.accumulation > 1 and self.group.max_steps < 1:
            flags.append(f"--gradient_accumulation_steps below {self.accumulation} for smaller ones")
        if warmup:
            flags.append("--warmup_steps 0 --warmup_ratio 0 for no warm-up")
        return f"{count}{lost}{nothing}; {', '.join(flags)}"


def plan_train(args: Args, machine: Machine, *, model_type: str, sft_type: str, dtype: Dtype, rows: Mode) -> TrainPlan:
    """Decide how to train; `rows` says when rows become tokens. What cannot work is refused in `swift.params.rules`."""
    train, optim = args[Train], args[Optim]
    if optim.optim == "adamw_hf":  # is gone from transformers; the same computation
        optim = optim.replace(optim="adamw_torch")
    _check_one_process(args, machine, dtype)
    full, batch, data_seed = sft_type == "full", train.batch_size, args[Data].dataset_seed
    eval_steps = train.eval_steps if train.eval_steps is not None else (200 if full else 50)
    learning_rate = optim.learning_rate if optim.learning_rate is not None else (1e-5 if full else 1e-4)
    scheduler, scheduler_kwargs = _schedule(optim)
    sequence = plan_sequence_parallel(args, machine, sft_type)
    accumulation = train.gradient_accumulation_steps or math.ceil(
        ROWS_PER_STEP / batch / (machine.world_size // sequence)
    )
    plan = TrainPlan(
        group=train,
        optim=optim,
        distributed=args[Distributed],
        output_dir=Path(train.output_dir).expanduser(),
        model_type=model_type,
        batch_size=batch,
        batch_size_said=_said(args, "batch_size"),
        accumulation=accumulation,
        apart=_apart(args, sft_type, sequence),
        recompute=_recompute(args),
        pack_frozen=_pack_frozen(args, machine, sft_type),
        cache_vision_features=chosen(args[Train].cache_vision_features),
        eval_batch_size=train.eval_batch_size or (1 if train.predict_with_generate else batch),
        data_seed=train.seed if data_seed is None else data_seed,
        resume=_resume(train.resume_from_checkpoint),
        eval_steps=eval_steps,
        best_metric=plan_best_metric(args),
        generation=args[Generate] if train.predict_with_generate else None,
        save_steps=train.save_steps or eval_steps,
        save_total_limit=None if train.save_total_limit == -1 else train.save_total_limit,
        workers=_workers(train, rows),
        pin_memory=train.dataloader_pin_memory and machine.device != "cpu",
        learning_rate=learning_rate,
        scheduler=scheduler,
        scheduler_kwargs=scheduler_kwargs,
        push=_push(args[Hub], f"{model_type}-{sft_type}"),
        dtype=dtype,
        device=machine.device,
        world_size=machine.world_size,
        reuse=_reuse(args),
        galore=args[Galore] if args[Galore].use_galore else None,
        lisa=args[Lisa] if args[Lisa].lisa_activated_layers else None,
        sequence_parallel=sequence,
        zero=plan_deepspeed(
            args,
            machine,
            batch_size=batch,
            accumulation=accumulation,
            learning_rate=learning_rate,
            dtype=dtype,
            sft_type=sft_type,
        ),
        fsdp=plan_fsdp(args, machine, sft_type=sft_type, dtype=dtype),
    )
    _has_whole_groups(plan)
    # Frozen layers are read in the order that they have while they are shared out.
    return replace(plan, pack_frozen=False) if plan.shards_weights else plan


def _check_one_process(args: Args, machine: Machine, dtype: Dtype) -> None:
    """Raise SwiftError for what changes parameters behind the back of processes that share gradients, or of fp16.

    One of several processes that ends a rehearsal for a lack of memory would leave the others waiting.
    """
    at_once = args[Galore].use_galore and args[Galore].galore_optim_per_parameter
    given = {
        "--galore_optim_per_parameter": at_once,
        "--lisa_activated_layers": bool(args[Lisa].lisa_activated_layers),
        "--rehearse": args[Train].rehearse,
    }
    flag = next((flag for flag, is_given in given.items() if is_given), "")
    if machine.world_size > 1 and flag:
        raise SwiftError(f"{flag} works with one process", where=flag, next="leave it out, or set NPROC_PER_NODE=1")
    if at_once and dtype == "fp16":
        raise SwiftError(f"{flag} does not work in fp16: its gradients are scaled", where=flag, next="use --dtype bf16")


def _reuse(args: Args) -> Reuse | None:
    method, values = method_name(args), args.values
    if method == "ppo":
        return Reuse(epochs=values["num_ppo_epochs"], mini_batches=values["num_mini_batches"])
    if method == "grpo":
        return Reuse(
            epochs=values["num_iterations"],
            mini_batches=values["num_mini_batches"],
            generations=values["num_generations"],
        )
    return None


def _has_whole_groups(plan: TrainPlan) -> None:
    """Raise SwiftError where a roll-out would end in the middle of the answers to a prompt."""
    reuse = plan.reuse
    if reuse is None or plan.effective_batch * reuse.mini_batches % reuse.generations == 0:
        return
    size = plan.effective_batch * reuse.mini_batches
    smaller = plan.batch_size * plan.data_parallel * reuse.mini_batches
    fitting = math.lcm(smaller, reuse.generations) // smaller
    raise SwiftError(
        f"a roll-out of {size} answers cannot be parted into groups of {reuse.generations}",
        where="--num_generations",
        why=f"it has --batch_size {plan.batch_size} x --gradient_accumulation_steps {plan.accumulation} x "
        f"--num_mini_batches {reuse.mini_batches} answers, and each prompt gets --num_generations of them",
        next=f"--gradient_accumulation_steps {fitting}, or a multiple of it",
    )


def _recompute(args: Args) -> bool | None:
    """What the user, or the checkpoint that the run goes on from, says; the default only allows it."""
    name = "gradient_checkpointing"
    if recomputes(args):
        return True
    return args.values[name] if _said(args, name) else None


def _said(args: Args, name: str) -> bool:
    return args.is_explicit(name) or args.origins.get(name) == "checkpoint"


def _apart(args: Args, sft_type: str, sequence_parallel: int) -> str | None:
    """Raises SwiftError where rows are to share their beginnings in vain. Both answers of a pair are one row."""
    train = args[Train]
    obstacles = {
        "--sequence_parallel_size spreads a pass over processes as it comes": sequence_parallel > 1,
        "--neftune_noise_alpha gives each row a noise of its own": bool(train.neftune_noise_alpha),
        f"--sft_type {sft_type} treats tokens by their place": sft_type in BY_PLACE,
    }
    why = next((why for why, given in obstacles.items() if given), None)
    if why is not None and chosen(train.share_prompts) and METHODS[method_name(args)].kind != "pairs":
        raise SwiftError(
            "--share_prompts true does not work in this run",
            where="--share_prompts",
            why=why,
            next="leave the flag out",
        )
    return why


def _pack_frozen(args: Args, machine: Machine, sft_type: str) -> bool | None:
    """Whether frozen layers are packed, as far as the flags tell. Raises SwiftError where it is asked for in vain."""
    given = chosen(args[Train].pack_frozen_layers)
    able = machine.device == "cpu" and sft_type in PACKABLE and not args[Lora].use_dora
    able = able and not args[Train].torch_compile  # which would break its graphs at each packed layer
    if given and not able and args.is_explicit("pack_frozen_layers"):
        raise SwiftError(
            "--pack_frozen_layers true has nothing to pack",
            where="--pack_frozen_layers",
            why=f"it is for {', '.join(PACKABLE)} without DoRA and --torch_compile, on a CPU",
            next="leave it out",
        )
    return given if able else False


def _resume(given: str | None) -> Path | Literal["auto"] | None:
    if not given:
        return None
    return "auto" if given == "auto" else Path(given).expanduser()


def _workers(train: Train, rows: Mode) -> int:
    """One process beside the training when it has rows to encode; making a batch of encoded rows needs none.

    A stream is read by the training process itself, which has to know how far it has come.
    """
    if train.dataloader_num_workers is None:
        return int(rows == "lazy")
    return train.dataloader_num_workers


def _schedule(optim: Optim) -> tuple[str, dict[str, Any]]:
    kwargs = json_mapping(optim.lr_scheduler_kwargs, "--lr_scheduler_kwargs")
    if optim.min_lr is not None:
        return "cosine_with_min_lr", {**kwargs, "min_lr": optim.min_lr}
    return optim.lr_scheduler_type, kwargs


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
