"""From a plan to a running engine: fetch, tokenizer and encoder first (seconds), the weights after."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift import models
from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.core.quick_imports import quick_imports
from swift.core.transaction import write_file
from swift.core.writable import writing
from swift.engines.base import Engine, SamplingParams
from swift.engines.model_images import media_processor_of
from swift.models.ends import end_ids, generation_config
from swift.models.limits import limits_of
from swift.plan.infer import InferPlan, SamplingPlan, not_followed, plan_sampling
from swift.plan.model import read_config
from swift.plan.reward_model import classifies, has_head
from swift.prompts.encode import Encoder, build_encoder
from swift.prompts.parity import FILE as CERTIFICATE
from swift.prompts.parity import require_same_template, say_differences_from_own

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from swift.models.families import MediaProcessor


@dataclass(frozen=True)
class Prepared:
    """What answering needs besides the engine; made without loading weights, so that mistakes show early."""

    source: Path
    """The model's folder on this machine."""
    tokenizer: Any
    encoder: Encoder
    sampling: SamplingPlan
    one_turn: bool
    """A base model's template: there is no second turn."""
    heads: Mapping[str | None, Path] = field(default_factory=dict)
    """Where the value heads of reward models lie, by the adapter's name; None is the model itself."""
    images: MediaProcessor | None = None
    """What makes pixels of images; None for a model of text."""
    encoders: Mapping[str | None, Encoder] = field(default_factory=dict)
    """Those of adapters that were trained with another system text, by name."""

    def sampling_of(self, room: int, *, tools: bool = False, seed: int | None = None) -> SamplingParams:
        """How an answer is sampled when nothing more is said; it may have `room` tokens at most.

        `tools` says whether the conversation has tools, whose format has ends of its own.
        """
        plan, encoder = self.sampling, self.encoder
        return SamplingParams(
            max_tokens=max(1, min(plan.max_new_tokens, room)),
            temperature=plan.temperature,
            top_k=plan.top_k,
            top_p=plan.top_p,
            repetition_penalty=plan.repetition_penalty,
            num_beams=plan.num_beams,
            length_penalty=plan.length_penalty,
            seed=seed,
            stop=(*encoder.stop_strings, *(encoder.tool_stop_strings if tools else ()), *plan.stop_words),
            stop_token_ids=encoder.stop_token_ids,
        )


def prepare(plan: InferPlan, catalog: Catalog, *, scores: bool = False) -> Prepared:
    """Fetch the model's files, build tokenizer and encoder, settle the sampling.

    Raises SwiftError, also for a reward model, which answers nothing; unless the surface gives `scores`.
    """
    source = models.fetch(plan.model)
    heads = _heads(plan, source)
    mute = [folder for name, folder in heads.items() if name is not None or plan.model.adapter is None]
    if mute and not scores:
        folder = mute[0]
        raise SwiftError(
            f"{folder} is a reward model: it scores answers and writes none",
            next=f"swift deploy --ckpt_dir {folder} gives scores (POST /v1/score); here, give the model that answers",
        )
    _check_heads(plan, source, heads)
    layers = filter(None, [plan.engine.layers, plan.engine.merged])
    for adapter in (*(folder for _, folder in plan.engine.adapters), *layers):
        models.check_base(adapter, plan.model, source)
    tokenizer = models.load_tokenizer(plan.model, source)
    models.embedded_tokens(tokenizer, limits_of(plan.model, source).vocab_size)
    own = generation_config(Path(plan.model.adapter) if plan.model.adapter else source) or generation_config(source)
    unheard = not_followed(own)
    if unheard:
        log.warning("generation_config.json sets %s, which answers do not follow here", ", ".join(unheard))
    sampling = plan_sampling(plan.generate, own)
    images = media_processor_of(plan.model, source, tokenizer)
    encoder = build_encoder(plan.prompt, tokenizer, catalog, images)
    tuned = dict.fromkeys(filter(None, [plan.checkpoint, *(folder for _, folder in plan.engine.adapters)]))
    if not any((folder / CERTIFICATE).is_file() for folder in tuned):  # training told what prompts it was done with
        say_differences_from_own(encoder)
    for folder in tuned:
        require_same_template(folder, encoder, plan.prompt.ignore_mismatch)
    encoders: dict[str | None, Encoder] = {
        adapter: build_encoder(replace(plan.prompt, system=system), tokenizer, catalog, images)
        for adapter, system in plan.engine.systems.items()
        if system != plan.prompt.system
    }
    name = encoder.template_type
    one_turn = name in catalog.templates and catalog.templates.get(name).generation
    return Prepared(source, tokenizer, encoder, sampling, one_turn, heads, images, encoders)


def _heads(plan: InferPlan, source: Path) -> dict[str | None, Path]:
    """Where the value heads of the model (None) and its adapters lie; empty for models that write answers."""
    return {name: folder for name, folder in ((None, source), *plan.engine.adapters) if has_head(folder)}


def _check_heads(plan: InferPlan, source: Path, heads: Mapping[str | None, Path]) -> None:
    """Raise SwiftError for scores that the engine does not give, and answers from a model without a head for tokens."""
    if heads and plan.engine.backend != "pt":
        raise SwiftError(
            f"{plan.engine.backend} gives no scores here, and {next(iter(heads.values()))} is a reward model",
            where="--infer_backend",
            next="use --infer_backend pt",
        )
    if classifies(read_config(source).get("architectures")):
        for name, folder in plan.engine.adapters:
            if name not in heads:
                raise SwiftError(
                    f"the adapter {folder} has no value head, and its model {source} no head for tokens",
                    next="name adapters of the language model that it was made from",
                )


async def start(plan: InferPlan, prepared: Prepared) -> Engine:
    """Load the weights and start the engine the plan names. Raises SwiftError when it cannot serve the model."""
    engine, source, tokenizer = plan.engine, prepared.source, prepared.tokenizer
    adapters = dict(engine.adapters)

    def admit(adapter: Path) -> None:
        models.check_base(adapter, plan.model, source)

    if engine.backend == "vllm":
        from swift.engines.vllm import VllmEngine, vllm_settings

        settings = vllm_settings(
            engine.vllm,
            memory_given=engine.memory_given,
            dtype=plan.model.dtype,
            seed=engine.seed,
            max_logprobs=engine.max_logprobs,
            **_changes(plan, prepared),
        )
        return await VllmEngine.start(source, tokenizer, settings, adapters, admit, prepared.images)
    if engine.backend == "lmdeploy":
        return await _lmdeploy(plan, prepared)
    if engine.backend == "llamacpp":
        return await asyncio.to_thread(_llamacpp, plan, prepared)

    with quick_imports():
        from swift.engines.torch import TorchEngine

    _check_length(engine.vllm.max_model_len, limits_of(plan.model, source).context_length)
    load = partial(models.load_model, plan.model, source)
    if plan.model.quant is not None and plan.model.quant.method == "torch":
        from swift.engines.weight_only import load_quantized

        load = partial(load_quantized, plan.model, source, tokenizer)
    if engine.layers is not None:
        load = partial(_with_layers, load, engine.layers)
    return TorchEngine(
        load,
        tokenizer,
        adapters=adapters,
        heads=prepared.heads,
        admit=admit,
        max_model_len=engine.vllm.max_model_len,
        images=prepared.images,
    )


def _changes(plan: InferPlan, prepared: Prepared) -> dict[str, Any]:
    """What --model_kwargs changes for vLLM, of the model and of its image processor, and what adapters may change."""
    from swift.engines.given_media import require_same_places
    from swift.engines.vllm_media import adapts_all

    config, images = models.load_config(plan.model, prepared.source).to_dict(), prepared.images
    require_same_places("vLLM", images, config)
    of_model = {name: value for name, value in plan.model.model_kwargs.items() if name in config}
    of_images = {} if images is None or "size" not in images.facts else {"size": images.facts["size"]}
    return {"hf_overrides": of_model, "mm_processor_kwargs": of_images, "adapts_all": adapts_all(images)}


async def _lmdeploy(plan: InferPlan, prepared: Prepared) -> Engine:
    from swift.engines.given_media import limits_of, require_same_places
    from swift.engines.lmdeploy import LmdeployEngine, lmdeploy_settings
    from swift.engines.lmdeploy_media import require_decoder

    engine, images = plan.engine, prepared.images
    if images is not None:
        config = models.load_config(plan.model, prepared.source).to_dict()
        require_same_places("LMDeploy", images, config)
        require_decoder(images, config)
    settings = lmdeploy_settings(
        engine.lmdeploy,
        session_len=engine.vllm.max_model_len,
        dtype=plan.model.dtype,
        limits=limits_of(engine.vllm.limit_mm_per_prompt),
    )
    return await LmdeployEngine.start(prepared.source, prepared.tokenizer, settings, dict(engine.adapters), images)


def _llamacpp(plan: InferPlan, prepared: Prepared) -> Engine:
    """The engine on a file of the cache, which is made where there is none."""
    with quick_imports():
        from swift.engines.gguf_cache import cached_gguf
        from swift.engines.llamacpp import LlamaCppEngine, room

    engine, source = plan.engine, prepared.source
    file = cached_gguf(plan.model, source, prepared.encoder, engine.gguf_type or "f16", engine.merged, engine.layers)
    config = models.load_config(plan.model, source)
    context, places = room(config.to_dict(), given=engine.vllm.max_model_len, most=engine.vllm.max_num_seqs)
    return LlamaCppEngine(
        file,
        prepared.tokenizer,
        context=context,
        places=places,
        ends=end_ids(source, prepared.tokenizer),
        vocabulary=config.vocab_size,
    )


def _with_layers(load: Callable[[], PreTrainedModel], layers: Path) -> PreTrainedModel:
    from swift.tuners.swift_layout import load_layers

    return load_layers(load(), layers)


def _check_length(given: int | None, context: int | None) -> None:
    if given and context and given > context:
        raise SwiftError(
            f"--max_model_len {given} is more than the {context} positions of the model",
            where="--max_model_len",
            next="leave it out; --rope_scaling stretches rotary positions",
        )


def write_generation_config(folder: Path, sampling: SamplingPlan) -> None:
    """Put the sampling in use into `folder` as generation_config.json; what else the file says stays."""
    kept = {
        name: value
        for name, value in generation_config(folder).items()
        if name not in ("temperature", "top_k", "top_p")
    }
    text = json.dumps({**kept, **sampling.generation_config()}, indent=2) + "\n"
    path = folder / "generation_config.json"
    with writing(path, where="--overwrite_generation_config", next="make room, or leave the flag out"):
        write_file(path, text)
    log.info("wrote %s", path)
