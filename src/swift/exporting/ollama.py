"""A folder that Ollama takes as it is: the weights as a GGUF file, and a Modelfile that builds our prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from swift import models
from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.core.transaction import write_folder
from swift.core.writable import require_writable, writing
from swift.exporting.to_gguf import check_existing, make_encoder, require_convertible, write_gguf
from swift.models.ends import end_ids, generation_config
from swift.models.limits import limits_of
from swift.plan.gguf import FILE
from swift.plan.infer import SamplingPlan, plan_sampling
from swift.plan.ollama import OllamaPlan, converts
from swift.prompts.encode import Encoder, build_encoder
from swift.prompts.jinja import JinjaTemplate
from swift.prompts.ollama import Modelfile, modelfile_template
from swift.prompts.parity import differences_from_own, require_known_tokens, require_same_template
from swift.prompts.types import Conversation, Message

MODELFILE = "Modelfile"
QUESTION = Conversation((Message("user", "What is 2+2?"),))
CONTEXT = 8192
"""Tokens that Ollama keeps room for, at most, where nobody asks for more."""
ROOM = "make room, or give --ollama_output_dir a folder where there is some"


def make_modelfile(plan: OllamaPlan, catalog: Catalog) -> tuple[Modelfile, Encoder]:
    """The plan's prompt as Ollama takes it; no weights are loaded.

    Raises SwiftError for a template that Ollama cannot express or that is not the one the checkpoint was trained with.
    """
    encoder = make_encoder(plan, catalog)
    require_known_tokens(encoder, {"input_ids": encoder.prompt_ids(QUESTION)})
    if isinstance(encoder.template, JinjaTemplate):
        raise SwiftError("Ollama cannot take a Jinja chat template", next=_in_its_place(plan, catalog, encoder))
    return modelfile_template(encoder.template, encoder.tokens.tokenizer), encoder


def _in_its_place(plan: OllamaPlan, catalog: Catalog, encoder: Encoder) -> str:
    """Which registered template writes the prompts of a tokenizer's own, if one does."""
    tokenizer = encoder.tokens.tokenizer
    for name in catalog.templates:
        try:
            other = build_encoder(replace(plan.prompt, template_type=name), tokenizer, catalog)
            require_known_tokens(other, {"input_ids": other.prompt_ids(QUESTION)})
            modelfile_template(other.template, tokenizer)
        except SwiftError:  # it asks for tokens that there are not, or is none that Ollama can take
            continue
        if all("tool" in line.partition(":")[0] for line in differences_from_own(other)):
            return f"--template_type {name} writes the same prompts" + _but_for_tools(plan, other)
    return "no registered template writes the same prompts; --to_gguf q8_0 makes a file that holds the chat template"


def _but_for_tools(plan: OllamaPlan, other: Encoder) -> str:
    """What else to say where the checkpoint refuses the other template for how it writes tools."""
    try:
        if plan.checkpoint is not None:
            require_same_template(plan.checkpoint, other, ignore=False)
    except SwiftError:
        return ", but for tools: give --ignore_template_mismatch true with it"
    return ""


def require_weights(plan: OllamaPlan, encoder: Encoder) -> None:
    """Raise SwiftError for a model of which no GGUF file can be made, though its architecture is one of those."""
    if converts(models.fetch(plan.model)):
        require_convertible(plan, encoder)


def write_modelfile(modelfile: Modelfile, encoder: Encoder, plan: OllamaPlan) -> Path:
    """Write the Modelfile and the weights into the plan's folder. -> the Modelfile.

    Raises SwiftError for a model that does not convert or a full disk, CheckFailed when llama.cpp does not answer as
    the model does; nothing is under the folder's name then.
    """
    source = models.fetch(plan.model)
    own = generation_config(source)
    sampling = plan_sampling(plan.generate, own)
    ends = dict.fromkeys([*end_ids(source, encoder.tokens.tokenizer), *encoder.stop_token_ids])
    tokens = encoder.tokens.tokenizer.convert_ids_to_tokens(list(ends))
    stop = tuple(dict.fromkeys([*modelfile.stop, *tokens, *encoder.stop_strings, *sampling.stop_words]))
    modelfile = replace(modelfile, stop=stop, parameters=_parameters(plan, sampling, source))
    if plan.target.exists():
        check_existing(plan, encoder, "--ollama_output_dir")
        return plan.target / MODELFILE
    require_writable(plan.target.parent, "--ollama_output_dir", ROOM)
    with writing(plan.target, where="--ollama_output_dir", next=ROOM), write_folder(plan.target) as scratch:
        place = f"./{FILE}"
        if converts(source):
            write_gguf(plan, encoder, scratch)
        else:
            place = str(source.resolve())
            log.warning(
                "this architecture makes no GGUF file here: Ollama is pointed at %s, and reads it itself", place
            )
        (scratch / MODELFILE).write_text(modelfile.text(place), encoding="utf-8")
    return plan.target / MODELFILE


def _parameters(plan: OllamaPlan, sampling: SamplingPlan, source: Path) -> dict[str, float]:
    """All that Ollama would take from its own defaults (temperature 0.8, penalty 1.1, a short context)."""
    length = limits_of(plan.model, source).context_length
    short: int | None = None
    if converts(source):
        from swift.models.gguf.architectures import short_positions

        short = short_positions(models.load_config(plan.model, source).to_dict())
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "repeat_penalty": sampling.repetition_penalty,
        "num_ctx": plan.context or min(length or CONTEXT, short or CONTEXT, CONTEXT),
    }
