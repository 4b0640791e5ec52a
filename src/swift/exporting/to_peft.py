"""`--to_peft_format`: an adapter in the folders of 2.5 as the files that PEFT writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.core.transaction import MANIFEST, write_folder
from swift.core.writable import require_writable
from swift.params.checkpoint_args import SFT_ARGS, adapter_folder, read_saved
from swift.tuners import swift_layout
from swift.tuners.tensor_files import CONFIG, read_fields, read_tensors, write_json, write_tensors

OF_TRAINING = (MANIFEST, SFT_ARGS, "trainer_state.json", "rng_state.pth")


def to_peft(checkpoint: Path) -> Path:
    """Write CHECKPOINT-peft and return it; a checkpoint that PEFT reads already is left alone and returned.

    Raises SwiftError for what holds no adapter, or one that PEFT has no method for.
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
    require_writable(target.parent, "--ckpt_dir", "copy the checkpoint to where there is room")
    with write_folder(target) as scratch:
        for path in checkpoint.iterdir():
            if path.is_file() and path.name not in OF_TRAINING and path.name not in ("optimizer.pt", "scheduler.pt"):
                shutil.copyfile(path, scratch / path.name)
        write_tensors(swift_layout.tensors_for_peft(read_tensors(inside)), scratch)
        write_json(scratch / CONFIG, dict(sorted(converted.items())))
        saved = read_saved(checkpoint)
        if saved:
            text = json.dumps({**saved, "tuner_backend": "peft", "ckpt_dir": str(target)}, indent=2, ensure_ascii=False)
            (scratch / SFT_ARGS).write_text(text + "\n", encoding="utf-8")
    return target
