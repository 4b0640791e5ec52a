"""Frozen records that cost nothing to declare.

The standard dataclass writes and compiles code for each class: with forty of them that alone takes longer than
`swift sft --help` may. A `Frozen` reads its annotations when an object is made instead.
"""

from __future__ import annotations

from typing import Any, Self, dataclass_transform


@dataclass_transform(frozen_default=True)
class Frozen:
    """Base of a class of named values: `class Point(Frozen): x: int; y: int = 0`."""

    def __init__(self, *values: Any, **named: Any) -> None:
        cls = type(self)
        names = tuple(cls.__annotations__)
        if len(values) > len(names):
            raise TypeError(f"{cls.__name__} takes {len(names)} values, not {len(values)}")
        given = dict(zip(names, values, strict=False))
        for name, value in named.items():
            if name not in cls.__annotations__ or name in given:
                raise TypeError(f"{cls.__name__} has no field `{name}`, or it is given twice")
            given[name] = value
        for name in names:
            if name not in given and name not in cls.__dict__:
                raise TypeError(f"{cls.__name__} needs `{name}`")
            self.__dict__[name] = given.get(name, cls.__dict__.get(name))

    def replace(self, **changes: Any) -> Self:
        """A copy with some values changed."""
        return type(self)(**{**self.__dict__, **changes})

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot go")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"
