"""The GGUF files that the llama.cpp engine runs: made once from a checkpoint, checked, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from swift import models, tuners
from swift.core.environment import cache_home
from swift.core.log import log
from swift.core.transaction import fault, sha256, write_cached
from swift.core.writable import require_writable, writing
from swift.engines.gguf_check import check_tokens
from swift.engines.gguf_conversion import convert, require_packages
from swift.models.gguf.unpack import origin_of
from swift.plan.gguf import FILE, REPORT, GgufType
from swift.plan.model import ModelPlan
from swift.prompts.encode import Encoder
from swift.tuners.swift_layout import load_layers
from swift.tuners.tensor_files import write_model

VERSION = 1
"""Of what a file holds: a new one is made after a change."""
TUNED = ("*.safetensors", "adapter_model.bin", "adapter_config.json")
"""What an adapter is."""
FEWER_TOKENS = 32
"""Of each greedy answer that is compared: somebody waits for the first answer of the engine."""
ROOM = "make room, or set XDG_CACHE_HOME to a folder where there is some"


def cached_gguf(
    plan: ModelPlan, source: Path, encoder: Encoder, type: GgufType, adapter: Path | None, layers: Path | None
) -> Path:
    """The file of the plan's model in `source`, with an adapter or the layers of LLaMA-Pro merged into it.

    It is made where there is none yet; a model that came as a GGUF file has its own. Raises SwiftError for a model that
    does not convert, and CheckFailed when llama.cpp does not answer as the model does.
    """
    origin = origin_of(source)
    if origin is not None and adapter is None and layers is None:
        check_tokens(origin, encoder, models.load_config(plan, source).vocab_size)
        return origin
    request = digest(plan, source, encoder, adapter or layers)
    folder = cache_home() / "gguf" / f"{plan.model_type}-{type}-{request}"
    if fault(folder, hashes=False) is None:
        return folder / FILE
    require_packages()
    require_writable(folder.parent, "--infer_backend llamacpp", ROOM)
    exact = replace(plan, dtype="fp32", attn="sdpa", quant=None)
    with writing(folder, where="--infer_backend llamacpp", next=ROOM), write_cached(folder) as scratch:
        if scratch is None:
            return folder / FILE
        log.info("converting %s to GGUF %s, once: %s", plan.source, type, folder)
        model: PreTrainedModel | None = None
        if adapter is not None or layers is not None:
            base = models.load_model(exact, source)
            merged: Any = tuners.merge(tuners.load(base, adapter)) if adapter else load_layers(base, layers or source)
            model = merged
            write_model(merged, scratch / "merged", safetensors=True)
        convert(
            source if model is None else scratch / "merged",
            models.load_config(plan, source) if model is None else model.config,
            encoder,
            scratch / FILE,
            type=type,
            name=plan.source,
            reference=lambda: models.load_model(exact, source) if model is None else model,
            new_tokens=FEWER_TOKENS,
            beside=folder.with_name(f"{folder.name}.{REPORT}"),
            request=request,
        )
        shutil.rmtree(scratch / "merged", ignore_errors=True)
    return folder / FILE


def digest(plan: ModelPlan, source: Path, encoder: Encoder, tuned: Path | None) -> str:
    """Another one for everything that a file depends on but its type."""
    tokenizer = encoder.tokens.tokenizer
    files = (
        sorted(path for path in tuned.rglob("*") if path.suffix in (".safetensors", ".bin", ".json")) if tuned else []
    )
    facts = {
        "version": VERSION,
        "weights": models.identity(source),
        "config": (source / "config.json").read_text("utf-8"),
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "chat_template": tokenizer.chat_template,
        "ends": encoder.stop_token_ids,
        "overrides": [str(plan.rope_scaling), dict(plan.model_kwargs)],
        "tuned": {path.name: sha256(path) for path in files},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
