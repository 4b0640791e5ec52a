"""What becomes of each flag when a run goes on from a checkpoint: applied, refused, or the checkpoint's.

The arguments of a resumed run are its own where a flag was given, and those of the checkpoint where not, so that what
is printed and recorded is what runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from swift.core.errors import SwiftError
from swift.params.args import Args
from swift.params.checkpoint_args import adapter_config, adapter_folder, adapter_kind, read_saved
from swift.params.commands import COMMANDS
from swift.params.flag import Flag
from swift.params.frozen import Frozen

Fate = Literal["own", "next", "rows", "weights", "state"]
"""own: about this process, never taken from a checkpoint and never compared.
next: applied from the next step on; the checkpoint's where it is not given.
rows: as next, and said loudly, because the rows come in another order or as other tokens than before.
weights: decides which weights there are, so another value is refused.
state: decides what the optimizer and the schedule hold; another value is refused unless only weights are taken."""

GROUPS: Mapping[str, Fate] = {
    "Model": "own",
    "Data": "rows",
    "Prompt": "rows",
    "Tuner": "weights",
    "Lora": "weights",
    "Train": "next",
    "Optim": "next",
    "Generate": "next",
    "Quant": "next",
    "Distributed": "own",
    "Hub": "own",
    **dict.fromkeys(("Adalora", "Ia3", "Vera", "Boft", "Fourierft", "Reft", "Llamapro", "Adapter"), "weights"),
    **dict.fromkeys(("Galore", "Lisa"), "state"),
    "Run": "own",
    "Rlhf": "next",
}
"""The fate of a group's flags, but for those in `FLAGS`."""

FLAGS: Mapping[str, Fate] = {
    **dict.fromkeys(("dtype", "rope_scaling", "model_kwargs", "rescale_image"), "next"),
    **dict.fromkeys(("preprocess_num_proc", "max_drop_ratio", "strict", "no_cache", "cache_dir"), "own"),
    **dict.fromkeys(("custom_dataset_info", "ignore_template_mismatch", "tuner_backend"), "own"),
    **dict.fromkeys(("batch_size", "gradient_accumulation_steps", "seed", "dataloader_drop_last"), "rows"),
    **dict.fromkeys(("output_dir", "add_output_dir_suffix", "logging_dir", "report_to", "disable_tqdm"), "own"),
    **dict.fromkeys(("resume_from_checkpoint", "resume_only_model", "ignore_data_skip", "dry_run"), "own"),
    **dict.fromkeys(("auto_find_batch_size", "rehearse", "vit_use_gc", "full_determinism"), "own"),
    **dict.fromkeys(("save_only_model", "save_safetensors", "save_on_each_node", "use_liger"), "own"),
    **dict.fromkeys(("dataloader_num_workers", "dataloader_pin_memory", "gpu_memory_fraction"), "own"),
    **dict.fromkeys(("include_num_input_tokens_seen", "metric_warmup_step"), "own"),
    "test_oom_error": "rows",
    "optim": "state",
    "lora_lr_ratio": "state",
    "rlhf_type": "state",
}

INSTEAD = (
    ("max_steps", "num_train_epochs"),
    ("num_train_epochs", "max_steps"),
    ("warmup_steps", "warmup_ratio"),
    ("warmup_ratio", "warmup_steps"),
    ("min_lr", "lr_scheduler_type"),
    ("lr_scheduler_type", "min_lr"),
    ("lr_scheduler_type", "lr_scheduler_kwargs"),
    ("eval_steps", "save_steps"),
    ("seed", "dataset_seed"),
    ("batch_size", "micro_batching"),
)
"""Another value of the first takes the place of the second, which is then not taken from the checkpoint."""

PEFT_NAMES = {
    "r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "use_dora": "use_dora",
    "use_rslora": "use_rslora",
}


ACCUMULATION = "gradient_accumulation_steps"
OTHER_SIZE = "processes: {}, where {} were before; dropout, if there is any, draws other numbers"


class Resumed(Frozen):
    """The arguments that will run, and what to tell about them."""

    args: Args
    notes: list[str]
    warnings: list[str]


def fates(command: str) -> dict[str, Fate]:
    """The fate of every flag of a training command, other spellings left out."""
    return {
        flag.name: FLAGS.get(flag.name, GROUPS[use.name])
        for use in COMMANDS[command].uses
        for flag in use.flags()
        if flag.alias_of is None
    }


def trained_with(checkpoint: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments a checkpoint records; of a plain PEFT or transformers folder what its files tell."""
    saved = read_saved(checkpoint)
    if saved:
        return saved
    folder, kind = adapter_folder(checkpoint), adapter_kind(checkpoint)
    if folder is None:
        return {"sft_type": "full"}
    adapter = adapter_config(folder)
    sizes = {ours: adapter[name] for name, ours in PEFT_NAMES.items() if name in adapter} if kind == "lora" else {}
    return {"sft_type": kind, **sizes}


def another_run(args: Args, saved: Mapping[str, Any], model_type: str) -> str | None:
    """Why `auto` must not go on from a checkpoint with these arguments: it belongs to another command or model."""
    command = saved.get("command", args.command)
    if command != args.command:
        return f"it was written by swift {command}"
    if saved.get("model_type", model_type) != model_type:
        return f"it is of {saved['model_type']}"
    method = args.values.get("rlhf_type")
    if saved.get("rlhf_type", method) != method:
        return f"it was written by --rlhf_type {saved['rlhf_type']}"
    kind = args.values["sft_type"]
    if args.is_explicit("sft_type") and saved.get("sft_type", kind) != kind:
        return f"it was trained with --sft_type {saved['sft_type']}"
    return None


def resumed(args: Args, saved: Mapping[str, Any], decided: Mapping[str, Any], *, processes: int) -> Resumed:
    """Lay the given flags over those of the checkpoint (`trained_with`). `decided` is what the plan made of the flags.

    With `resume_only_model` a new run begins, for which only the flags count that decide about the weights. Raises
    SwiftError for flags whose change a checkpoint cannot follow.
    """
    only_model = args.values["resume_only_model"]
    if not only_model and saved.get("command", args.command) != args.command:
        raise SwiftError(
            f"the checkpoint was written by swift {saved['command']}",
            where="--resume_from_checkpoint",
            next="add --resume_only_model true to start a new run from its weights",
        )
    counted: tuple[Fate, ...] = ("weights",) if only_model else ("next", "rows", "weights", "state")
    taken: dict[str, Any] = {}
    changed: dict[Fate, list[str]] = {fate: [] for fate in counted}
    flags = COMMANDS[args.command].flags
    known = {name: _typed(flags[name], saved[name]) for name in fates(args.command) if name in saved}
    values = {**args.values, **{name: value for name, value in decided.items() if name in flags}}
    replaced = {
        other for name, other in INSTEAD if _given(args, name) and (name not in known or known[name] != values[name])
    }
    before_processes = saved.get("world_size", processes)
    if before_processes != processes and not _given(args, ACCUMULATION):
        replaced.add(ACCUMULATION)
        taken |= _same_rows(args, known, before_processes, processes)
    for name, fate in fates(args.command).items():
        if fate not in counted or name not in known:
            continue
        before, now = known[name], values[name]
        if before == now:
            continue
        if _given(args, name):
            changed[fate].append(f"--{name} {_shown(now)} (it was {_shown(before)})")
        elif name not in replaced:
            taken[name] = before
    _refuse(changed["weights"], "weights", "start anew without --resume_from_checkpoint")
    _refuse(changed.get("state", []), "optimizer and schedule", "take the weights alone with --resume_only_model true")
    kept = ", ".join(f"--{name} {_shown(value)}" for name, value in taken.items())
    return Resumed(
        args.replace(values={**args.values, **taken}, origins={**args.origins, **dict.fromkeys(taken, "checkpoint")}),
        [
            *([f"as in the checkpoint: {kept}"] if taken else []),
            *([OTHER_SIZE.format(processes, before_processes)] if before_processes != processes else []),
            *([f"from here on: {', '.join(changed['next'])}"] if changed.get("next") else []),
        ],
        [f"rows may repeat or be left out: {', '.join(changed['rows'])}"] if changed.get("rows") else [],
    )


def _same_rows(args: Args, known: Mapping[str, Any], before: int, now: int) -> dict[str, Any]:
    """The accumulation with which `now` processes have as many rows a step as `before` had, where there is one."""
    if known.get(ACCUMULATION) is None or known.get("batch_size") is None:
        return {}
    batch = args.values["batch_size"] if _given(args, "batch_size") else known["batch_size"]
    accumulation, rest = divmod(known["batch_size"] * known[ACCUMULATION] * before, batch * now)
    return {} if rest or not accumulation else {ACCUMULATION: accumulation}


def _given(args: Args, name: str) -> bool:
    """Whether the user asked for a value, `AUTO` and none being no value."""
    return args.is_explicit(name) and args.values[name] not in (None, "AUTO")


def _refuse(changed: list[str], kind: str, otherwise: str) -> None:
    if not changed:
        return
    raise SwiftError(
        f"the checkpoint cannot go on with {', '.join(changed)}",
        where="--resume_from_checkpoint",
        why=f"its {kind} belong to the settings that it was saved with",
        next=f"leave {'it' if len(changed) == 1 else 'them'} out to go on as before, or {otherwise}",
    )


def _typed(flag: Flag, value: Any) -> Any:
    return tuple(value) if flag.many and isinstance(value, list) else value


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
