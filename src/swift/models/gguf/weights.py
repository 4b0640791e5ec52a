"""The tensors of a model's folder one at a time, checked to be those of its class and no others."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig

from swift.core.errors import SwiftError
from swift.models.integrity import weight_files

COMPUTED = ("rotary_emb.inv_freq",)
"""Endings of tensors that old files hold and every model computes anew."""
HEAD, EMBEDDING = "lm_head.weight", ("model.embed_tokens.weight", "embed_tokens.weight")
SHOWN = 5


class Weights:
    """The tensors of a folder, by the names in its class. Use it as a context: it keeps files open."""

    def __init__(self, folder: Path, config: PretrainedConfig):
        self._files = ExitStack()
        self._readers = {}
        for path in weight_files(folder):
            self._readers.update(self._open(path))
        shapes = _shapes(config)
        self.tied = bool(config.tie_word_embeddings) and not self._has_own_head()
        """Whether the head is the embedding."""
        self._places = _matched(self._readers, shapes, folder, tied=self.tied)
        self.shapes = {name: shapes[name] for name in shapes if name in self._places}
        """In the order of the layers."""

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def tensor(self, name: str) -> Tensor:
        """One tensor on the CPU in fp32. Raises SwiftError when it has not the shape that the class gives it."""
        place = self._places[name]
        tensor = self._read(place)
        if tuple(tensor.shape) != self.shapes[name]:
            raise SwiftError(
                f"{name} is {tuple(tensor.shape)} in the files and {self.shapes[name]} by config.json",
                next="copy the model again",
            )
        return tensor.float()

    def _has_own_head(self) -> bool:
        """Whether the files hold a head beside the embedding, and another one: transformers takes it, whatever
        config.json says. An adapter that changes one of the two leaves such files."""
        embedding = next((name for name in EMBEDDING if name in self._readers), None)
        return (
            HEAD in self._readers and embedding is not None and not torch.equal(self._read(HEAD), self._read(embedding))
        )

    def _read(self, place: str) -> Tensor:
        reader = self._readers[place]
        return reader[place] if isinstance(reader, dict) else reader.get_tensor(place)

    def _open(self, path: Path) -> Mapping[str, Any]:
        """Every tensor's name and what it is read from."""
        if path.suffix == ".safetensors":
            reader: Any = self._files.enter_context(safe_open(path, "pt"))
            return dict.fromkeys(reader.keys(), reader)
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return dict.fromkeys(tensors, tensors)


def _shapes(config: PretrainedConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _matched(given: Mapping[str, Any], shapes: Mapping[str, Any], folder: Path, *, tied: bool) -> dict[str, str]:
    """Names in the class -> names in the files. A `tied` head is the embedding.

    Raises SwiftError for tensors that are missing, and for those that the class does not have.
    """
    wanted = {name for name in shapes if not (tied and name == HEAD)}
    # Files of the model without its head have no `model.` before the names.
    places = {name: place for name in wanted for place in (name, name.removeprefix("model.")) if place in given}
    missing = sorted(wanted - places.keys())
    if missing:
        raise SwiftError(f"{folder} lacks {len(missing)} tensors: {_some(missing)}", next="copy the model again")
    used = set(places.values())
    beyond = sorted(n for n in given if n not in used and n != HEAD and not n.endswith(COMPUTED))
    if beyond:
        raise SwiftError(
            f"{folder} has {len(beyond)} tensors that its class does not know: {_some(beyond)}",
            why="a file without them would be another model",
        )
    return places


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
