"""Tokenizers for prompt tests: the golden ones, and SmolLM2's with the special tokens of a chat template added."""

from __future__ import annotations

import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from swift.catalog import load_catalog
from swift.plan.prompt import PromptPlan
from swift.prompts.encode import Encoder, build_encoder
from swift.prompts.images import MediaTokens

FIXTURES = Path(__file__).parent.parent / "fixtures"
GOLDEN = FIXTURES / "golden"
TEMPLATES = FIXTURES / "chat_templates"
_SPECIAL = re.compile(
    r"<\|[A-Za-z_\d]+\|>|<｜[^｜\s]+｜>|\[/?[A-Z_]+\]|</?(?:start_of_turn|end_of_turn|bos|eos|end_of_utterance)>"
)


def read_gz(name: str) -> Any:
    return json.loads(gzip.decompress((GOLDEN / name).read_bytes()))


@pytest.fixture(scope="session")
def golden_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The tokenizer of golden records by name. All but qwen3 are SmolLM2's with other special tokens."""
    base = json.loads(gzip.decompress((FIXTURES / "tokenizers" / "smollm2" / "tokenizer.json.gz").read_bytes()))
    described = read_gz("tokenizers.json.gz")
    made: dict[str, Any] = {}

    def tokenizer(name: str) -> Any:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            this = described[name]
            if "file" in this:
                (folder / "tokenizer.json").write_bytes(lzma.decompress((GOLDEN / this["file"]).read_bytes()))
            else:
                (folder / "tokenizer.json").write_text(json.dumps({**base, **this["changes"]}))
            (folder / "tokenizer_config.json").write_text(json.dumps(this["config"]))
            made[name] = PreTrainedTokenizerFast.from_pretrained(folder)
        return made[name]

    return tokenizer


@pytest.fixture(scope="session")
def chat_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """SmolLM2's tokenizer with a published chat template and the special tokens that it writes."""
    base = gzip.decompress((FIXTURES / "tokenizers" / "smollm2" / "tokenizer.json.gz").read_bytes())
    made: dict[str, Any] = {}
    ends = {
        "gemma2": ("<bos>", "<eos>"),
        "gemma3": ("<bos>", "<eos>"),
        "llama3_1_tools": ("<|begin_of_text|>", "<|eot_id|>"),
    }

    def tokenizer(name: str) -> Any:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            (folder / "tokenizer.json").write_bytes(base)
            text = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
            bos, eos = ends.get(name, ("<s>", "</s>"))
            config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
            (folder / "tokenizer_config.json").write_text(json.dumps({**config, "bos_token": bos, "eos_token": eos}))
            made[name] = PreTrainedTokenizerFast.from_pretrained(folder)
            made[name].add_special_tokens({"additional_special_tokens": sorted(set(_SPECIAL.findall(text)))})
            made[name].chat_template = text
        return made[name]

    return tokenizer


@pytest.fixture(scope="session")
def encoder_of() -> Callable[..., Encoder]:
    """An encoder for a template type and a tokenizer; other keywords than `images` are fields of the plan."""
    catalog = load_catalog()

    def build(template_type: str, tokenizer: Any, images: MediaTokens | None = None, **plan: Any) -> Encoder:
        return build_encoder(PromptPlan(template_type=template_type, **plan), tokenizer, catalog, images)

    return build


@pytest.fixture(scope="session")
def shown() -> Callable[..., str]:
    """An encoded example as text, what is trained in ⟦⟧."""

    def show(encoder: Encoder, encoded: Any) -> str:
        text, before = "", False
        for token, label in zip(encoded.input_ids, encoded.labels, strict=True):
            trained = label != -100
            text += "⟦" * (trained and not before) + "⟧" * (before and not trained)
            text += encoder.tokens.decode([token])
            before = trained
        return text + "⟧" * before

    return show
