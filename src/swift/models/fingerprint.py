"""A fingerprint of a model's weights, so that an adapter is not put on a base it was not trained on.

A base is what its weights are, not what its files are called: a copy that was saved in other pieces is the same base.
One that is stored in another precision, or quantized on disk, is another; quantized while it loads, it is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.core.safetensors_header import read_header
from swift.models.integrity import weight_files
from swift.params.checkpoint_args import ADAPTER_CONFIG, adapter_folder
from swift.plan.model import ModelPlan, name_of

PAGE = 4096
PAGES = 256
TENSORS = 2048
"""Most tensors that are sampled; a mixture of many experts has more."""


def identity(folder: Path) -> dict[str, Any]:
    """What tells the weights of a model folder from others; JSON values only.

    Of each file the size and a SHA-256 over 256 pages of 4 KiB spread over it; of safetensors also the names, types
    and shapes of all tensors and a page of each, in the order of their names. A 100 GB model costs a few megabytes.
    """
    files = weight_files(folder)
    return {"version": 2, "files": {path.name: _sampled(path) for path in files}, "tensors": _tensors(files)}


def same_base(recorded: Mapping[str, Any], folder: Path) -> bool:
    """Whether the weights in `folder` are those of the record: the same files, or the same tensors in other files."""
    here = identity(folder)
    tensors = recorded.get("tensors")  # the first version had none
    return recorded["files"] == here["files"] or (tensors is not None and tensors == here["tensors"])


def check_base(adapter: Path, plan: ModelPlan, folder: Path) -> bool:
    """Whether the adapter in a folder records its base and this is it: the plan's model, whose files are in `folder`.

    Of an adapter made elsewhere, which records none, the base's name is compared and a warning says so. Raises
    SwiftError when it is another model, unless the plan goes on all the same.
    """
    recorded = _recorded(adapter)
    if not recorded:
        _compare_names(adapter, plan)
        return False
    if same_base(recorded, folder):
        return True
    if plan.ignore_base_mismatch:
        log.warning(
            "%s was trained on other weights than those of %s, which is used all the same", adapter, plan.source
        )
        return False
    trained_on = _named_base(adapter)
    raise SwiftError(
        f"{plan.source} is not the model that {adapter} was trained on",
        where="--model_id_or_path, --model_type",
        why="its weights differ from those the adapter recorded" + (f" ({trained_on})" if trained_on else ""),
        next="give the original base model, or go on all the same with --ignore_base_mismatch true",
    )


def _recorded(adapter: Path) -> Mapping[str, Any] | None:
    path = adapter / "configuration.json"
    return _json(path).get("base_identity") if path.is_file() else None


def _named_base(adapter: Path) -> str | None:
    folder = adapter_folder(adapter)
    return None if folder is None else _json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")


def _compare_names(adapter: Path, plan: ModelPlan) -> None:
    named = _named_base(adapter)
    ids = {plan.source} | ({plan.entry.hf, plan.entry.ms} if plan.entry else set())
    names = {name_of(str(each)).casefold() for each in ids if each}
    if named and name_of(named).casefold() in names:
        log.warning("%s does not record the weights of its base; %s has its name and the shapes decide", adapter, named)
    else:
        log.warning(
            "%s does not record the weights of its base, which it calls %s; %s is taken if the shapes fit",
            adapter,
            named or "nothing",
            plan.source,
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SwiftError(f"{path} cannot be read", why=str(error), next="use another checkpoint") from error
    return value if isinstance(value, dict) else {}


def _sampled(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    digest = hashlib.sha256()
    last = max(size - PAGE, 0)
    with path.open("rb") as file:
        for i in range(PAGES):
            file.seek(last * i // (PAGES - 1))
            digest.update(file.read(PAGE))
    return {"bytes": size, "sha256_sampled": digest.hexdigest()}


def _tensors(files: list[Path]) -> dict[str, Any] | None:
    """Layout and a page of each tensor, whatever file it lies in; None for weights that are not in safetensors."""
    if any(path.suffix != ".safetensors" for path in files):
        return None
    places: dict[str, tuple[Path, int, int]] = {}
    layout: dict[str, tuple[str, list[int]]] = {}
    for path in files:
        header = read_header(path)
        with path.open("rb") as file:
            data = 8 + int.from_bytes(file.read(8), "little")
        for name, tensor in header.items():
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                places[name] = (path, data + start, data + end)
                layout[name] = (tensor["dtype"], tensor["shape"])
    names = sorted(places)
    digest = hashlib.sha256(json.dumps(layout, sort_keys=True).encode())
    for name in names[:: -(-len(names) // TENSORS) or 1]:
        path, start, end = places[name]
        with path.open("rb") as file:
            file.seek(max(start, (start + end - PAGE) // 2))
            digest.update(file.read(min(PAGE, end - start)))
    return {"number": len(names), "sha256_sampled": digest.hexdigest()}
