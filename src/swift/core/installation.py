"""What is installed against what is declared: packages, their tested ranges, and the optional parts."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from swift.core.optional_imports import installed

DISTRIBUTION = "swift-llm"
Fit = Literal["ok", "missing", "outside"]


@dataclass(frozen=True, kw_only=True)
class Extra:
    """An optional part of the installation."""

    name: str
    what: str
    commands: tuple[str, ...]
    """What does not work without it."""
    modules: tuple[str, ...]
    files_only: tuple[str, ...] = ()
    """Those of them that are read and never imported."""

    @property
    def imported(self) -> tuple[str, ...]:
        """The modules that are here to be imported."""
        return tuple(module for module in self.modules if module not in (*self.missing, *self.files_only))

    def again(self, module: str) -> str:
        """The line that installs the package of a module anew, and nothing beside it."""
        from packaging.utils import canonicalize_name

        names = packages_distributions().get(module, [module])
        asked = {canonicalize_name(one.name): one.requirement for one in requirements(self.name)}
        return f"pip install --force-reinstall --no-deps '{asked.get(canonicalize_name(names[0]), names[0])}'"

    @property
    def missing(self) -> tuple[str, ...]:
        """The modules that cannot be imported; nothing is."""
        return tuple(module for module in self.modules if not installed(module))

    @property
    def outside(self) -> tuple[Requirement, ...]:
        """What is installed of it in another version than the tested ones."""
        return tuple(one for one in requirements(self.name) if one.fit == "outside")

    @property
    def pip(self) -> str:
        """The line that installs it."""
        return f"pip install '{DISTRIBUTION}[{self.name}]'"


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A package that every installation needs, or an optional part of it, with its tested range."""

    name: str
    range: str
    """`>=5.23,<5.24`; empty for any version."""
    version: str | None
    fit: Fit

    @property
    def requirement(self) -> str:
        """`torch>=2.13,<2.15`, as pip takes it."""
        return f"{self.name}{self.range}"

    @property
    def pip(self) -> str:
        """The line that installs a version of the tested range."""
        return f"pip install '{self.requirement}'"


@functools.cache
def extras() -> Mapping[str, Extra]:
    """The optional parts by name."""
    with Path(__file__).with_name("extras.toml").open("rb") as file:
        raw = tomllib.load(file)
    return MappingProxyType(
        {
            name: Extra(
                name=name,
                what=body["what"],
                commands=tuple(body["commands"]),
                modules=tuple(body["modules"]),
                files_only=tuple(body.get("files_only", ())),
            )
            for name, body in raw.items()
        }
    )


def requirements(extra: str = "") -> Iterator[Requirement]:
    """The packages of the core, or those that an extra adds, as the installed metadata declares them, in its order."""
    from packaging.requirements import Requirement as Declared

    for line in requires(DISTRIBUTION) or ():
        declared = Declared(line)
        marker = declared.marker
        of_core = marker is None or marker.evaluate({"extra": ""})
        of_extra = marker is not None and not of_core and marker.evaluate({"extra": extra})
        if not (of_extra if extra else of_core):
            continue
        try:
            found = version(declared.name)
        except PackageNotFoundError:
            found = None
        fits = found is not None and declared.specifier.contains(found, prereleases=True)
        yield Requirement(
            name=declared.name,
            range=_in_order(str(declared.specifier)),
            version=found,
            fit="missing" if found is None else "ok" if fits else "outside",
        )


def _in_order(specifier: str) -> str:
    """The lower bound first; packaging sorts by text."""
    return ",".join(sorted(specifier.split(","), key=lambda part: part.startswith("<")))
