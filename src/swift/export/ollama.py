"""A Modelfile beside nothing else: Ollama reads the weights where they are and builds our prompt."""

from __future__ import annotations

from pathlib import Path

from swift import models
from swift.catalog import Catalog
from swift.chat.encode import build_encoder
from swift.chat.ollama import modelfile_template
from swift.chat.parity import require_same_template
from swift.core.transaction import write_folder
from swift.plan.ollama import OllamaPlan

FILE = "Modelfile"


def write_modelfile(plan: OllamaPlan, catalog: Catalog) -> Path:
    """Write `FILE` into the plan's folder. -> its path.

    Raises SwiftError for a template that Ollama cannot express or that is not the one the checkpoint was trained with.
    """
    source = models.fetch(plan.model)
    tokenizer = models.load_tokenizer(plan.model, source)
    encoder = build_encoder(plan.prompt, tokenizer, catalog)
    if plan.checkpoint:
        require_same_template(plan.checkpoint, encoder, plan.prompt.ignore_mismatch)
    text = modelfile_template(encoder.template, tokenizer).text(str(source.resolve()))
    with write_folder(plan.target) as scratch:
        (scratch / FILE).write_text(text, encoding="utf-8")
    return plan.target / FILE
