"""Environment variables as values: one reader for each kind, with an error that names the variable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from swift.core.errors import EnvironmentFault

TRUE = frozenset({"true", "1", "yes", "y", "t", "on"})
FALSE = frozenset({"false", "0", "no", "n", "f", "off"})
"""The words of a boolean, for flags and for environment variables, in any case."""


def read_bool(name: str, env: Mapping[str, str] = os.environ) -> bool:
    """Whether the variable is on; unset or empty is off. Raises EnvironmentFault for a word that is neither."""
    word = env.get(name, "").strip().lower()
    if word and word not in TRUE | FALSE:
        raise EnvironmentFault(
            f"{name} is `{env[name]}`, not true or false", where="the environment", next=f"unset {name}"
        )
    return word in TRUE


def read_int(name: str, default: int, env: Mapping[str, str] = os.environ, *, low: int = 0) -> int:
    """The number in the variable, `default` where it is unset or empty. Raises EnvironmentFault below `low`."""
    text = env.get(name, "").strip() or str(default)
    if not text.isdecimal() or int(text) < low:
        raise EnvironmentFault(f"{name} is `{text}`, not a number from {low} up", where="the environment")
    return int(text)


def cache_home() -> Path:
    """Where everything that can be made again is kept: `$XDG_CACHE_HOME/swift`, else `~/.cache/swift`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "swift"
