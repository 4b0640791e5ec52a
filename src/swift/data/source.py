"""From a data set's name to the files it stands for: a local path, a hub repository, or the rows we ship."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swift.catalog import DatasetEntry
from swift.core.errors import SwiftError
from swift.core.hubs import HubName
from swift.data.read import data_files, suffix
from swift.plan.data import DataPlan, DatasetSpec, is_self_cognition

SHIPPED = Path(__file__).parent / "self_cognition.jsonl"
ARCHIVES = ("*.zip", "*.tar", "*.tar.*", "*.tgz", "*.7z", "*.rar")
"""Never downloaded with the rows: a converter that needs one asks for it."""
PICTURES = ("*.jpg", "*.jpeg", "*.png", "*.gif", "*.webp", "*.bmp")
MEDIA = (*PICTURES, "*.mp4", "*.avi", "*.mkv", "*.webm", "*.wav", "*.mp3", "*.flac")
"""Downloaded only where they are looked at."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a data set, how its columns become rows, and how the ledger calls it."""

    path: Path
    label: str
    converter: str | Callable[..., Any] = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    """For the converter."""
    replace: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Marks in the text and what they become: (Chinese, English), for the rows about the model itself."""
    home: tuple[HubName, str] | None = None
    """The hub and the repository that the file comes from."""
    media: Path | None = None
    """Folder for what the rows show besides text; None leaves it out, and nothing of it is fetched."""
    token: str | None = field(default=None, repr=False)
    """For media of a private repository."""

    @property
    def reading(self) -> str:
        """Everything besides the row's bytes that decides what a row means."""
        how = self.converter
        name = how if isinstance(how, str) else f"{how.__module__}:{how.__qualname__}:{hash_of(how)}"
        columns, options, replace = (sorted(table.items()) for table in (self.columns, self.options, self.replace))
        return repr((name, columns, options, replace, *(["with media"] if self.media else [])))


def hash_of(function: Callable[..., Any]) -> str:
    """Changes with the code of a user's own converter."""
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return "no source"


def open_source(spec: DatasetSpec, plan: DataPlan) -> list[SourceFile]:
    """The files of a data set, downloaded if need be. Raises SwiftError when there is nothing to read."""
    if is_self_cognition(spec):
        return [_self_cognition(plan)]
    entry = spec.entry
    if spec.hub == "local":
        root = Path(spec.name)
        return [SourceFile(path, _label(spec.name, root, path), media=plan.media) for path in data_files(root)]
    if entry is not None and entry.path is not None:
        root = Path(entry.path)
        files = [SourceFile(path, _label(entry.path, root, path), media=plan.media) for path in data_files(root)]
        return [_registered(file, entry) for file in files]
    if entry is None:
        return _from_hub(spec, spec.name, spec.subsets or (), ("train",), plan)
    repository = entry.hf if spec.hub == "huggingface" else entry.ms
    if repository is None:
        other = "MS" if spec.hub == "huggingface" else "HF"
        raise SwiftError(
            f"{entry.name} is not on {_hub_name(spec.hub)}",
            where=f"--dataset {spec.text}",
            next=f"{other}::{entry.name}",
        )
    files = _from_hub(spec, repository, spec.subsets or tuple(entry.subsets), tuple(entry.split), plan, entry.revision)
    return [_registered(file, entry) for file in files]


def _registered(file: SourceFile, entry: DatasetEntry) -> SourceFile:
    return replace(file, converter=entry.converter, columns=dict(entry.columns), options=dict(entry.options))


def _label(name: str, root: Path, path: Path) -> str:
    return name if path == root else f"{name.rstrip('/')}/{path.relative_to(root).as_posix()}"


def _hub_name(hub: str) -> str:
    return {"huggingface": "Hugging Face", "modelscope": "ModelScope"}[hub]


def _self_cognition(plan: DataPlan) -> SourceFile:
    if plan.self_names is None or plan.self_authors is None:
        raise SwiftError("self-cognition data needs --model_name and --model_author")
    marks = {"{{NAME}}": plan.self_names, "{{AUTHOR}}": plan.self_authors}
    return SourceFile(SHIPPED, "self-cognition", replace=marks)


def _from_hub(
    spec: DatasetSpec,
    repository: str,
    subsets: tuple[str, ...],
    splits: tuple[str, ...],
    plan: DataPlan,
    revision: str | None = None,
) -> list[SourceFile]:
    """Download a data repository and pick the files of the subsets and splits asked for."""
    from swift.hub import download

    assert spec.hub != "local"
    apart = ARCHIVES if plan.media else (*ARCHIVES, *MEDIA)
    root = download(repository, hub=spec.hub, kind="dataset", revision=revision, token=plan.token, ignore=apart)
    _refuse_script(root, repository, spec)
    found = [path for path in data_files(root) if path.name not in _NOT_DATA]
    chosen = _by_card(root, subsets, splits) or _by_name(root, found, subsets, splits)
    if not chosen:
        asked = " ".join(filter(None, ("/".join(subsets), "/".join(splits))))
        raise SwiftError(
            f"{repository} has no data files for {asked}",
            where=f"--dataset {spec.text}",
            why=f"files there: {', '.join(path.relative_to(root).as_posix() for path in found[:6])}",
            next="name a subset: --dataset id:subset",
        )
    about = {"home": (spec.hub, repository), "media": plan.media, "token": plan.token}
    return [SourceFile(path, f"{repository}/{path.relative_to(root).as_posix()}", **about) for path in chosen]


_NOT_DATA = ("dataset_infos.json", "dataset_info.json", "configuration.json", "config.json")


def _refuse_script(root: Path, repository: str, spec: DatasetSpec) -> None:
    scripts = sorted(path.name for path in root.glob("*.py"))
    if scripts and not any(suffix(path) and path.name not in _NOT_DATA for path in root.rglob("*")):
        raise SwiftError(
            f"{repository} has no rows, only a script that makes them",
            where=f"--dataset {spec.text}",
            why=f"{scripts[0]} is not run: it could do anything",
            next="write its rows to a JSONL file and give that",
        )


def _by_card(root: Path, subsets: tuple[str, ...], splits: tuple[str, ...]) -> list[Path]:
    """The files that the `configs:` of the repository's README name for the subsets and splits."""
    import yaml

    card = root / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    if not text.startswith("---"):
        return []
    try:
        configs = (yaml.safe_load(text.split("---", 2)[1]) or {}).get("configs") or []
    except yaml.YAMLError:
        return []
    wanted = [name for name in subsets if name] or [None]
    chosen: list[Path] = []
    for subset in wanted:
        for config in configs:
            if subset in (config.get("config_name"), None) or (subset == "default" and config.get("default")):
                chosen += _config_files(root, config.get("data_files"), splits)
                break
    return list(dict.fromkeys(chosen))


def _config_files(root: Path, listed: Any, splits: tuple[str, ...]) -> list[Path]:
    if isinstance(listed, str):
        listed = [listed]
    if isinstance(listed, Mapping):
        listed = [{"split": split, "path": path} for split, path in listed.items()]
    patterns: list[str] = []
    for item in listed or []:
        if isinstance(item, str):
            patterns.append(item)
        elif item.get("split") in splits:
            paths = item.get("path")
            patterns += paths if isinstance(paths, list) else [paths]
    return [path for pattern in patterns for path in sorted(root.glob(pattern)) if suffix(path)]


def _by_name(root: Path, found: list[Path], subsets: tuple[str, ...], splits: tuple[str, ...]) -> list[Path]:
    """Files below a subset's folder (or named after it) whose name holds a split, by the customs of both hubs."""
    chosen: list[Path] = []
    for subset in [name for name in subsets if name and name != "default"] or [None]:
        here = [path for path in found if subset is None or _named(path.relative_to(root), subset)]
        marked = [path for path in here if any(_holds(path.relative_to(root), split) for split in splits)]
        unmarked = [path for path in here if not any(_holds(path.relative_to(root), word) for word in _SPLITS)]
        chosen += marked or (unmarked if "train" in splits or len(unmarked) == len(found) else [])
    return list(dict.fromkeys(chosen))


_SPLITS = ("train", "test", "valid", "validation", "val", "dev")


def _named(path: Path, subset: str) -> bool:
    return subset in path.parts[:-1] or path.name.split(".")[0] == subset or path.name.startswith(f"{subset}-")


def _holds(path: Path, split: str) -> bool:
    words = path.as_posix().lower()
    for mark in (".", "-", "_"):
        words = words.replace(mark, "/")
    return split.lower() in words.split("/")
