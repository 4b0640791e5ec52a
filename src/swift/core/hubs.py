"""The two hubs by name, and which of them a name without a prefix means."""

from __future__ import annotations

from typing import Literal

from swift.core.environment import read_bool

HubName = Literal["modelscope", "huggingface"]
Source = Literal["local", "modelscope", "huggingface"]
"""Where a model or a data set comes from: a path of this machine, or a hub."""

TITLES: dict[HubName, str] = {"modelscope": "ModelScope", "huggingface": "Hugging Face"}


def default_hub() -> HubName:
    """ModelScope, or Hugging Face when the environment variable USE_HF is on. Raises SwiftError for another word."""
    return "huggingface" if read_bool("USE_HF") else "modelscope"
