"""What a run leaves beside its numbers: sft_args.json, training_args.json, the first example in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from swift import models
from swift.core.machine import Machine
from swift.core.transaction import write_file
from swift.data.packing import unpacked
from swift.params.args import Args
from swift.params.checkpoint_args import EARLIER, EARLIER_STEPS, command_lines, read_saved
from swift.params.form import given_line
from swift.params.secrets import SECRETS
from swift.plan.sft import SftPlan
from swift.plan.tuner import Parts
from swift.prompts.types import IGNORED, Media
from swift.training.checkpoints import step_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from swift.models.families import MediaProcessor

TORCH_NAMES = {"fp32": "torch.float32", "fp16": "torch.float16", "bf16": "torch.bfloat16"}


def decided(plan: SftPlan) -> dict[str, Any]:
    """The flags that the plan decided where none was given, or said more exactly."""
    model, train = plan.model, plan.train
    return {
        "model_type": model.model_type,
        "model_id_or_path": str(Path(model.source).resolve()) if model.hub == "local" else model.source,
        "model_revision": model.revision,
        "dtype": model.dtype,
        "template_type": plan.prompt.template_type,
        "gradient_checkpointing": train.recompute,
        "pack_frozen_layers": str(bool(train.pack_frozen)).lower(),
        "quantization_bit": model.quant.bits if model.quant else 0,
        **({"quant_method": model.quant.method} if model.quant else {}),
        **{name: value for name, value in plan.tuner.settings.items() if name == "lora_dropout"},
        "dataset_seed": plan.data.seed,
        "learning_rate": train.learning_rate,
        "batch_size": train.batch_size,
        "gradient_accumulation_steps": train.accumulation,
        "micro_batching": str(train.pass_tokens or train.group.micro_batching),
        "eval_batch_size": train.eval_batch_size,
        "eval_steps": train.eval_steps,
        "save_steps": train.save_steps,
        "dataloader_num_workers": train.workers,
        "evaluation_strategy": train.group.evaluation_strategy,
    }


def saved_args(
    args: Args, plan: SftPlan, machine: Machine, run: Path, template_type: str, resume: Path | None = None
) -> dict[str, Any]:
    """Every flag with what became of it, and the computed values that later commands and people look for.

    A run that goes on from the checkpoint `resume` keeps the command lines of the run before.
    """
    before: dict[str, Any] = {}
    if resume is not None and not plan.train.group.resume_only_model:
        saved = read_saved(resume)
        before = {EARLIER: command_lines(saved), EARLIER_STEPS: [*saved.get(EARLIER_STEPS, ()), step_of(resume)]}
    layers = args.values["hqq_dynamic_config_path"]
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in args.values.items()}
    return {
        **{name: value for name, value in values.items() if name not in SECRETS},
        **decided(plan),
        "command": args.command,
        "command_line": given_line(args),
        **before,
        "hqq_dynamic_config_path": None if layers is None else str(Path(layers).expanduser().resolve()),
        "template_type": template_type,
        "output_dir": str(run),
        "logging_dir": str(plan.train.group.logging_dir or run / "runs"),
        "torch_dtype": TORCH_NAMES[plan.model.dtype],
        "fp16": plan.model.dtype == "fp16",
        "bf16": plan.model.dtype == "bf16",
        "rank": machine.rank if machine.world_size > 1 else -1,
        "local_rank": machine.local_rank if machine.world_size > 1 else -1,
        "world_size": machine.world_size,
        "local_world_size": machine.local_world_size,
        "train_type": args.command,
    }


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON file, written in one step; what JSON cannot hold is written as text."""
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n")


def write_training_args(path: Path, args: TrainingArguments) -> None:
    """transformers' view of the run, for the record."""
    write_json(path, {name: value for name, value in args.to_dict().items() if not name.endswith("_token")})


def model_info(model: nn.Module) -> str:
    """`PeftModelForCausalLM: 3.2252M Params (0.0051M Trainable [0.1588%]), 0.0000M Buffers.`"""
    total = models.parameter_count(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    buffers = sum(b.numel() for b in model.buffers())
    return (
        f"{type(model).__name__}: {total / 1e6:.4f}M Params ({trained / 1e6:.4f}M Trainable "
        f"[{100 * trained / total:.4f}%]), {buffers / 1e6:.4f}M Buffers."
    )


def parts_info(model: nn.Module, parts: Parts) -> str:
    """`0 of the tower, 2 of the projector, 14 of the decoder`: modules that have trained parameters, or a LoRA, of
    their own."""
    trained: dict[str, set[str]] = {"tower": set(), "projector": set(), "decoder": set()}
    for path, module in model.named_modules():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            own, _, _ = path.removeprefix("base_model.model.").partition(".lora_")
            trained[parts.part_of(own)].add(own)
    return ", ".join(f"{len(modules)} of the {part}" for part, modules in trained.items())


def length_info(lengths: Sequence[int] | None) -> str:
    """`54.681818±11.639569, min=37.000000, max=87.000000, size=198`; rows encoded later have no known lengths."""
    if not lengths:
        return "not known" if lengths is None else "size=0"
    spread = f"{fmean(lengths):.6f}±{pstdev(lengths):.6f}"
    return f"{spread}, min={min(lengths):.6f}, max={max(lengths):.6f}, size={len(lengths)}"


def example(item: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, images: MediaProcessor | None = None) -> str:
    """A row as text, what is trained between ⟦ and ⟧; the two answers of a pair below each other."""
    if "input_ids" not in item:
        return "\n".join(f"{end}: {example(answer, tokenizer, images)}" for end, answer in ends_of(item).items())
    pieces: list[str] = []
    labels = labels_of(item)
    place = 0
    for words, stretch in stretches(item, images):
        pieces.append(words)
        for trained, run in runs([] if words else stretch, labels[place:]):
            text = tokenizer.decode(run)
            pieces.append(f"⟦{text}⟧" if trained else str(text))
        place += len(stretch)
    return "".join(pieces)


def stretches(item: Mapping[str, Any], images: MediaProcessor | None) -> Iterator[tuple[str, list[int]]]:
    """The ids of an item, packed or not: each medium with its words, and the text between with ""."""
    for row in [item] if images is None else unpacked(item):
        ids = row["input_ids"]
        yield from [("", ids)] if images is None else images.described(ids, row.get("media", Media()))


def ends_of(item: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The answers in a row by name (`chosen`, `rejected`), each as a row of its own; a row of one is `row`."""
    if "input_ids" in item:
        return {"row": dict(item)}
    return {
        end: {name.removeprefix(f"{end}_"): value for name, value in item.items() if name.startswith(f"{end}_")}
        for end in ("chosen", "rejected")
    }


def labels_of(item: Mapping[str, Any]) -> list[int]:
    """What of a row is trained; nothing of a prompt, whose answer the model gives itself."""
    return item["labels"] if "labels" in item else [IGNORED] * len(item["input_ids"])


def runs(ids: Sequence[int], labels: Sequence[int]) -> list[tuple[bool, list[int]]]:
    """Tokens cut where training starts and stops: (trained, ids). There may be more labels."""
    spans: list[tuple[bool, list[int]]] = []
    for token, label in zip(ids, labels, strict=False):
        trained = label != IGNORED
        if not spans or spans[-1][0] != trained:
            spans.append((trained, []))
        spans[-1][1].append(token)
    return spans


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)
