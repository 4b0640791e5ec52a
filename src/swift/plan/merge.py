"""Folding an adapter into its base: what from, where to, in which precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.core.transaction import MANIFEST, fault
from swift.params.args import Args
from swift.params.checkpoint_args import adapter_kind, read_saved
from swift.params.form import given_line
from swift.params.groups import Checkpoint
from swift.plan.device_map import require_place
from swift.plan.model import ModelPlan, plan_model
from swift.plan.quantization import StoredQuant

NOT_MERGED = ("adapter", "reft")
"""Kinds of adapters that are more than another weight."""


@dataclass(frozen=True, kw_only=True)
class MergePlan:
    """One merge. `model.dtype` is the precision of the result; the arithmetic is fp32."""

    checkpoint: Path
    target: Path
    """CKPT_DIR-merged."""
    model: ModelPlan
    safetensors: bool = True
    trained_on_bits: int = 0
    """Bits of the base that the adapter was trained on, if it was quantized; the merge takes the base itself."""
    bits_not_taken: int = 0
    """What `--quantization_bit` asks for, where the adapter was trained on full weights."""

    command: str = ""
    """What was given, for the model card."""
    whole: bool = False
    """The checkpoint is a model that was made deeper: there is nothing to compute, and its files are taken over."""

    def summary(self) -> str:
        """What is merged into what, and that a quantized base is not what it was trained on."""
        if self.whole:
            return f"take the deeper model in {self.checkpoint}, which is whole already -> {self.target}"
        text = f"merge {self.checkpoint} into {self.model.summary()} -> {self.target}"
        if self.bits_not_taken:
            return (
                f"{text}\n--quantization_bit {self.bits_not_taken} is not followed: an adapter is merged into the full "
                "weights, which swift export --quant_bits can quantize afterwards"
            )
        if not self.trained_on_bits:
            return text
        return (
            f"{text}\nthe adapter was trained on this base in {self.trained_on_bits} bit; it is merged into the full "
            "weights, so answers differ a little from the unmerged adapter's"
        )


def plan_merge(args: Args, catalog: Catalog, machine: Machine) -> MergePlan:
    """The merge that `--ckpt_dir` asks for. Raises SwiftError when that is no complete adapter checkpoint."""
    checkpoint = args[Checkpoint].ckpt_dir
    if not checkpoint:
        raise SwiftError("no adapter is given", where="--ckpt_dir", next="--ckpt_dir output/…/checkpoint-N")
    model = plan_model(args.with_values(quantization_bit=0, quant_method=None), catalog, machine)
    folder = Path(checkpoint).expanduser()
    if model.stored_quant is not None:
        raise quantized_base(model.source, model.stored_quant, folder)
    whole = model.adapter is None and read_saved(folder).get("sft_type") == "llamapro"
    if model.adapter is None and not whole:
        raise SwiftError(
            f"{folder} has no adapter to merge",
            where="--ckpt_dir",
            why="it is a whole model",
            next=f"use it as it is: swift infer --ckpt_dir {folder}",
        )
    kind = adapter_kind(folder)
    if kind in NOT_MERGED:
        raise SwiftError(
            f"the adapter in {folder} cannot be merged",
            where="--ckpt_dir",
            why=f"what {kind} computes between the layers no weight of the base computes",
            next=f"use it unmerged: swift infer --ckpt_dir {folder}",
        )
    wrong = fault(folder) if (folder / MANIFEST).is_file() else None
    if wrong:
        raise SwiftError(
            f"the checkpoint {folder} is damaged", where="--ckpt_dir", why=wrong, next="use another checkpoint"
        )
    trained_on = int(read_saved(folder).get("quantization_bit") or 0)
    return MergePlan(
        checkpoint=folder,
        target=folder.resolve().with_name(f"{folder.resolve().name}-merged"),
        model=replace(model, device_map=_device_map(args, machine)),
        safetensors=args[Checkpoint].save_safetensors,
        trained_on_bits=trained_on,
        bits_not_taken=args.values["quantization_bit"] if args.command == "merge-lora" and not trained_on else 0,
        command=given_line(args),
        whole=whole,
    )


def quantized_base(source: str, stored: StoredQuant, checkpoint: Path) -> SwiftError:
    """The refusal of a merge into weights that are quantized on disk."""
    return SwiftError(
        f"an adapter cannot be merged into {source}, which is quantized ({stored})",
        where="--ckpt_dir",
        why="the sum would have to be quantized anew, and the adapter's part would be lost in that",
        next=f"use it unmerged: swift infer --ckpt_dir {checkpoint}",
    )


def _device_map(args: Args, machine: Machine) -> str | None:
    """`--merge_device_map`; unsaid it is auto for a merge alone, and cpu where the model is loaded again afterwards."""
    given = args[Checkpoint].merge_device_map
    require_place(given, "--merge_device_map", machine)
    if machine.device == "cpu":
        return None
    return given or ("auto" if args.command in ("merge-lora", "export") else "cpu")
