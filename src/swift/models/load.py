"""Loads the configuration and the weights that a ModelPlan names."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError, first_line
from swift.core.log import log
from swift.models import quantize
from swift.models.context_window import context_length, rope_kinds, stated_length
from swift.models.download import fetch
from swift.models.families import family_of, is_multimodal
from swift.models.quantize import TORCH_DTYPES
from swift.plan.model import ModelPlan, RopePlan
from swift.plan.quantization import stored_quant
from swift.plan.reward_model import classifies

UNREADABLE = (OSError, EOFError, UnpicklingError, SafetensorError)
"""What readers of weight files raise for a damaged one, besides RuntimeError and ValueError."""
SHORT_SIGHTED = ("sliding_attention", "chunked_attention")
"""Kinds of layers that see a window only, whose positions need no stretching."""


def load_model(plan: ModelPlan, folder: Path | None = None) -> PreTrainedModel:
    """The causal language model in the plan's dtype, on its devices, in evaluation mode.

    Raises SwiftError when the architecture is unknown to transformers or the weights do not fit the configuration.
    """
    folder = folder or fetch(plan)
    config = load_config(plan, folder)
    quantize.check_folder_allows(plan.quant, config, folder)
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    model, loading = _from_pretrained(plan, folder, config)
    _check_loading(folder, loading)
    quantize.finish(model, plan.quant, TORCH_DTYPES[plan.dtype], full_precision(config))
    model.config._name_or_path = plan.source
    model.name_or_path = plan.source
    return model


def _from_pretrained(plan: ModelPlan, folder: Path, config: PretrainedConfig) -> tuple[PreTrainedModel, dict[str, Any]]:
    stored = stored_quant(config.to_dict())
    try:
        with _prints_to_log() if stored else nullcontext():
            loaded: Any = auto_class(config).from_pretrained(
                folder,
                config=config,
                dtype=TORCH_DTYPES[plan.dtype],
                attn_implementation=None if plan.attn == "sdpa" else plan.attn,  # None: SDPA if the model can
                device_map=plan.device_map,
                max_memory=dict(enumerate(plan.max_memory)) if plan.max_memory else None,
                quantization_config=quantize.transformers_config(plan.quant, full_precision(config)),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # _check_loading refuses them, by name
            )
    except (*UNREADABLE, ImportError, RuntimeError, ValueError) as error:
        if str(error).startswith("Unrecognized configuration class"):
            raise SwiftError(
                f"the language model of {folder} ({config.model_type}) cannot be loaded alone",
                why="transformers knows no causal language model for its text part",
                next="choose a model of text",
            ) from error
        kind = f"are quantized ({stored}) and " if stored else ""
        raise SwiftError(f"the weights in {folder} {kind}cannot be loaded here", why=first_line(error)) from error
    return loaded


@contextmanager
def _prints_to_log() -> Iterator[None]:
    """Standard output carries answers; gptqmodel prints a banner and its choices there."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        yield
    log.debug("%s", printed.getvalue().strip())


def auto_class(config: PretrainedConfig) -> Any:
    """The class of transformers that makes the model of a configuration."""
    return family_of(config).auto_class if is_multimodal(config) else AutoModelForCausalLM


def full_precision(config: PretrainedConfig) -> tuple[str, ...]:
    """Paths of the modules that quantization leaves as they are: tower and projector of a multimodal model."""
    if not is_multimodal(config):
        return ()
    parts = family_of(config).parts
    return (*parts.tower, *parts.projector)


def load_config(plan: ModelPlan, folder: Path) -> PretrainedConfig:
    """`config.json` with the plan's overrides and stretched positions."""
    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, KeyError) as error:
        raise SwiftError(
            f"{folder / 'config.json'} is of an architecture that transformers cannot load",
            why=first_line(error),
            next="pip install -U transformers, or choose another model",
        ) from error
    if config.is_encoder_decoder and not is_multimodal(config):
        raise SwiftError(
            f"{folder / 'config.json'} is of an encoder with a decoder ({config.model_type})",
            why="only its decoder would be loaded, without the encoder that reads the prompt",
            next="choose a model that is a decoder alone",
        )
    if classifies(config.architectures):
        # A classifier has no head for tokens. Its embeddings stand in for one, so that no numbers are made up.
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = True
    _override(config, plan)
    if plan.rope_scaling:
        _stretch(config, plan.rope_scaling)
    return config


IMPOSSIBLE = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
    StrictDataclassError,
)
"""What a configuration of impossible values makes transformers raise, when it is set or when a model is made of it."""


def _override(config: PretrainedConfig, plan: ModelPlan) -> None:
    known = config.to_dict()
    try:
        _set(config, plan, known)
        if any(name in known for name in plan.model_kwargs):
            with torch.device("meta"):
                auto_class(config).from_config(deepcopy(config))
    except IMPOSSIBLE as error:
        raise SwiftError(
            "--model_kwargs makes a model that there cannot be",
            where="--model_kwargs",
            why=f"{type(error).__name__}: {first_line(error)}",
        ) from error


def _set(config: PretrainedConfig, plan: ModelPlan, known: Mapping[str, Any]) -> None:
    for name, value in plan.model_kwargs.items():
        if name not in known:
            if is_multimodal(config):
                continue  # the image processor's, who knows its own names
            raise SwiftError(
                f"--model_kwargs names {name}, which {plan.model_type} does not have",
                where="--model_kwargs",
                next=suggestion(name, known) or f"leave {name} out; config.json of the model has the names",
            )
        setattr(config, name, value)


def _stretch(config: PretrainedConfig, rope: RopePlan) -> None:
    """Scale rotary positions by the smallest whole factor that makes the length fit, where it does not fit yet."""
    text = config.get_text_config(decoder=True)
    layers, stated, context = rope_kinds(config), stated_length(config), context_length(config)
    if stated is None or context is None or not layers:
        raise SwiftError(
            f"--rope_scaling {rope.kind} needs rotary positions, which this model does not have", where="--rope_scaling"
        )
    if context >= rope.length:
        log.info("--rope_scaling %s: the model has positions for %d tokens as it is", rope.kind, context)
        return
    growth = math.ceil(rope.length / context)
    for kind, parameters in layers.items():
        if kind in SHORT_SIGHTED:
            continue
        if parameters["rope_type"] not in ("default", rope.kind):
            raise SwiftError(
                f"--rope_scaling {rope.kind} would take the place of the model's own ({parameters['rope_type']})",
                where="--rope_scaling",
                why=f"with its own it has positions for {context} tokens",
                next="leave --rope_scaling out, or give all rope_parameters with --model_kwargs",
            )
        own = {**parameters, "rope_type": rope.kind, "factor": float(parameters.get("factor", 1) * growth)}
        # YaRN has to know where the positions ended that the model was trained on.
        layers[kind] = {"original_max_position_embeddings": stated, **own} if rope.kind == "yarn" else own
    text.rope_parameters = layers.get("", layers)
    if rope.kind != "dynamic":  # which counts from the stated length
        text.max_position_embeddings = context * growth


def _check_loading(folder: Path, loading: dict[str, Any]) -> None:
    """Weights that transformers had to invent, or could not place, mean the files are not this model's."""
    missing = sorted(f"{key} is missing" for key in loading["missing_keys"])
    shapes = sorted(
        f"{key} is {tuple(stored)} in the files and {tuple(wanted)} by config.json"
        for key, stored, wanted in loading["mismatched_keys"]
    )
    faults = missing or shapes
    if faults:
        raise SwiftError(
            f"the weights in {folder} do not fit its config.json",
            why=faults[0] + (f", and {len(faults) - 1} more" if len(faults) > 1 else ""),
            next="copy config.json and the weights from one and the same model",
        )
