"""What can be said about a flag, and how it is read off the field that declares it.

A flag is one field of a frozen dataclass: `name: Annotated[type, markers…] = default`, followed by its help as a
docstring. Everything else (parsing, help, reference, YAML) is a rendering of these fields.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Kind = Literal["bool", "int", "float", "str"]
M = TypeVar("M")


@dataclass(frozen=True)
class Basic:
    """A flag that most people meet: shown by `--help`, not only by `--help-all`."""


@dataclass(frozen=True)
class Ours:
    """A flag of this project that the contract of the 2.5 release does not have."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `also` lists values outside that have a meaning."""

    low: float | None = None
    high: float | None = None
    also: tuple[float, ...] = ()
    above: bool = False
    """Whether `low` itself is left out."""

    def __contains__(self, value: float) -> bool:
        if value in self.also:
            return True
        if self.low is not None and (value < self.low or (self.above and value == self.low)):
            return False
        return self.high is None or value <= self.high

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:g}" if self.low is not None else ""
        if self.high is not None and self.low is not None and not self.above:
            text = f"from {self.low:g} to {self.high:g}"
        elif self.high is not None:
            text = f"{low} and at most {self.high:g}".removeprefix(" and ")
        else:
            text = low
        return text + "".join(f" or {value:g}" for value in self.also)


@dataclass(frozen=True)
class Exists:
    """The path must exist: a `file`, a `folder`, or either of them."""

    kind: Literal["file", "folder", "path"] = "file"


@dataclass(frozen=True)
class Json:
    """JSON text, the path of a JSON file, or a mapping in a YAML file; `names` are words that mean a shipped file."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class OneOf:
    """The name of an entry of a catalog registry: "models", "templates" or "datasets"."""

    registry: Literal["models", "templates", "datasets"]


@dataclass(frozen=True)
class Known:
    """Values with a meaning of their own beside the free ones."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Only:
    """The flag has an effect only while the flag `name` has one of `values`."""

    name: str
    values: tuple[Any, ...] = (True,)


@dataclass(frozen=True)
class Deprecated:
    """The flag still works; `use` names what replaced it."""

    use: str


@dataclass(frozen=True)
class Alias:
    """Another spelling of the flag `of`; `values` translates words that are spelled otherwise there."""

    of: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """Carried from the `sft_args.json` of a checkpoint: always (model), or with `load_dataset_config` (data)."""

    part: Literal["model", "data"]


@dataclass(frozen=True)
class Text:
    """A list of texts that may hold commas: a comma parts two of them only when no blank follows it."""


@dataclass(frozen=True)
class Bare:
    """What the flag means when it stands alone, without a value."""

    value: str


@dataclass(frozen=True)
class Flag:
    """One flag of one command, as its field declares it."""

    name: str
    group: type
    kinds: tuple[Kind, ...]
    """What a value (or an item of a list) may be."""
    choices: tuple[Any, ...]
    """The only values, when they are counted."""
    many: bool
    optional: bool
    empty_items: bool
    """Whether an item of a list may be None."""
    default: Any
    markers: tuple[Any, ...]

    def marker(self, kind: type[M]) -> M | None:
        """The marker of this kind, if the field carries one."""
        return next((m for m in self.markers if isinstance(m, kind)), None)

    @property
    def is_switch(self) -> bool:
        """Whether the flag may stand alone, meaning true, and has a `--no_` form."""
        return self.kinds == ("bool",) and not self.many


@functools.cache
def flags_of(group: type) -> tuple[Flag, ...]:
    """The flags that a group declares, in order."""
    hints = typing.get_type_hints(group, include_extras=True)
    return tuple(_flag(group, f, hints[f.name]) for f in dataclasses.fields(group))


def _flag(group: type, declared: dataclasses.Field[Any], hint: Any) -> Flag:
    markers = getattr(hint, "__metadata__", ())
    hint = hint.__origin__ if markers else hint
    parts, optional = _alternatives(hint)
    many = [part for part in parts if typing.get_origin(part) is tuple]
    empty_items = False
    if many:
        parts, empty_items = _alternatives(typing.get_args(many[0])[0])
    choices = tuple(c for part in parts if typing.get_origin(part) is Literal for c in typing.get_args(part))
    scalars = [type(c) for c in choices] or [part for part in parts if part in _KINDS]
    kinds = tuple(dict.fromkeys(_KINDS[scalar] for scalar in scalars))
    return Flag(
        declared.name, group, kinds, choices, bool(many), optional, empty_items, declared.default, tuple(markers)
    )


_KINDS: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "str"}


def _alternatives(hint: Any) -> tuple[list[Any], bool]:
    """The members of a union without None, and whether None is among them."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return [m for m in members if m is not type(None)], type(None) in members
