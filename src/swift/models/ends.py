"""What a model's folder says of its answers: how they are sampled, and which tokens end them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError


def end_ids(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """The end of the tokenizer and those of generation_config.json, each once. Raises SwiftError for a broken file."""
    given = generation_config(folder).get("eos_token_id")
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return tuple(dict.fromkeys([*own, *([given] if isinstance(given, int) else given or [])]))


def generation_config(folder: Path) -> Mapping[str, Any]:
    """generation_config.json, empty where there is none. Raises SwiftError when it is not JSON."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return {}
    try:
        fields = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise SwiftError(f"{path} is not JSON", why=str(error), next="copy the model again") from error
    return fields if isinstance(fields, dict) else {}
