"""From a TrainPlan to transformers' TrainingArguments."""

from __future__ import annotations

from pathlib import Path

from transformers.training_args import OptimizerNames, TrainingArguments

from swift.plan.train import TrainPlan
from swift.training.check_names import OWN_TRACKERS
from swift.training.liger import KERNELS


class PlacedArguments(TrainingArguments):
    """For a model whose shares lie where they belong."""

    @property
    def place_model_on_device(self) -> bool | None:
        """Transformers' door for it."""
        return False


def training_arguments(
    plan: TrainPlan, run: Path, *, steps: int, evaluates: bool, streams: bool = False
) -> TrainingArguments:
    """The plan in transformers' words, for a run of `steps` optimizer steps that writes to `run`.

    Building them joins the process group when there are several processes. transformers does no logging, no progress
    and no pushing of its own for us, so those fields are off.
    """
    train, optim, distributed = plan.group, plan.optim, plan.distributed
    return (TrainingArguments if plan.fsdp is None else PlacedArguments)(
        output_dir=str(run),
        per_device_train_batch_size=plan.batch_size,
        per_device_eval_batch_size=plan.eval_batch_size,
        gradient_accumulation_steps=plan.accumulation,
        num_train_epochs=train.num_train_epochs,
        max_steps=steps,
        optim=_optimizer(plan),
        learning_rate=plan.learning_rate,
        use_liger_kernel=train.use_liger,
        liger_kernel_config=KERNELS if train.use_liger else None,
        lr_scheduler_type=plan.scheduler,
        lr_scheduler_kwargs=dict(plan.scheduler_kwargs),
        warmup_steps=plan.warmup(steps),
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        adam_beta1=optim.adam_beta1,
        adam_beta2=optim.adam_beta2,
        adam_epsilon=optim.adam_epsilon,
        bf16=plan.dtype == "bf16" and plan.zero is None,  # see swift.plan.deepspeed
        fp16=plan.dtype == "fp16",
        activation_checkpointing=bool(plan.recompute),
        activation_checkpointing_kwargs={"use_reentrant": False} if plan.recompute else None,
        seed=train.seed,
        data_seed=plan.data_seed,
        train_sampling_strategy="sequential" if train.test_oom_error or plan.reuse else "random",
        full_determinism=train.full_determinism,
        ignore_data_skip=train.ignore_data_skip or streams,  # a stream finds its own place
        accelerator_config={
            **({"dispatch_batches": False} if streams else {}),
            **({"use_configured_state": True} if plan.zero else {}),
        },
        deepspeed=None if plan.zero is None else dict(plan.zero.config),
        eval_strategy=train.evaluation_strategy if evaluates else "no",
        eval_steps=plan.eval_steps,
        metric_for_best_model=plan.best_metric,
        greater_is_better=not plan.best_metric.endswith("loss"),
        save_strategy=train.save_strategy,
        save_steps=plan.save_steps,
        save_only_model=train.save_only_model,
        save_on_each_node=train.save_on_each_node,
        logging_steps=train.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=[name for name in train.report_to if name not in OWN_TRACKERS],
        run_name=str(run),
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
        include_num_input_tokens_seen="all" if train.include_num_input_tokens_seen else "no",
        dataloader_num_workers=plan.workers,
        dataloader_pin_memory=plan.pin_memory,
        dataloader_drop_last=train.dataloader_drop_last,
        remove_unused_columns=False,
        label_names=["labels"],
        use_cpu=plan.device == "cpu" and plan.zero is None,  # accelerate has DeepSpeed on other devices only
        ddp_backend=distributed.ddp_backend if plan.world_size > 1 else None,
        ddp_timeout=distributed.ddp_timeout,
        ddp_find_unused_parameters=bool(distributed.ddp_find_unused_parameters),
        ddp_broadcast_buffers=distributed.ddp_broadcast_buffers,
    )


def _optimizer(plan: TrainPlan) -> str:
    """The one that was asked for. On a GPU PyTorch has AdamW in one kernel, which computes the same."""
    name = plan.optim.optim
    fused = plan.device == "cuda" and name == OptimizerNames.ADAMW_TORCH.value
    return OptimizerNames.ADAMW_TORCH_FUSED.value if fused else name
