"""Several LoRAs on one model, by name, and the forward pass that gives each row of a batch its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

UNSURE = ""
"""Not known which adapter PEFT has active; None is none."""
BASE = "__base__"
"""PEFT's name for the rows of a mixed batch that no adapter touches."""


class AdaptedModel:
    """A model and its adapters."""

    def __init__(self, model: PreTrainedModel):
        self.base = model
        self.own_attention = model.config._attn_implementation or "sdpa"
        self.names: tuple[str, ...] = ()
        self._model: Any = model
        self._active: str | None = UNSURE
        self._mixes = True

    def add(self, name: str, folder: Path) -> None:
        """Put the adapter in `folder` on the model as `name`. Raises SwiftError when it does not fit the base."""
        from swift.engines import lora_layers  # PEFT takes seconds to import, and most models have no adapter

        if name in self.names:
            self.remove(name)
        self._model = lora_layers.attach(self._model, name, folder)
        self._mixes = lora_layers.share_a_batch(self._model)
        self.names = (*self.names, name)
        self._activate(name)

    def remove(self, name: str) -> None:
        """Take the adapter `name` off."""
        self._model.delete_adapter(name)
        self.names = tuple(each for each in self.names if each != name)
        self._active = UNSURE  # PEFT makes another one active

    def groups(self, adapters: Sequence[str | None]) -> list[list[int]]:
        """The numbers of the rows that may share a forward pass: all of them, or those of one adapter at a time."""
        if self._mixes:
            return [list(range(len(adapters)))]
        grouped: dict[str | None, list[int]] = {}
        for number, name in enumerate(adapters):
            grouped.setdefault(name, []).append(number)
        return list(grouped.values())

    def forward(self, adapters: Sequence[str | None], **inputs: Any) -> Any:
        """The model's output for a batch whose row i uses `adapters[i]`."""
        if not self.names:
            return self.base(**inputs)
        wanted = set(adapters)
        if len(wanted) == 1:
            self._activate(next(iter(wanted)))
            return self._model(**inputs)
        if self._active in (None, UNSURE):
            self._activate(self.names[0])
        return self._model(**inputs, adapter_names=[name or BASE for name in adapters])

    def generate(self, adapter: str | None, **inputs: Any) -> Tensor:
        """transformers' `generate` with one adapter, and with the attention the model was loaded with."""
        with self.as_loaded(adapter):
            return self._model.generate(**inputs)

    def read(self, adapter: str | None, **inputs: Any) -> Any:
        """The output of the layers below the head, with one adapter and the attention the model was loaded with."""
        # An adapter's layers stand inside the base model, so its own inner model is the tuned one.
        with self.as_loaded(adapter):
            return self.base.base_model(**inputs)

    @contextmanager
    def as_loaded(self, adapter: str | None) -> Iterator[None]:
        """The model with one adapter and with the attention it was loaded with."""
        engines = self.base.config._attn_implementation or self.own_attention
        self.base.set_attn_implementation(self.own_attention)
        try:
            if self.names:
                self._activate(adapter)
            yield
        finally:
            self.base.set_attn_implementation(engines)

    def close(self) -> None:
        """Give the model back as it was loaded."""
        self.base.set_attn_implementation(self.own_attention)

    def _activate(self, name: str | None) -> None:
        if name == self._active and name is not None:
            return
        if name is None:
            if self._active is not None:
                self._model.base_model.disable_adapter_layers()
        else:
            self._model.base_model.enable_adapter_layers()
            self._model.set_adapter(name)
        self._active = name
