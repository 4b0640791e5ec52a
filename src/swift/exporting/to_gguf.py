"""`--to_gguf`: one file for llama.cpp and Ollama, held to the model it was made from before it has its name."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from swift import models
from swift.catalog import Catalog
from swift.core.transaction import write_folder
from swift.core.writable import require_writable, writing
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


def to_gguf(plan: GgufPlan, encoder: Encoder) -> Path:
    """Convert the plan's model, let llama.cpp prove it, and put the file and the report into the plan's folder.

    -> the file. Raises SwiftError for a model that does not convert or a full disk, CheckFailed when llama.cpp does not
    answer as the model does; nothing is under the folder's name then.
    """
    from swift.engines.gguf_conversion import require_packages

    require_packages()
    require_writable(plan.target.parent, "--gguf_output_dir", ROOM)
    with writing(plan.target, where="--gguf_output_dir", next=ROOM), write_folder(plan.target) as scratch:
        write_gguf(plan, encoder, scratch)
    return plan.target / FILE


def write_gguf(plan: GgufPlan | OllamaPlan, encoder: Encoder, folder: Path) -> None:
    """Convert the plan's model into `folder`; the report of a file that is refused stays beside the plan's target."""
    from swift.engines.gguf_conversion import convert, require_packages

    require_packages()
    source = models.fetch(plan.model)
    convert(
        source,
        models.load_config(plan.model, source),
        encoder,
        folder / FILE,
        type=plan.type,
        name=plan.model.source,
        reference=partial(models.load_model, replace(plan.model, dtype="fp32", attn="sdpa"), source),
        beside=plan.target.with_name(f"{plan.target.name}.{REPORT}"),
    )
