"""Flags that take a JSON object: a dict, JSON text, or the path of a JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.core.strict_json import read_json


def json_mapping(given: Any, flag: str) -> dict[str, Any]:
    """The object that a flag was given; none is an empty one. Raises SwiftError for anything else."""
    if given is None or given == "":
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    text = str(given)
    try:
        text_of = text if text.lstrip()[:1] in ("{", "[") else Path(text).expanduser().read_text("utf-8")
        value = read_json(text_of)
    except (OSError, ValueError) as error:
        raise SwiftError(f"{flag} {text} is neither JSON nor a JSON file", where=flag, why=str(error)) from error
    if not isinstance(value, dict):
        raise SwiftError(f"{flag} takes a JSON object", where=flag, next="write {} around its fields")
    return value
