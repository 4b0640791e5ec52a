"""`--to_gguf`: one file for llama.cpp and Ollama, held to the model it was made from before it has its name."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from swift import models
from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.core.transaction import fault, write_folder
from swift.core.writable import require_writable, writing
from swift.hub import model_card
from swift.plan.gguf import FILE, REPORT, GgufPlan
from swift.plan.ollama import OllamaPlan
from swift.prompts.encode import Encoder, build_encoder
from swift.prompts.parity import require_same_template

ROOM = "make room, or give --gguf_output_dir a folder where there is some"


def make_encoder(plan: GgufPlan | OllamaPlan, catalog: Catalog) -> Encoder:
    """The plan's prompts. Raises SwiftError when they are not those the checkpoint was trained with."""
    encoder = build_encoder(plan.prompt, models.load_tokenizer(plan.model), catalog)
    if plan.checkpoint:
        require_same_template(plan.checkpoint, encoder, plan.prompt.ignore_mismatch)
    return encoder


def require_convertible(plan: GgufPlan | OllamaPlan, encoder: Encoder) -> None:
    """Raise SwiftError for a model whose architecture, settings or tokenizer do not convert."""
    from swift.engines.gguf_conversion import require_packages

    require_packages()

    from swift.models.gguf import file

    source = models.fetch(plan.model)
    file.require_convertible(source, models.load_config(plan.model, source), encoder.tokens.tokenizer)


def to_gguf(plan: GgufPlan, encoder: Encoder) -> Path:
    """Convert the plan's model, let llama.cpp prove it, and put the file and the report into the plan's folder.

    -> the file. Raises SwiftError for a model that does not convert or a full disk, CheckFailed when llama.cpp does not
    answer as the model does; nothing is under the folder's name then.
    """
    from swift.engines.gguf_conversion import require_packages

    require_packages()
    if plan.target.exists():
        check_existing(plan, encoder, "--gguf_output_dir")
        return plan.target / FILE
    require_writable(plan.target.parent, "--gguf_output_dir", ROOM)
    with writing(plan.target, where="--gguf_output_dir", next=ROOM), write_folder(plan.target) as scratch:
        write_gguf(plan, encoder, scratch)
    return plan.target / FILE


def write_gguf(plan: GgufPlan | OllamaPlan, encoder: Encoder, folder: Path) -> None:
    """Convert the plan's model into `folder`; the report of a file that is refused stays beside the plan's target."""
    from swift.engines.gguf_cache import digest
    from swift.engines.gguf_conversion import convert, require_packages

    require_packages()
    source = models.fetch(plan.model)
    lines = convert(
        source,
        models.load_config(plan.model, source),
        encoder,
        folder / FILE,
        type=plan.type,
        name=plan.model.source,
        reference=partial(models.load_model, replace(plan.model, dtype="fp32", attn="sdpa"), source),
        beside=plan.target.with_name(f"{plan.target.name}.{REPORT}"),
        request=digest(plan.model, source, encoder, None),
        least=plan.min_agreement,
    )
    model_card.write_card(
        folder,
        model_card.origin_of(source, plan.model.source, plan.model.hub),
        title=f"{plan.model.model_type}, GGUF {plan.type}",
        relation="quantized",
        library="gguf",
        tags=["gguf", plan.type],
        sections={"Conversion": "\n\n".join(f"```\n{text}\n```" for text in ("\n".join(lines), plan.command))},
    )


def check_existing(plan: GgufPlan | OllamaPlan, encoder: Encoder, where: str) -> None:
    """What an earlier run of the same command left whole is gone on from. Raises SwiftError for anything else."""
    from swift.engines.gguf_cache import digest

    wrong = fault(plan.target)
    if wrong is None:
        report = plan.target / REPORT
        made = json.loads(report.read_text("utf-8")) if report.is_file() else {}
        request = digest(plan.model, models.fetch(plan.model), encoder, None)
        wrong = None if (made.get("request"), made.get("type")) == (request, plan.type) else "it is of another model"
    if wrong:
        raise SwiftError(f"{plan.target} exists", where=where, why=wrong, next=f"remove it: rm -r {plan.target}")
    log.info("%s is there already and complete: left as it is", plan.target)
