"""A Modelfile beside nothing else: Ollama reads the weights where they are and builds our prompt."""

from __future__ import annotations

from pathlib import Path

from swift import models
from swift.catalog import Catalog
from swift.core.transaction import write_folder
from swift.core.writable import writing
from swift.plan.ollama import OllamaPlan
from swift.prompts.encode import build_encoder
from swift.prompts.ollama import Modelfile, modelfile_template
from swift.prompts.parity import require_same_template

FILE = "Modelfile"


def make_modelfile(plan: OllamaPlan, catalog: Catalog) -> Modelfile:
    """The plan's prompt as Ollama takes it; no weights are loaded.

    Raises SwiftError for a template that Ollama cannot express or that is not the one the checkpoint was trained with.
    """
    tokenizer = models.load_tokenizer(plan.model)
    encoder = build_encoder(plan.prompt, tokenizer, catalog)
    if plan.checkpoint:
        require_same_template(plan.checkpoint, encoder, plan.prompt.ignore_mismatch)
    return modelfile_template(encoder.template, tokenizer)


def write_modelfile(modelfile: Modelfile, plan: OllamaPlan) -> Path:
    """Write `FILE`, which names the weights of the plan's model, into the plan's folder. -> its path."""
    text = modelfile.text(str(models.fetch(plan.model).resolve()))
    with writing(plan.target, where="--ollama_output_dir"), write_folder(plan.target) as scratch:
        (scratch / FILE).write_text(text, encoding="utf-8")
    return plan.target / FILE
