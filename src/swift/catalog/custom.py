"""Entries of the user's own: `register_model`, `register_template`, `register_dataset`, and dataset_info files."""

from __future__ import annotations

import re
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from swift.catalog.entries import DatasetEntry, ModelEntry, TemplateEntry
from swift.catalog.read import shipped_datasets, shipped_models, shipped_templates
from swift.core.errors import NotBuilt, SwiftError
from swift.core.strict_json import read_json

E = TypeVar("E", ModelEntry, TemplateEntry, DatasetEntry)


@dataclass(frozen=True)
class _Addition:
    entry: ModelEntry | TemplateEntry | DatasetEntry
    origin: str


_additions: dict[tuple[type, str], _Addition] = {}


def additions(kind: type[E]) -> dict[str, E]:
    """What this process registered of one kind, by name."""
    return {
        name: added.entry for (of, name), added in _additions.items() if of is kind and isinstance(added.entry, kind)
    }


def _add(entry: ModelEntry | TemplateEntry | DatasetEntry, exist_ok: bool) -> None:
    kind = type(entry)
    caller = sys._getframe(2)
    origin = f"{caller.f_code.co_filename}:{caller.f_lineno}"
    shipped = {ModelEntry: shipped_models, TemplateEntry: shipped_templates, DatasetEntry: shipped_datasets}[kind]()
    taken = _additions.get((kind, entry.name))
    before = taken.origin if taken else "the catalog of swift" if entry.name in shipped else None
    if before not in (None, origin) and not exist_ok:
        raise SwiftError(
            f"the {_kind(kind)} {entry.name!r} is registered twice",
            where=f"{before} and {origin}",
            next="choose another name, or pass exist_ok=True to replace it",
        )
    _additions[kind, entry.name] = _Addition(entry, origin)


def register_model(
    model_type: str,
    model_id_or_path: str | None,
    lora_target_modules: Sequence[str] | str | None,
    template: str,
    get_function: Callable[..., Any] | None = None,
    *,
    hf_model_id: str | None = None,
    revision: str = "master",
    requires: Sequence[str] = (),
    tags: Sequence[str] = (),
    exist_ok: bool = False,
    **more: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a model type; `more` are fields of `swift.catalog.entries.Model` such as `vllm=True`.

    Returns a decorator for a loading function of one's own, which may be left unused. Raises SwiftError when the
    name is taken or a field unknown.
    """
    entry = ModelEntry(
        name=model_type,
        template=template,
        lora_targets=lora_target_modules if isinstance(lora_target_modules, str) else tuple(lora_target_modules or ()),
        ms=model_id_or_path,
        hf=hf_model_id,
        revision=revision,
        requires=tuple(requires),
        tags=tuple(tags),
        loader=get_function,
        **_known(ModelEntry, more),
    )
    _add(entry, exist_ok)

    def with_loader(function: Callable[..., Any]) -> Callable[..., Any]:
        key = (ModelEntry, model_type)
        _additions[key] = replace(_additions[key], entry=replace(entry, loader=function))
        return function

    return with_loader


Piece = str | Sequence[str | int]
"""A part of a template: text, or a list of token ids and tokenizer attributes."""

_SLOTS = {
    "{{QUERY}}": "{{query}}",
    "{{SYSTEM}}": "{{system}}",
    "{{ROUND0}}": "{{round0}}",
    "{{ROUND1}}": "{{round}}",
    "eos_token_id": "{{eos}}",
    "bos_token_id": "{{bos}}",
}


def Template(
    prefix: Sequence[Piece],
    prompt: Sequence[Piece],
    chat_sep: Sequence[Piece] | None,
    suffix: Sequence[Piece],
    default_system: str | None = None,
    system_prefix: Sequence[Piece] | None = None,
    auto_add_bos: bool = False,
    tools_prompt: str = "react_en",
    tool_prompt: Sequence[Piece] | None = None,
    *,
    stop: Sequence[str] = (),
) -> TemplateEntry:
    """A template in the form of the 2.5 release: lists of texts as "{{QUERY}}" and of ids as ["eos_token_id"].

    A prefix that holds {{SYSTEM}} is used with a system text; without one it is written without it. Raises SwiftError
    for an unknown token name.
    """
    opening = _text(prefix) or ""
    system = _text(system_prefix)
    if "{{system}}" in opening:
        opening, system = opening.replace("{{system}}", ""), opening
    return TemplateEntry(
        prefix=opening,
        prompt=_text(prompt) or "",
        separator=_text(chat_sep),
        suffix=_text(suffix) or "",
        default_system=default_system,
        system=system,
        tool=_text(tool_prompt),
        start="bos" if auto_add_bos else None,
        tools_format=tools_prompt,
        stop=tuple(stop),
    )


def _text(pieces: Sequence[Piece] | None) -> str | None:
    if pieces is None:
        return None
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += re.sub(r"\{\{(QUERY|SYSTEM|ROUND0|ROUND1)\}\}", lambda slot: _SLOTS[slot.group()], piece)
            continue
        for token in piece:
            if isinstance(token, str) and token not in _SLOTS:
                raise SwiftError(
                    f"a template names the token {token!r}", next="write eos_token_id, bos_token_id or a token id"
                )
            text += _SLOTS[token] if isinstance(token, str) else f"{{{{id:{token}}}}}"
    return text


def register_template(template_type: str, template: TemplateEntry, *, exist_ok: bool = False) -> None:
    """Register a template, made by `swift.Template(["<s>"], ["User: {{QUERY}}"], ["\\n"], [["eos_token_id"]])`.

    Raises SwiftError when the name is taken.
    """
    _add(replace(template, name=template_type), exist_ok)


def register_dataset(
    dataset_name: str,
    dataset_id_or_path: str | None,
    subsets: Sequence[str] | None = None,
    preprocess_func: Callable[..., Any] | str = "auto",
    get_function: Callable[..., Any] | None = None,
    *,
    split: Sequence[str] = ("train",),
    hf_dataset_id: str | None = None,
    tags: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    exist_ok: bool = False,
    **more: Any,
) -> None:
    """Register a dataset by hub id or path. `preprocess_func` names a converter or takes a record and gives a row.

    Raises SwiftError for a `get_function`: rows are read from files, one by one.
    """
    if get_function is not None:
        raise NotBuilt(
            f"register_dataset does not call the get_function of {dataset_name!r}",
            next="write its rows to a JSONL file and register that, or give a preprocess_func",
        )
    local = dataset_id_or_path is not None and Path(dataset_id_or_path).exists()
    entry = DatasetEntry(
        name=dataset_name,
        ms=None if local else dataset_id_or_path,
        hf=hf_dataset_id,
        path=dataset_id_or_path if local else None,
        subsets=tuple(subsets or ()),
        split=tuple(split),
        tags=tuple(tags),
        converter=preprocess_func,
        columns=dict(columns or {}),
        **_known(DatasetEntry, more),
    )
    _add(entry, exist_ok)


def _kind(kind: type) -> str:
    return kind.__name__.removesuffix("Entry").lower()


def _known(kind: type, more: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(more) - {field.name for field in fields(kind)})
    if unknown:
        raise SwiftError(
            f"register_{_kind(kind)} does not know {', '.join(unknown)}",
            next="it takes " + ", ".join(field.name for field in fields(kind)),
        )
    return more


def run_register_file(path: Path) -> None:
    """Run the file of `--custom_register_path`; running it again replaces what it registered before."""
    if not path.is_file():
        raise SwiftError(
            f"there is no file {path}", where="--custom_register_path", next="give the path of a Python file"
        )
    try:
        runpy.run_path(str(path), run_name="swift_custom_register")
    except SwiftError:
        raise
    except (Exception, SystemExit) as error:  # The file is the user's, theirs to mend: anything can be wrong in it.
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else own[-1].lineno if own else None
        raise SwiftError(
            f"the register file failed: {type(error).__name__}: {error}",
            where=f"{path}:{line}" if line else str(path),
            next="import register_model, register_template, register_dataset and Template from swift",
        ) from error


def read_dataset_info(given: str | Path | Mapping[str, object]) -> dict[str, DatasetEntry]:
    """Datasets of `--custom_dataset_info`, by name. Raises SwiftError naming the entry and key that is wrong."""
    info, folder = _json(given)
    if not isinstance(info, Mapping):
        raise SwiftError("dataset_info is not a JSON object", where="--custom_dataset_info", why=repr(info)[:80])
    return {str(name): _dataset(str(name), body, folder) for name, body in info.items()}


def _json(given: str | Path | Mapping[str, object]) -> tuple[object, Path]:
    """The parsed JSON and the folder that relative paths in it start from."""
    if isinstance(given, Mapping):
        return given, Path()
    try:
        if str(given).lstrip().startswith("{"):
            return read_json(str(given)), Path()
        text = Path(given).read_text(encoding="utf-8")
        return read_json(text), Path(given).parent
    except FileNotFoundError:
        raise SwiftError(
            f"there is no file {given}", where="--custom_dataset_info", next="give a JSON file or JSON text"
        ) from None
    except ValueError as error:
        raise SwiftError(
            "dataset_info is not valid JSON", where=f"--custom_dataset_info {given}"[:120], why=str(error)
        ) from None


_INFO_KEYS = {
    "dataset_id", "dataset_path", "hf_dataset_id", "subsets", "split", "columns", "conversations", "tags", "help",
    "huge_dataset", "is_main", "remove_useless_columns", "revision",
}  # fmt: skip


def _dataset(name: str, body: object, folder: Path) -> DatasetEntry:
    where = f"--custom_dataset_info, entry {name!r}"
    if not isinstance(body, Mapping):
        raise SwiftError("an entry of dataset_info is not a JSON object", where=where, why=repr(body)[:80])
    unknown = sorted(set(body) - _INFO_KEYS)
    if unknown:
        raise SwiftError(
            f"dataset_info does not know the key {unknown[0]!r}",
            where=where,
            next="it takes " + ", ".join(sorted(_INFO_KEYS)),
        )
    path = body.get("dataset_path")
    if path is None and not (body.get("dataset_id") or body.get("hf_dataset_id")):
        raise SwiftError("the dataset has no source", where=where, next="add dataset_id, hf_dataset_id or dataset_path")
    if "conversations" in body:
        converter, options = "conversations", dict(body["conversations"])
    else:
        converter, options = "rename" if body.get("columns") else "auto", {}
    return DatasetEntry(
        name=name,
        ms=body.get("dataset_id"),
        hf=body.get("hf_dataset_id"),
        path=None if path is None else str(folder / path),
        subsets=tuple(body.get("subsets") or ()),
        split=tuple(body.get("split") or ("train",)),
        tags=tuple(body.get("tags") or ()),
        revision=body.get("revision"),
        converter=converter,
        columns=dict(body.get("columns") or {}),
        options=options,
        huge=bool(body.get("huge_dataset", False)),
        listed=bool(body.get("is_main", True)),
        note=body.get("help"),
    )
