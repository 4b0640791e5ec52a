"""The words of the page in Chinese and English, from `words.toml`; those of flags come from their declarations."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import Literal

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")


class Words:
    """Every text by key. No mapping: a template would take `t.copy` for the method."""

    def __init__(self, texts: dict[str, str]):
        self._texts = texts

    def __getitem__(self, key: str) -> str:
        return self._texts[key]


@functools.cache
def words(language: Language) -> Words:
    """The texts of a language."""
    texts = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
    return Words({key: pair[LANGUAGES.index(language)] for key, pair in texts.items()})
