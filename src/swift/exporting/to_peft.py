"""`--to_peft_format`: an adapter in the folders of 2.5 as the files that PEFT writes, proven to be the same adapter."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from swift import models, tuners
from swift.core.errors import CheckFailed, SwiftError
from swift.core.log import log
from swift.core.transaction import MANIFEST, write_file, write_folder
from swift.core.writable import require_writable, writing
from swift.exporting import model_comparison
from swift.hub import model_card
from swift.params.checkpoint_args import SFT_ARGS, adapter_folder, read_saved
from swift.plan.model import ModelPlan
from swift.tuners import swift_layout
from swift.tuners.peft_tuners import known_warnings
from swift.tuners.tensor_files import CONFIG, read_fields, read_tensors, write_json, write_tensors

REPORT = "peft_report.json"
OF_TRAINING = (MANIFEST, SFT_ARGS, "trainer_state.json", "rng_state.pth", "optimizer.pt", "scheduler.pt")
ROOM = "make room, or copy the checkpoint to where there is some"


def to_peft(checkpoint: Path, model: ModelPlan) -> Path:
    """Write CHECKPOINT-peft and return it; a checkpoint that PEFT reads already is left alone and returned.

    `model` is the base. Raises SwiftError for what holds no adapter, or one that PEFT has no method for, and for a full
    disk, CheckFailed when PEFT does not answer with the files as we do; nothing is under the folder's name then.
    """
    inside = adapter_folder(checkpoint)
    if inside is None:
        raise SwiftError(
            f"{checkpoint} holds no adapter", where="--ckpt_dir", next="--ckpt_dir output/…/checkpoint-N of an adapter"
        )
    fields = read_fields(inside)
    if not swift_layout.is_swift(fields):
        log.info("%s is in the PEFT format already", checkpoint)
        return checkpoint
    converted = swift_layout.fields_for_peft(fields)
    if converted.get("base_model_name_or_path") is None:
        converted["base_model_name_or_path"] = read_saved(checkpoint).get("model_id_or_path")
    target = checkpoint.resolve().with_name(f"{checkpoint.resolve().name}-peft")
    if target.exists():
        raise SwiftError(f"{target} is there already", where="--ckpt_dir", next=f"remove or rename it: rm -r {target}")
    require_writable(target.parent, "--ckpt_dir", ROOM)
    with writing(target, where="--ckpt_dir", next=ROOM), write_folder(target) as scratch:
        for path in checkpoint.iterdir():
            if path.is_file() and path.name not in OF_TRAINING:
                shutil.copyfile(path, scratch / path.name)
        write_tensors(swift_layout.tensors_for_peft(read_tensors(inside)), scratch)
        write_json(scratch / CONFIG, dict(sorted(converted.items())))
        saved = read_saved(checkpoint)
        if saved:
            text = json.dumps({**saved, "tuner_backend": "peft", "ckpt_dir": str(target)}, indent=2, ensure_ascii=False)
            (scratch / SFT_ARGS).write_text(text + "\n", encoding="utf-8")
        _verify(checkpoint, replace(model, adapter=None), scratch, target)
        if not (scratch / model_card.README).is_file():
            model_card.complete_card(scratch)
    return target


def _verify(checkpoint: Path, model: ModelPlan, scratch: Path, target: Path) -> None:
    """Let PEFT itself put the written files on the base, and compare its logits with those of the checkpoint."""
    source = models.fetch(model)
    models.check_base(checkpoint, model, source)
    exact = replace(model, dtype="fp32", attn="sdpa", quant=None)
    tokenizer = models.load_tokenizer(model, checkpoint if (checkpoint / "tokenizer_config.json").is_file() else source)
    base = models.load_model(exact, source)
    prompts = model_comparison.prompts(tokenizer, base.config.get_text_config().vocab_size)
    seen = model_comparison.observe(tuners.load(base, checkpoint), prompts)
    with known_warnings():
        again: Any = PeftModel.from_pretrained(models.load_model(exact, source), str(scratch))
    comparison = model_comparison.compare(seen, again.eval())
    wrong = not comparison.max_difference <= seen.tolerance
    report = json.dumps({"tolerance": seen.tolerance, **asdict(comparison)}, indent=2) + "\n"
    if wrong:
        beside = target.with_name(f"{target.name}.{REPORT}")
        write_file(beside, report)
        raise CheckFailed(
            f"PEFT does not answer with the converted files as {checkpoint} does",
            where=str(beside),
            why=f"logits differ by {comparison.max_difference:.3g}, allowed are {seen.tolerance:.3g}",
            next="nothing was written: use the checkpoint as it is, and please report this with the file above",
        )
    (scratch / REPORT).write_text(report, encoding="utf-8")
    log.info(
        "converted and checked: logits within %.2g, %.0f%% of %d greedy tokens equal",
        comparison.max_difference,
        100 * comparison.agreement,
        comparison.tokens,
    )
