"""Fold an adapter into its base model, write the result as one transaction, and prove that it answers the same."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from swift import models, tuners
from swift.core.errors import CheckFailed, SwiftError
from swift.core.log import log
from swift.core.transaction import MANIFEST, fault, sha256, write_file, write_folder
from swift.core.writable import require_writable
from swift.exporting import model_comparison
from swift.hub import model_card
from swift.models import saving
from swift.models.load import TORCH_DTYPES
from swift.models.processor_files import copy_processor
from swift.params.checkpoint_args import ADAPTER_CONFIG, SFT_ARGS, adapter_folder, read_saved
from swift.plan.merge import MergePlan, quantized_base
from swift.plan.model import ModelPlan, read_config
from swift.plan.quantization import stored_quant
from swift.plan.reward_model import HEAD_FILES
from swift.tuners.tensor_files import write_model

REPORT = "merge_report.json"
OF_TRAINING = ("rng_state.pth", "trainer_state.json", MANIFEST, SFT_ARGS)
"""Files of a checkpoint, beside optimizer and schedule, that a model does not need or has anew."""
CAST_SHARE = {"fp32": 0.0, "bf16": 0.25, "fp16": 0.05}
"""Largest change of a logit by rounding the weights to a dtype, as a share of the largest logit.

Wide, because rounding is what the dtype asks for and the files are compared bit for bit besides: it finds overflow.
"""


@dataclass(frozen=True)
class Report:
    """What was compared with base + adapter: the merged weights in fp32, and the written files in their own dtype."""

    checkpoint: str
    base: str
    base_identity: Mapping[str, Any]
    """`models.identity` of the base."""
    base_checked: bool
    """Whether the checkpoint records its base and this is it."""
    adapter_sha256: str
    dtype: str
    tolerance: float
    """Largest logit difference allowed in fp32."""
    merged: model_comparison.Comparison
    cast_tolerance: float
    """Largest logit difference allowed after rounding the weights to `dtype`."""
    written: model_comparison.Comparison
    different_tensors: tuple[str, ...]
    """Tensors that came back from disk otherwise than they went (at most ten)."""

    def faults(self) -> list[str]:
        """Why the merge must not be used; empty when it may."""
        if not math.isfinite(self.tolerance):
            return ["base + adapter itself gives logits that are not finite"]
        faults = []
        if not self.merged.max_difference <= self.tolerance:
            faults.append(f"merged logits differ by {self.merged.max_difference:.2g}, allowed are {self.tolerance:.2g}")
        if self.different_tensors:
            faults.append(f"{self.different_tensors[0]} came back from disk changed")
        if not self.written.max_difference <= self.cast_tolerance:
            faults.append(f"written logits differ by {self.written.max_difference:.2g} > {self.cast_tolerance:.2g}")
        return faults


def merge(plan: MergePlan, *, new_tokens: int = model_comparison.NEW_TOKENS) -> Path:
    """Make (or find) the merged folder of the plan and return it; it is compared over so many tokens that it writes.

    Raises SwiftError for a wrong base, a damaged file or a full disk, and CheckFailed when the merged model does not
    answer as base + adapter; nothing is left under the target's name then.
    """
    if plan.whole:
        return _take_over(plan)
    source = models.fetch(plan.model)
    stored = stored_quant(read_config(source))
    if stored is not None:
        raise quantized_base(plan.model.source, stored, plan.checkpoint)
    checked = models.check_base(plan.checkpoint, plan.model, source)
    adapter = _adapter_digest(plan.checkpoint)
    if plan.target.exists():
        _check_existing(plan, adapter, source)
        return plan.target
    require_writable(plan.target.parent, "--ckpt_dir", "copy the checkpoint to where there is room, and merge it there")
    exact = replace(plan.model, dtype="fp32", attn="sdpa")
    tokenizer = models.load_tokenizer(plan.model, _tokenizer_folder(plan.checkpoint, source))
    base = models.load_model(exact, source)
    tuned = tuners.load(base, plan.checkpoint)
    prompt_ids = model_comparison.prompts(tokenizer, base.config.get_text_config().vocab_size)
    seen = model_comparison.observe(tuned, prompt_ids, new_tokens)
    merged = tuners.merge(tuned)
    in_fp32 = model_comparison.compare(seen, merged)
    nn.Module.to(merged, dtype=TORCH_DTYPES[plan.model.dtype])  # transformers wraps `to` without its types
    try:
        with write_folder(plan.target) as scratch:
            _write(plan, merged, tokenizer, source, scratch)
            again = _reload(plan.model, scratch)
            different = model_comparison.different_tensors(merged, again)
            del merged, tuned, base
            report = Report(
                checkpoint=str(plan.checkpoint),
                base=plan.model.source,
                base_identity=models.identity(source),
                base_checked=checked,
                adapter_sha256=adapter,
                dtype=plan.model.dtype,
                tolerance=seen.tolerance,
                merged=in_fp32,
                cast_tolerance=max(seen.tolerance, CAST_SHARE[plan.model.dtype] * seen.largest),
                written=model_comparison.compare(seen, again.float()),
                different_tensors=tuple(different[:10]),
            )
            _judge(report, plan, scratch)
            _write_card(plan, source, report, scratch)
    except saving.FAILURES as error:
        why = saving.unwritten(error)
        if why is None:
            raise
        raise SwiftError(f"{plan.target} could not be written", why=why, next="make room and merge again") from error
    written = report.written
    log.info(
        "merged and checked: logits within %.2g of base + adapter, %.0f%% of %d greedy tokens equal",
        written.max_difference,
        100 * written.agreement,
        written.tokens,
    )
    return plan.target


def _take_over(plan: MergePlan) -> Path:
    """The checkpoint of a deeper model as a model of its own, without what only training needs."""
    if plan.target.exists():
        wrong = fault(plan.target)
        if wrong:
            raise SwiftError(
                f"{plan.target} is there already", why=wrong, next=f"remove or rename it: rm -r {plan.target}"
            )
        log.info("%s is there already and complete: left as it is", plan.target)
        return plan.target
    require_writable(plan.target.parent, "--ckpt_dir", "copy the checkpoint to where there is room, and merge it there")
    with write_folder(plan.target) as scratch:
        for path in plan.checkpoint.iterdir():
            if path.is_file() and not path.match("*.pt") and path.name not in OF_TRAINING:
                shutil.copyfile(path, scratch / path.name)
        _write_saved(plan, scratch)
    return plan.target


def _judge(report: Report, plan: MergePlan, scratch: Path) -> None:
    text = json.dumps({**asdict(report), "faults": report.faults()}, indent=2, ensure_ascii=False) + "\n"
    if report.faults():
        beside = plan.target.with_name(f"{plan.target.name}.{REPORT}")
        write_file(beside, text)
        raise CheckFailed(
            f"the merged model does not answer as {plan.checkpoint} on its base does",
            where=str(beside),
            why="; ".join(report.faults()),
            next="nothing was written: use the adapter unmerged, and please report this with the file above",
        )
    (scratch / REPORT).write_text(text, encoding="utf-8")


def _write_card(plan: MergePlan, source: Path, report: Report, folder: Path) -> None:
    origin = model_card.origin_of(source, plan.model.source, plan.model.hub)
    written = report.written
    merged = (
        f"The adapter is merged into the base in {report.dtype}. Compared with base and adapter in fp32: logits within "
        f"{written.max_difference:.2g}, {written.agreement:.1%} of {written.tokens} greedy tokens equal."
    )
    model_card.write_card(
        folder,
        replace(origin, training=model_card.training_of(plan.checkpoint) or origin.training),
        title=f"{plan.model.model_type}, trained",
        relation="finetune",
        library="transformers",
        sections={"Merge": f"{merged}\n\n```\n{plan.command}\n```", "Use": "`swift infer --ckpt_dir THIS-FOLDER`"},
    )


def _check_existing(plan: MergePlan, adapter: str, source: Path) -> None:
    """A finished merge of this very adapter into this very base is left alone; anything else under the name is said."""
    wrong = fault(plan.target) or _other_merge(plan, adapter, source)
    if wrong:
        raise SwiftError(
            f"{plan.target} is there already and is not this merge",
            why=wrong,
            next=f"remove or rename it: rm -r {plan.target}",
        )
    log.info("%s is there already and complete: left as it is", plan.target)


def _other_merge(plan: MergePlan, adapter: str, source: Path) -> str | None:
    """In what the finished merge under the plan's name differs from the plan; `source` is the base's folder."""
    path = plan.target / REPORT
    if not path.is_file():
        return f"it has no {REPORT}"
    report = json.loads(path.read_text("utf-8"))
    in_safetensors = any(plan.target.glob("*.safetensors"))
    if report["adapter_sha256"] != adapter:
        return "it was merged from another adapter"
    if report["dtype"] != plan.model.dtype:
        return f"it was merged in {report['dtype']} and {plan.model.dtype} is asked for"
    if "base_identity" not in report:
        return f"its {REPORT} does not record which weights it was merged into"
    if not models.same_base(report["base_identity"], source):
        return f"it was merged into other weights, those of {report['base']}"
    if in_safetensors != plan.safetensors:
        kinds = ("safetensors", "bin files")
        have, wanted = kinds if in_safetensors else kinds[::-1]
        return f"its weights are {have} and --save_safetensors asks for {wanted}"
    return None


def _write(
    plan: MergePlan, merged: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: Path, folder: Path
) -> None:
    write_model(merged, folder, safetensors=plan.safetensors)
    tokenizer.save_pretrained(folder)
    (folder / "configuration.json").write_text("{}\n", encoding="utf-8")
    beside = ((plan.checkpoint, name) for name in ("template.json", *HEAD_FILES))
    for origin, name in ((source, "configuration.json"), *beside):
        if (origin / name).is_file():
            shutil.copyfile(origin / name, folder / name)
    copy_processor(plan.checkpoint, source, folder)
    _write_saved(plan, folder)


def _write_saved(plan: MergePlan, folder: Path) -> None:
    """The arguments of the run, as those of a whole model."""
    if (plan.checkpoint / SFT_ARGS).is_file():
        whole = {"sft_type": "full", "quantization_bit": 0, "quant_method": None}
        saved = {**read_saved(plan.checkpoint), **whole, "dtype": plan.model.dtype}
        text = json.dumps({**saved, "ckpt_dir": str(plan.target)}, indent=2, ensure_ascii=False) + "\n"
        (folder / SFT_ARGS).write_text(text, encoding="utf-8")


def _reload(plan: ModelPlan, folder: Path) -> PreTrainedModel:
    """The written folder as any later command reads it. Raises CheckFailed when it cannot be read."""
    local = replace(plan, source=str(folder), hub="local", entry=None, adapter=None)
    try:
        return models.load_model(local, models.fetch(local))
    except SwiftError as error:
        raise CheckFailed("the merged model that was written cannot be read back", why=error.what) from error


def _adapter_digest(checkpoint: Path) -> str:
    """What tells the adapter from others: its weights alone do not, with another scaling they mean another merge."""
    inside = adapter_folder(checkpoint) or checkpoint
    parts = {inside / ADAPTER_CONFIG, inside / "adapter_model.bin", *inside.glob("*.safetensors")}
    parts |= set(checkpoint.glob("*.safetensors"))
    return hashlib.sha256("".join(sha256(part) for part in sorted(parts) if part.is_file()).encode()).hexdigest()


def _tokenizer_folder(checkpoint: Path, source: Path) -> Path:
    """The checkpoint's own tokenizer, which may have added tokens, or else the base's."""
    return checkpoint if (checkpoint / "tokenizer_config.json").is_file() else source
