"""The TOML files of the catalog as entries."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from swift.catalog.entries import DatasetEntry, MediaText, ModelEntry, TemplateEntry

_HERE = Path(__file__).parent


def _toml(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file)


def _frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


@functools.cache
def shipped_models() -> Mapping[str, ModelEntry]:
    """Every model of `models/*.toml`: one file a family, in it groups that share a template and LoRA targets."""
    return MappingProxyType(
        {model.name: model for path in sorted((_HERE / "models").glob("*.toml")) for model in _group(path)}
    )


def _group(path: Path) -> Iterator[ModelEntry]:
    for group in _toml(path)["group"]:
        models = group.pop("models")
        for name, own in models.items():
            yield ModelEntry(name=name, **_frozen({**group, **own}))


@functools.cache
def shipped_templates() -> Mapping[str, TemplateEntry]:
    """Every template of `templates/*.toml`; `like` takes the pieces of another one as a start."""
    raw = {name: body for path in sorted((_HERE / "templates").glob("*.toml")) for name, body in _toml(path).items()}
    return MappingProxyType({name: _template(name, _frozen(_inherited(body, raw))) for name, body in raw.items()})


def _template(name: str, body: Mapping[str, Any]) -> TemplateEntry:
    media: Mapping[str, Any] = body.get("media", {})
    # TOML has no null: false says that there is none.
    texts: dict[str, Any] = {key: None if value is False and key in MEDIA else value for key, value in media.items()}
    return TemplateEntry(name=name, **{**body, "media": MediaText(**texts)})


MEDIA = ("image", "video", "audio")


_OF_ITS_OWN = ("start", "generation", "default_system")
"""What `like` does not take over: it is about one model, not about the form of the turns."""


def _inherited(body: Mapping[str, Any], raw: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    own = dict(body)
    like = own.pop("like", None)
    if like is None:
        return own
    base = _inherited(raw[like], raw)
    return {**{key: value for key, value in base.items() if key not in _OF_ITS_OWN}, **own}


@functools.cache
def shipped_datasets() -> Mapping[str, DatasetEntry]:
    """Every dataset of `datasets.toml`."""
    return MappingProxyType(
        {name: DatasetEntry(name=name, **_frozen(body)) for name, body in _toml(_HERE / "datasets.toml").items()}
    )


@functools.cache
def benchmark_names() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Tasks of lm-evaluation-harness by our benchmark names; and for the names without one, the nearest task."""
    raw = _toml(_HERE / "benchmarks.toml")
    return MappingProxyType(raw["tasks"]), MappingProxyType(raw["nearest"])
