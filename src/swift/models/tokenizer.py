"""Loads the tokenizer of a ModelPlan's model.

transformers' AutoTokenizer asks the model's configuration which class it is, and every configuration imports torch. For
common decoders the class is known from two names, so that a dry run does without; a test holds the table to it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift.core.errors import SwiftError, first_line
from swift.core.quick_imports import quick_imports
from swift.models.download import fetch
from swift.plan.model import ModelPlan, read_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GENERIC = "transformers.tokenization_utils_tokenizers:TokenizersBackend"
"""Takes tokenizer.json as it is."""
CLASSES: Mapping[tuple[str, str], str] = {
    ("llama", "GPT2Tokenizer"): "transformers.models.gpt2.tokenization_gpt2:GPT2Tokenizer",
    ("llama", "LlamaTokenizer"): "transformers.models.llama.tokenization_llama:LlamaTokenizer",
    ("llama", "PreTrainedTokenizer"): GENERIC,
    ("llama", "TokenizersBackend"): GENERIC,
    ("mistral", "PreTrainedTokenizer"): GENERIC,
    ("mistral", "TokenizersBackend"): GENERIC,
    ("qwen2", "Qwen2Tokenizer"): "transformers.models.qwen2.tokenization_qwen2:Qwen2Tokenizer",
    ("qwen3", "Qwen2Tokenizer"): "transformers.models.qwen2.tokenization_qwen2:Qwen2Tokenizer",
    ("gemma", "GemmaTokenizer"): "transformers.models.gemma.tokenization_gemma:GemmaTokenizer",
    ("phi3", "LlamaTokenizer"): GENERIC,
    ("phi3", "TokenizersBackend"): GENERIC,
    ("smollm3", "PreTrainedTokenizer"): GENERIC,
    ("smollm3", "TokenizersBackend"): GENERIC,
}
"""`model_type` and `tokenizer_class` without "Fast" -> the class that AutoTokenizer takes."""


def load_tokenizer(plan: ModelPlan, folder: Path | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of `folder` (by default the plan's model), with a padding token.

    Raises SwiftError when the folder has none that can be read.
    """
    folder = folder or fetch(plan)
    try:
        tokenizer = tokenizer_class(folder).from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise SwiftError(
            f"the tokenizer of {folder} cannot be loaded",
            why=first_line(error),
            next="copy tokenizer.json and tokenizer_config.json of the model into the folder",
        ) from error
    if tokenizer.chat_template is None:
        tokenizer.chat_template = processors_template(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise SwiftError(f"the tokenizer of {folder} has no padding and no end token", next="set eos_token in it")
    return tokenizer


def processors_template(folder: Path) -> str | None:
    """The chat template of `chat_template.json`, where many multimodal models of 2024 have theirs: only transformers'
    processors read it. None where there is no such file. Raises SwiftError for one that cannot be read."""
    path = folder / "chat_template.json"
    if not path.is_file():
        return None
    try:
        given: Any = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise SwiftError(f"{path} is no JSON", why=str(error), next="copy it from the model again") from error
    template = given.get("chat_template") if isinstance(given, dict) else None
    return template if isinstance(template, str) and template else None


def tokenizer_class(folder: Path) -> Any:
    """The class to load the tokenizer in `folder` with: AutoTokenizer, or what it would take."""
    place = _known_class(folder)
    with quick_imports():
        if place is None:
            from transformers import AutoTokenizer

            return AutoTokenizer
        module, _, name = place.partition(":")
        return getattr(importlib.import_module(module), name)


def _known_class(folder: Path) -> str | None:
    path, data = folder / "tokenizer_config.json", folder / "tokenizer.json"
    whole = all(file.is_file() for file in (path, data, folder / "config.json"))  # an adapter has no configuration
    if not whole or (folder / "tekken.json").is_file():
        return None
    settings: Any = json.loads(path.read_text("utf-8"))
    if not isinstance(settings, dict) or "auto_map" in settings:
        return None
    kind, name = read_config(folder).get("model_type"), str(settings.get("tokenizer_class")).removesuffix("Fast")
    if name == "LlamaTokenizer" and '"ByteLevel"' in data.read_text("utf-8"):
        return None  # it was declared by mistake, and which class is right differs
    return CLASSES.get((str(kind), name))
