"""Multimodal families by their modules alone: no weights, and nothing is trained."""

from __future__ import annotations

from collections import Counter
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.commands import test_multimodal_families, test_multimodal_florence, test_multimodal_sounds
from tests.fixtures.tiny_multimodal import KINDS, PLACES, SOUND, SPECIAL, tiny_config
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from swift.catalog import load_catalog
from swift.catalog.entries import JINJA
from swift.models.families import FAMILIES, family_of
from swift.models.families.pixtral import Pixtral
from swift.plan.tuner import Parts, TunerPlan
from swift.training.callbacks.tower_activations import keep_activations
from swift.tuners.freeze import freeze
from swift.tuners.target_modules import linear_layers, resolve_targets

SUCCESSORS = {
    "Qwen/Qwen2-Audio-7B": "qwen2_audio",
    "Qwen/Qwen2-Audio-7B-Instruct": "qwen2_audio",
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2_5_vl",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl",
    "OpenGVLab/InternVL3-8B-hf": "internvl",
    "florence-community/Florence-2-base-ft": "florence2",
    "thisisiron/Ovis2-2B-hf": "ovis2",
    "llava-hf/llava-1.5-7b-hf": "llava",
    "llava-hf/llava-v1.6-34b-hf": "llava_next",
    "llava-hf/llava-next-72b-hf": "llava_next",
    "deepseek-community/Janus-Pro-1B": "janus",
    "deepseek-community/deepseek-vl-1.3b-chat": "deepseek_vl",
    "stepfun-ai/GOT-OCR-2.0-hf": "got_ocr2",
    "zai-org/GLM-4.1V-9B-Thinking": "glm4v",
    "llava-hf/llama3-llava-next-8b-hf": "llava_next",
}
"""What is named in place of models that only code of their repository can run: the kind it is of."""
COUNTS = {
    "deepseek_vl": (12, 2, 14),
    "glm4v": (10, 4, 12),
    "got_ocr2": (8, 1, 14),
    "janus": (16, 2, 14),
    "llava_next_video": (12, 2, 14),
    "pixtral": (14, 2, 14),
    "florence2": (16, 1, 32),
    "gemma3": (12, 0, 14),
    "idefics3": (12, 1, 14),
    "internvl": (12, 2, 14),
    "llava": (12, 2, 14),
    "llava_next": (12, 2, 14),
    "llava_onevision": (15, 2, 14),
    "mllama": (18, 1, 21),
    "ovis2": (15, 0, 14),
    "paligemma": (12, 1, 14),
    "qwen2_5_vl": (10, 2, 14),
    "qwen2_audio": (12, 1, 14),
    "qwen2_vl": (8, 2, 14),
    "qwen3_vl": (8, 4, 14),
    "smolvlm": (12, 1, 14),
}
"""Linear layers of tower, projector and decoder of each tiny model, two layers each."""


@cache
def without_weights(kind: str) -> tuple[PreTrainedModel, Parts]:
    config, _ = tiny_config(kind, 2000, [*SPECIAL.values(), *SOUND, *PLACES].index)
    family = family_of(config)
    with torch.device("meta"):
        return family.auto_class.from_config(config), family.parts


def counts(paths: list[str], parts: Parts) -> tuple[int, ...]:
    found = Counter(parts.part_of(path) for path in paths)
    return found["tower"], found["projector"], found["decoder"]


def targets(kind: str, **given: Any) -> tuple[int, ...]:
    """How many linear layers of each part are trained."""
    model, parts = without_weights(kind)
    names = resolve_targets(model, TunerPlan(sft_type="lora", parts=parts, **given))
    chosen = [path for path in linear_layers(model) if any(path == n or path.endswith(f".{n}") for n in names)]
    return counts(chosen, parts)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_stand_on_decoder_and_projector_and_in_the_tower_only_where_wanted(kind: str) -> None:
    _, projector, decoder = COUNTS[kind]
    model, parts = without_weights(kind)
    assert counts(linear_layers(model), parts) == COUNTS[kind]
    assert targets(kind) == (0, projector, decoder)
    assert targets(kind, freeze_vit=False) == (0, projector, decoder)
    assert targets(kind, target_modules=("ALL",)) == (0, projector, decoder)
    assert targets(kind, target_modules=("ALL",), freeze_vit=False) == COUNTS[kind]
    # A name that the tower has too does not reach into it.
    assert targets(kind, target_modules=("q_proj",))[0] == 0
    regex = resolve_targets(model, TunerPlan(sft_type="lora", parts=parts, target_regex=".*", freeze_vit=True))
    assert counts([path for path in linear_layers(model) if path in regex], parts) == (0, projector, decoder)


@pytest.mark.parametrize("kind", KINDS)
def test_full_tuning_freezes_the_tower_and_nothing_else(kind: str) -> None:
    model, parts = without_weights(kind)
    freeze(model, TunerPlan(sft_type="full", target_modules=(), parts=parts, freeze_vit=True))
    frozen = {parts.part_of(name) for name, parameter in model.named_parameters() if not parameter.requires_grad}
    trained = {parts.part_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert frozen == {"tower"} and trained == {"projector", "decoder"}
    freeze(model, TunerPlan(sft_type="full", target_modules=(), parts=parts))
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_the_tower_keeps_its_activations_where_it_should(kind: str) -> None:
    model, parts = without_weights(kind)
    model.activation_checkpointing_enable({"use_reentrant": False})
    keep_activations(model, parts.tower)
    layers = [(path, m) for path, m in model.named_modules() if isinstance(m, GradientCheckpointingLayer)]
    again = {parts.part_of(path) for path, layer in layers if layer.gradient_checkpointing}
    assert again == {"decoder"}
    without = ("florence2", "mllama")  # whose towers have none
    assert kind in without or any(parts.part_of(path) == "tower" for path, _ in layers)
    model.activation_checkpointing_disable()


def test_every_family_has_a_tiny_model_that_is_trained() -> None:
    """What the list of supported models marks as trained here."""
    assert (
        set(FAMILIES)
        == set(KINDS)
        == {
            *test_multimodal_families.KINDS,
            test_multimodal_sounds.KIND,
            test_multimodal_florence.KIND,
        }
    )


def test_every_multimodal_type_is_carried_out_or_names_a_model_that_is() -> None:
    catalog = load_catalog()
    models = [model for model in catalog.models.values() if model.multimodal]
    names = {model.template for model in models} - {JINJA}  # the family of a model without one is its architecture's
    templates = {name: catalog.templates.get(name) for name in names}
    for template in templates.values():
        assert (template.family in FAMILIES) != (template.successor is not None), template.name
    assert {template.successor for template in templates.values()} - {None} == set(SUCCESSORS)
    assert set(SUCCESSORS.values()) <= set(FAMILIES)


def test_a_line_of_an_image_is_refused_where_nothing_is_left_of_it_when_resized() -> None:
    config, processor = tiny_config("pixtral", 2000, [*SPECIAL.values()].index)
    family = Pixtral(config, SimpleNamespace(**processor), "[IMG]")
    assert family.written([(70, 700)])[0].count("[IMG]") == 5
    with pytest.raises(ValueError, match="nothing is left of it at 70 pixels"):
        family.written([(5, 640)])
