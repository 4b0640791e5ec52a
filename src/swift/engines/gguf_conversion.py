"""From a model's folder to a GGUF file that llama.cpp has been seen to answer from, and the report of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from transformers import PretrainedConfig, PreTrainedModel

from swift.core.errors import CheckFailed
from swift.core.log import log
from swift.core.optional_imports import need
from swift.core.transaction import write_file
from swift.engines.gguf_check import NEW_TOKENS, check_gguf
from swift.models.ends import end_ids
from swift.models.gguf.file import write_gguf
from swift.plan.gguf import REPORT, GgufType
from swift.prompts.encode import Encoder


def require_packages() -> None:
    """Raise SwiftError where a file could not be written, or not be checked."""
    need("gguf", extra="gguf", why="writing a GGUF file")
    need("xllamacpp", extra="gguf", why="checking a GGUF file in llama.cpp")


def convert(
    source: Path,
    config: PretrainedConfig,
    encoder: Encoder,
    file: Path,
    *,
    type: GgufType,
    name: str,
    reference: Callable[[], PreTrainedModel],
    beside: Path,
    request: str,
    least: float | None = None,
    new_tokens: int = NEW_TOKENS,
) -> list[str]:
    """Write `file` from the folder `source`, check it against the model that `reference` loads, and put the report next
    to it, with the `request` that tells this conversion from others. `least` is the share of greedy tokens that must be
    the model's own, if not that of the type. -> what was compared, for people.

    Raises SwiftError for a model that does not convert, and CheckFailed, with the report at `beside`, for a file from
    which llama.cpp does not answer as the model does.
    """
    start = time.perf_counter()
    ends = list(dict.fromkeys([*end_ids(source, encoder.tokens.tokenizer), *encoder.stop_token_ids]))
    written = write_gguf(source, config, encoder.tokens.tokenizer, file, type=type, name=name, ends=ends)
    seconds = time.perf_counter() - start
    log.info("%s written in %.1f s (%.1f MB); llama.cpp reads it now", file.name, seconds, file.stat().st_size / 1e6)
    limits = {"positions": written.positions, "vocabulary": config.vocab_size}
    marks = not written.differs_at_marks
    check = check_gguf(file, type, encoder, reference, **limits, marks=marks, new_tokens=new_tokens, least=least)
    for line in check.lines():
        log.info(line)
    faults = check.faults()
    report = {
        "source": name,
        "request": request,
        "convert_seconds": round(seconds, 2),
        **asdict(written),
        **asdict(check),
    }
    text = json.dumps({**report, "faults": faults}, indent=2, ensure_ascii=False) + "\n"
    if faults:
        write_file(beside, text)
        raise CheckFailed(
            f"the GGUF file does not answer as {name} does",
            where=str(beside),
            why="; ".join(faults),
            next="no model was written: "
            + (
                "other exports keep the tokenizer"
                if check.cut_otherwise
                else "choose another type, or allow more with --gguf_min_agreement of swift export"
            ),
        )
    (file.parent / REPORT).write_text(text, encoding="utf-8")
    return check.lines()
