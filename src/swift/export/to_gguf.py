"""`--to_gguf`: one file for llama.cpp and Ollama, held to the model it was made from before it has its name."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from swift import models
from swift.catalog import Catalog
from swift.core.errors import CheckFailed
from swift.core.log import log
from swift.core.optional_imports import need
from swift.core.transaction import write_file, write_folder
from swift.core.writable import require_writable, writing
from swift.engines.gguf_check import Check, check_gguf
from swift.models.ends import end_ids
from swift.models.gguf.file import Written, write_gguf
from swift.plan.gguf import FILE, GgufPlan
from swift.prompts.encode import Encoder, build_encoder
from swift.prompts.parity import require_same_template

REPORT = "gguf_report.json"
ROOM = "make room, or give --gguf_output_dir a folder where there is some"


def make_encoder(plan: GgufPlan, catalog: Catalog) -> Encoder:
    """The plan's prompts. Raises SwiftError when they are not those the checkpoint was trained with."""
    encoder = build_encoder(plan.prompt, models.load_tokenizer(plan.model), catalog)
    if plan.checkpoint:
        require_same_template(plan.checkpoint, encoder, plan.prompt.ignore_mismatch)
    return encoder


def to_gguf(plan: GgufPlan, encoder: Encoder) -> Path:
    """Convert the plan's model, let llama.cpp prove it, and put the file and the report into the plan's folder.

    -> the file. Raises SwiftError for a model that does not convert or a full disk, CheckFailed when llama.cpp does not
    answer as the model does; nothing is under the folder's name then.
    """
    need("gguf", extra="gguf", why="writing a GGUF file")
    need("xllamacpp", extra="gguf", why="checking a GGUF file in llama.cpp")
    require_writable(plan.target.parent, "--gguf_output_dir", ROOM)
    with writing(plan.target, where="--gguf_output_dir", next=ROOM), write_folder(plan.target) as scratch:
        text = convert(plan, encoder, scratch / FILE, plan.target)
        (scratch / REPORT).write_text(text, encoding="utf-8")
    return plan.target / FILE


def convert(plan: GgufPlan, encoder: Encoder, file: Path, target: Path) -> str:
    """Write and check `file`, which will go to `target`. -> the report as JSON."""
    source = models.fetch(plan.model)
    start = time.perf_counter()
    written = write_gguf(
        source,
        models.load_config(plan.model, source),
        encoder.tokens.tokenizer,
        file,
        type=plan.type,
        name=plan.model.model_type,
        ends=_ends(source, encoder),
    )
    seconds = time.perf_counter() - start
    log.info("%s written in %.1f s (%.1f MB); llama.cpp reads it now", file.name, seconds, file.stat().st_size / 1e6)
    exact = replace(plan.model, dtype="fp32", attn="sdpa")
    reference = partial(models.load_model, exact, source)
    marks = not written.differs_at_marks
    check = check_gguf(file, plan.type, encoder, reference, positions=written.positions, marks=marks)
    for line in check.lines():
        log.info(line)
    return _judge(plan, written, check, seconds, target)


def _ends(source: Path, encoder: Encoder) -> Sequence[int]:
    return list(dict.fromkeys([*end_ids(source, encoder.tokens.tokenizer), *encoder.stop_token_ids]))


def _judge(plan: GgufPlan, written: Written, check: Check, seconds: float, target: Path) -> str:
    report = {"source": plan.model.source, "convert_seconds": round(seconds, 2), **asdict(written), **asdict(check)}
    text = json.dumps({**report, "faults": check.faults()}, indent=2, ensure_ascii=False) + "\n"
    if check.faults():
        beside = target.with_name(f"{target.name}.{REPORT}")
        write_file(beside, text)
        raise CheckFailed(
            f"the GGUF file does not answer as {plan.model.source} does",
            where=str(beside),
            why="; ".join(check.faults()),
            next="nothing was written: choose another --to_gguf type, or report this with the file above",
        )
    return text
