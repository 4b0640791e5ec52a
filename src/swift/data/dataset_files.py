"""From a data set's name to its files: a local path, a hub repository, or the rows we ship."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from swift.catalog import DatasetEntry
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.columns import refuse_unknown
from swift.data.hub_splits import choose_files
from swift.data.read import suffix
from swift.data.source import SourceFile
from swift.plan.data import FILE_SUFFIXES, DataPlan, DatasetSpec, is_self_cognition

SHIPPED = Path(__file__).parent / "self_cognition.jsonl"
ARCHIVES = ("*.zip", "*.tar", "*.tar.*", "*.tgz", "*.7z", "*.rar")
"""Never downloaded with the rows: a converter that needs one asks for it."""
PICTURES = ("*.jpg", "*.jpeg", "*.png", "*.gif", "*.webp", "*.bmp")
MEDIA = (*PICTURES, "*.mp4", "*.avi", "*.mkv", "*.webm", "*.wav", "*.mp3", "*.flac")
"""Downloaded only where they are looked at."""
BESIDE_ROWS = (*MEDIA, "*.md", "*.py", "*.toml", "*.yaml", "*.yml", "LICENSE*", "README*")
"""Of a local folder: files that hold no rows by their names."""


def dataset_files(spec: DatasetSpec, plan: DataPlan) -> list[SourceFile]:
    """The files of a data set, downloaded if need be, and how their columns are to be read.

    Raises SwiftError when there is nothing to read, and for columns that would become what no format knows.
    """
    if is_self_cognition(spec):
        return [_self_cognition(plan)]
    if spec.entry is None:  # a converter may read names of its own
        refuse_unknown(plan.columns)
    return [replace(file, columns={**file.columns, **plan.columns}) for file in _files(spec, plan)]


def _files(spec: DatasetSpec, plan: DataPlan) -> list[SourceFile]:
    entry = spec.entry
    if spec.hub == "local":
        root = Path(spec.name)
        return [SourceFile(path, _label(spec.name, root, path), media=plan.media) for path in _in_folder(root)]
    if entry is not None and entry.path is not None:
        root = Path(entry.path)
        files = [SourceFile(path, _label(entry.path, root, path), media=plan.media) for path in _in_folder(root)]
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


def data_files(path: Path) -> list[Path]:
    """The data files at `path`: itself, or everything readable below a folder, sorted by name.

    Raises SwiftError for a folder without data files.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and suffix(file) and not _hidden(file, path))
    if not files:
        raise SwiftError(
            f"no data files in the folder {path}",
            why=f"looked for {', '.join(FILE_SUFFIXES)}, plain or compressed",
            where=str(path),
        )
    return files


def _in_folder(root: Path) -> list[Path]:
    """The data files at `root`; of a folder, what is not read but may hold rows is named, and what is not for training.

    Raises SwiftError for a folder that `save_to_disk` of Hugging Face has written.
    """
    files = data_files(root)
    if not root.is_dir():
        return files
    if any(root.rglob("*.arrow")) and any(path.name == "state.json" for path in files):
        raise SwiftError(
            f"{root} is a data set as `save_to_disk` writes it, which is not read",
            where=str(root),
            next="write it as Parquet: datasets.load_from_disk(FOLDER).to_parquet(FILE)",
        )
    kept = [path for path in files if path.name not in _NOT_DATA] or files
    others = [path for path in root.rglob("*") if path.is_file() and path not in kept and not _hidden(path, root)]
    left = sorted(path for path in others if not any(map(path.match, BESIDE_ROWS)))
    if left:
        log.info("%s: %d files are not read: %s", root, len(left), _named(root, left))
    train = choose_files(root, kept, (), ("train",)) or kept
    if apart := [path for path in kept if path not in train]:
        log.warning("%s: all of it is read, other splits and subsets too: %s", root, _named(root, apart))
    return kept


def _named(root: Path, files: list[Path]) -> str:
    return ", ".join(path.relative_to(root).as_posix() for path in files[:6]) + ", …" * (len(files) > 6)


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


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


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
    files = [path for path in data_files(root) if path.name not in _NOT_DATA]
    chosen = choose_files(root, files, subsets, splits)
    if not chosen:
        wanted = " ".join(filter(None, ("/".join(subsets), "/".join(splits))))
        raise SwiftError(
            f"{repository} has no data files for {wanted}",
            where=f"--dataset {spec.text}",
            why=f"files there: {', '.join(path.relative_to(root).as_posix() for path in files[:6])}",
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
