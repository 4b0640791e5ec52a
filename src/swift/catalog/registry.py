"""Names and what they stand for; unknown names are answered with the nearest known ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from swift.core.did_you_mean import closest
from swift.core.errors import SwiftError


class Entry(Protocol):
    """What a registry holds: something with a name, and the hub ids it is known under."""

    @property
    def name(self) -> str: ...

    @property
    def ids(self) -> tuple[str, ...]: ...


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """A read-only mapping from name to entry, in the order of registration."""

    def __init__(self, kind: str, flag: str, entries: Mapping[str, E]):
        self.kind = kind
        self.flag = flag
        self._entries = MappingProxyType(dict(entries))
        self._by_id: dict[str, E] = {}
        for entry in self._entries.values():
            for hub_id in entry.ids:
                self._by_id.setdefault(hub_id.lower(), entry)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def values(self) -> Iterator[E]:
        """The entries, in the order of their names here."""
        return iter(self._entries.values())

    def get(self, name: str) -> E:
        """The entry called `name`. Raises SwiftError with the nearest names when there is none."""
        if name not in self._entries:
            raise SwiftError(
                f"there is no {self.kind} called {name!r}",
                where=self.flag,
                next=self.suggestion(name),
            )
        return self._entries[name]

    def find_by_id(self, hub_id: str) -> E | None:
        """The entry that is known under a ModelScope or Hugging Face id (in any case), or None."""
        return self._by_id.get(hub_id.lower())

    def suggestion(self, name: str) -> str:
        """What to write instead of the unknown `name`."""
        if near := closest(name, self._entries, limit=3, margin=0.1):
            return "did you mean " + " or ".join(near) + "?"
        return f"docs/supported-models.md lists all {len(self)}"
