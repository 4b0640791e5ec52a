"""The Chinese texts of the declarations, from `zh.toml`: commands, groups and flags."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path


@functools.cache
def _texts() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(Path(__file__).with_name("zh.toml").read_text(encoding="utf-8"))


def command_zh(name: str) -> str:
    """What a command does."""
    return _texts()["commands"][name]


def group_zh(name: str) -> str:
    """The title of a group."""
    return _texts()["groups"][name]


def flag_zh(group: str, name: str) -> str | None:
    """The help of a flag; where two groups declare the name, `Group.name` is the key of the second. None: none yet."""
    flags = _texts()["flags"]
    return flags.get(f"{group}.{name}") or flags.get(name)
