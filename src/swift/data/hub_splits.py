"""Which files of a data repository hold the rows of a subset and a split: by its card, else by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swift.data.read import suffix


def choose_files(root: Path, files: Sequence[Path], subsets: Sequence[str], splits: Sequence[str]) -> list[Path]:
    """Those of the repository's data `files` that belong to the subsets and splits; none when it has no such."""
    return _by_card(root, subsets, splits) or _by_name(root, files, subsets, splits)


def _by_card(root: Path, subsets: Sequence[str], splits: Sequence[str]) -> list[Path]:
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


def _config_files(root: Path, listed: Any, splits: Sequence[str]) -> list[Path]:
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


def _by_name(root: Path, files: Sequence[Path], subsets: Sequence[str], splits: Sequence[str]) -> list[Path]:
    """Files below a subset's folder (or named after it) whose name holds a split, by the customs of both hubs."""
    chosen: list[Path] = []
    for subset in [name for name in subsets if name and name != "default"] or [None]:
        here = [path for path in files if subset is None or _named(path.relative_to(root), subset)]
        marked = [path for path in here if any(_holds(path.relative_to(root), split) for split in splits)]
        unmarked = [path for path in here if not any(_holds(path.relative_to(root), word) for word in _SPLITS)]
        chosen += marked or (unmarked if "train" in splits or len(unmarked) == len(files) else [])
    return list(dict.fromkeys(chosen))


_SPLITS = ("train", "test", "valid", "validation", "val", "dev")


def _named(path: Path, subset: str) -> bool:
    return subset in path.parts[:-1] or path.name.split(".")[0] == subset or path.name.startswith(f"{subset}-")


def _holds(path: Path, split: str) -> bool:
    words = path.as_posix().lower()
    for mark in (".", "-", "_"):
        words = words.replace(mark, "/")
    return split.lower() in words.split("/")
