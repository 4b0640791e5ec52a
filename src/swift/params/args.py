"""What was said: every flag of a command with its value and where the value comes from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from swift.params.commands import COMMANDS
from swift.params.frozen import Frozen

Origin = Literal["default", "command", "file", "checkpoint", "environment", "cli"]
G = TypeVar("G", bound=Frozen)


class Args(Frozen):
    """The flags of one command. `args[Group]` gives the typed values of a group, e.g. `args[Optim].learning_rate`."""

    command: str
    values: Mapping[str, Any]
    """Each flag's value as said: `AUTO` stays `AUTO`, lists are tuples. Alias flags keep their default."""
    origins: Mapping[str, Origin]
    overridden: Mapping[str, tuple[Any, Any]] = MappingProxyType({})
    """Flags that the checkpoint knows and the user said otherwise: (said, saved)."""

    def __getitem__(self, group: type[G]) -> G:
        """The values of a group; flags of the group that the command does not take have their default.

        Raises LookupError for a group that the command does not use.
        """
        use = next((use for use in COMMANDS[self.command].uses if use.group is group), None)
        if use is None:
            raise LookupError(f"swift {self.command} does not use the group {group.__name__}")
        return group(**{f.name: self.values[f.name] for f in use.flags()})

    def is_explicit(self, name: str) -> bool:
        """Whether the user gave the flag a value, on the command line or in the file."""
        return self.origins.get(name) in ("cli", "file")

    def changed(self, name: str) -> bool:
        """Whether the flag has another value than the command's default."""
        flag = COMMANDS[self.command].flags.get(name)
        return flag is not None and self.values[name] != flag.default

    def with_values(self, **changes: Any) -> Args:
        """The same arguments with some values replaced (their origin stays)."""
        return self.replace(values={**self.values, **changes})
