"""Which tokens end an answer, by the word of a model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError


def end_ids(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """The end of the tokenizer and those of generation_config.json, each once. Raises SwiftError for a broken file."""
    path = folder / "generation_config.json"
    try:
        given = json.loads(path.read_text("utf-8")).get("eos_token_id") if path.is_file() else None
    except (ValueError, AttributeError) as error:
        raise SwiftError(f"{path} is not JSON", why=str(error), next="copy the model again") from error
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return tuple(dict.fromkeys([*own, *([given] if isinstance(given, int) else given or [])]))
