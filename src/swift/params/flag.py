"""What can be said about a flag, and how it is read off the field that declares it.

A flag is one field of a group: `name: Annotated[type, markers…] = default`, followed by its help as a docstring.
Everything else (parsing, help, reference, YAML) is a rendering of these fields.
"""

from __future__ import annotations

import functools
import sys
import types
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from swift.params.frozen import Frozen

Kind = Literal["bool", "int", "float", "str"]
Auto = Literal["AUTO", "true", "false"]
"""The type of a flag that leaves the choice to us unless it is given."""
M = TypeVar("M")


def chosen(auto: str) -> bool | None:
    """What an `Auto` flag says; None for AUTO."""
    return None if auto == "AUTO" else auto == "true"


class Basic(Frozen):
    """A flag that most people meet: shown by `--help`, not only by `--help-all`."""


class Ours(Frozen):
    """A flag of this project that the contract of the 2.5 release does not have."""


class Range(Frozen):
    """Numbers from `low` to `high`, both included; `also` lists values outside that have a meaning."""

    low: float | None = None
    high: float | None = None
    also: tuple[float, ...] = ()
    above: bool = False
    """Whether `low` itself is left out."""
    below: bool = False
    """Whether `high` itself is left out."""

    def __contains__(self, value: float) -> bool:
        if value in self.also:
            return True
        if self.low is not None and (value < self.low or (self.above and value == self.low)):
            return False
        return self.high is None or (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:g}" if self.low is not None else ""
        if self.high is not None and self.below:
            text = f"{low} and below {self.high:g}".removeprefix(" and ")
        elif self.high is not None and self.low is not None and not self.above:
            text = f"from {self.low:g} to {self.high:.10g}"
        elif self.high is not None:
            text = f"{low} and at most {self.high:.10g}".removeprefix(" and ")
        else:
            text = low
        return text + "".join(f" or {value:g}" for value in self.also)


class Exists(Frozen):
    """The path must exist: a `file`, a `folder`, or either of them."""

    kind: Literal["file", "folder", "path"] = "file"


class Json(Frozen):
    """JSON text, the path of a JSON file, or a mapping in a YAML file; `names` are words that mean a shipped file."""

    names: tuple[str, ...] = ()


class Named(Frozen):
    """A list of NAME=VALUE; a mapping in a file of flags and from Python."""


class OneOf(Frozen):
    """The name of an entry of a catalog registry: "models", "templates" or "datasets"."""

    registry: Literal["models", "templates", "datasets"]


class Known(Frozen):
    """Values with a meaning of their own beside the free ones."""

    names: tuple[str, ...]


class Deprecated(Frozen):
    """The flag still works; `use` names what replaced it. Without it the flag has no effect, unless it `works`."""

    use: str
    works: bool = False


class Alias(Frozen):
    """Another spelling of the flag `of`; `values` translates words that are spelled otherwise there."""

    of: str
    values: Mapping[str, str] = MappingProxyType({})


class Saved(Frozen):
    """Carried from the `sft_args.json` of a checkpoint: always (model), or with `load_dataset_config` (data)."""

    part: Literal["model", "data"]


class Text(Frozen):
    """A list of texts that may hold commas: a comma parts two of them only when no blank follows it."""


class Bare(Frozen):
    """What the flag means when it stands alone, without a value."""

    value: str


class Flag:
    """One flag of one command, read off its field. Its annotation is looked at when somebody asks."""

    def __init__(self, name: str, group: type[Frozen], default: Any, *, from_command: bool = False):
        self.name = name
        self.group = group
        self.default = default
        self.from_command = from_command
        """Whether the default is the command's own, not the field's."""

    def with_default(self, default: Any) -> Flag:
        """The same flag in a command that starts it with another value."""
        return Flag(self.name, self.group, default, from_command=True)

    def marker(self, kind: type[M]) -> M | None:
        """The marker of this kind, if the field carries one."""
        return next((m for m in self._declared.markers if isinstance(m, kind)), None)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What a value (or an item of a list) may be."""
        return self._declared.kinds

    @property
    def choices(self) -> tuple[Any, ...]:
        """The only values, when they are counted."""
        return self._declared.choices

    @property
    def many(self) -> bool:
        """Whether the value is a list."""
        return self._declared.many

    @property
    def optional(self) -> bool:
        """Whether the value may be None."""
        return self._declared.optional

    @property
    def empty_items(self) -> bool:
        """Whether an item of the list may be None."""
        return self._declared.empty_items

    @property
    def alias_of(self) -> str | None:
        """The flag that this one is another spelling of."""
        alias = self.marker(Alias)
        return alias.of if alias is not None else None

    @property
    def is_switch(self) -> bool:
        """Whether the flag may stand alone, meaning true, and has a `--no_` form."""
        return self.kinds == ("bool",) and not self.many

    @functools.cached_property
    def _declared(self) -> _Declared:
        return _read_annotation(self.group, self.name)


@functools.cache
def flags_of(group: type[Frozen]) -> tuple[Flag, ...]:
    """The flags that a group declares, in order."""
    return tuple(Flag(name, group, group.__dict__[name]) for name in group.__annotations__)


class _Declared(Frozen):
    kinds: tuple[Kind, ...]
    choices: tuple[Any, ...]
    many: bool
    optional: bool
    empty_items: bool
    markers: tuple[Any, ...]


_KINDS: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "str"}


@functools.cache
def _read_annotation(group: type[Frozen], name: str) -> _Declared:
    names = {**sys.modules[group.__module__].__dict__, "Annotated": _Pair}
    hint = eval(group.__annotations__[name], names)
    hint, *markers = hint if isinstance(hint, tuple) else (hint,)
    parts, optional = _alternatives(hint)
    many = [part for part in parts if typing.get_origin(part) is tuple]
    empty_items = False
    if many:
        parts, empty_items = _alternatives(typing.get_args(many[0])[0])
    choices = tuple(c for part in parts if typing.get_origin(part) is Literal for c in typing.get_args(part))
    scalars = [type(c) for c in choices] or [part for part in parts if part in _KINDS]
    kinds: tuple[Kind, ...] = tuple(dict.fromkeys(_KINDS[scalar] for scalar in scalars))
    return _Declared(kinds, choices, bool(many), optional, empty_items, tuple(markers))


class _Pair:
    """Stands for `Annotated` while an annotation is read: a type and its markers, without the cost of typing's own."""

    def __class_getitem__(cls, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        return parts


def _alternatives(hint: Any) -> tuple[list[Any], bool]:
    """The members of a union without None, and whether None is among them."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return [m for m in members if m is not type(None)], type(None) in members
