"""Several adapters over one model's weights, by name, and the forward pass that gives each row of a batch its own.

The base is never touched. LoRAs that can share a batch sit together on one second model over its weights; any other
adapter has a model of its own over them, so that nothing it changes (biases, norms, embeddings) reaches anybody else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.engines.image_prompt import ImagePrompt, decoder_embeddings
from swift.engines.kv_attention import How, Step
from swift.engines.plain_decoder import OwnStep, PlainDecoder, plain_decoder
from swift.engines.weight_sharing import share_weights
from swift.tuners import added_modules, base_model
from swift.tuners.adapter_files import read_adapter

BASE = "__base__"
"""PEFT's name for the rows of a mixed batch that no adapter touches."""


@dataclass(frozen=True)
class _Adapted:
    """Where an adapter is."""

    tuned: Any
    """The model that has it, a PeftModel for PEFT's methods."""
    slot: str | None
    """Its name among the adapters that share that model; None when it is alone there."""
    tokens: int
    """Rows of its embeddings."""


class AdaptedModel:
    """A model and its adapters."""

    def __init__(self, model: PreTrainedModel):
        self.base = model
        text = model.config.get_text_config(decoder=True)
        self._text_config: Any = text
        parts = model.config.sub_configs
        self._text_part = next((part for part in parts if getattr(model.config, part) is text), None)
        self.own_attention = self._text_config._attn_implementation or "sdpa"
        self.hows: list[How] | None = None
        """What attention is in each layer, where steps over slots may go through a `PlainDecoder`."""
        self._plain: dict[str | None, PlainDecoder | None] = {}
        self._adapted: dict[str, _Adapted] = {}
        self._shared: Any = None
        self._active: str | None = None
        self._slots = count()
        self._width = 0
        self._answered = False

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters, in the order they came."""
        return tuple(self._adapted)

    def tokens(self, adapter: str | None) -> int:
        """Token ids below this one can be read."""
        return _rows(self.base) if adapter is None else self._adapted[adapter].tokens

    def add(self, name: str, folder: Path) -> None:
        """Take in the adapter in `folder` as `name`. Raises SwiftError when it does not fit the base."""
        if added_modules.kind_of(folder) is not None:
            adapted = _Adapted(added_modules.load(share_weights(self.base), folder), None, _rows(self.base))
        else:
            adapted = self._of_peft(folder)
        if name in self._adapted:
            self.remove(name)
        if adapted.slot is not None:
            self._shared, self._active = adapted.tuned, None
        self._adapted[name] = adapted
        self._plain.clear()  # modules they share may have been wrapped

    def _of_peft(self, folder: Path) -> _Adapted:
        """An adapter of one of PEFT's methods: beside others on one model where it can be, alone where not."""
        from swift.engines import adapter_layers  # PEFT takes seconds to import, and most models have no adapter

        adapter = adapter_layers.without_unchanged_ends(self.base, read_adapter(folder))
        adapter = adapter_layers.beside_untouched_base(self.base, adapter)
        # A user's name may be a part of PEFT's own names of modules.
        slot = f"adapter_{next(self._slots)}"
        beside = adapter_layers.put_beside(self.base, adapter, slot, self._shared)
        if beside is not None:
            return _Adapted(beside, slot, _rows(self.base))
        tuned = adapter_layers.put_alone(self.base, adapter)
        own: Any = base_model(tuned)
        self._widen(_head_rows(own), folder)
        return _Adapted(tuned, None, _rows(own))

    def remove(self, name: str) -> None:
        """Take the adapter `name` off."""
        adapted = self._adapted.pop(name)
        self._plain.clear()
        others = [other.slot for other in self._adapted.values() if other.slot is not None]
        if adapted.slot is not None and others:
            self._activate(others[0])  # PEFT would choose one itself, and warn
            self._shared.delete_adapter(adapted.slot)
        elif not others:
            self._shared, self._active = None, None

    def groups(self, adapters: Sequence[str | None]) -> list[list[int]]:
        """The numbers of the rows that may share a forward pass: those of LoRAs and none, and of each other adapter."""
        grouped: dict[str | None, list[int]] = {}
        for number, name in enumerate(adapters):
            alone = name is not None and self._adapted[name].slot is None
            grouped.setdefault(name if alone else None, []).append(number)
        return list(grouped.values())

    def forward(self, adapters: Sequence[str | None], **inputs: Any) -> Any:
        """The model's output for a batch whose row i uses `adapters[i]`; `groups` says which may come together."""
        self._answered = True
        wanted = set(adapters)
        if len(wanted) == 1:
            output = self._with(next(iter(wanted)))(**inputs)
        else:
            slots = [BASE if name is None else self._adapted[name].slot for name in adapters]
            if self._active is None:
                self._activate(next(slot for slot in slots if slot not in (None, BASE)))
            output = self._shared(**inputs, adapter_names=slots)
        output.logits = self._of_equal_width(output.logits)
        return output

    def step(
        self,
        adapters: Sequence[str | None],
        step: Step,
        tokens: Tensor,
        positions: Tensor,
        keep: Tensor | None = None,
        *,
        embedded: bool = False,
    ) -> Tensor:
        """Logits of a step over slots, (B, T, vocabulary), or of the positions that `keep` picks from T.

        tokens and positions are (B, T); row i uses `adapters[i]`. `embedded` says that tokens are embeddings already,
        (B, T, hidden size), and that positions may be (coordinates, B, T).
        """
        plain = self.plain(adapters[0]) if len(set(adapters)) == 1 and not embedded else None
        if plain is not None:
            self._answered = True
            self._with(adapters[0])
            return self._of_equal_width(plain.logits(tokens, positions, step, keep))
        kept = {} if keep is None else {"logits_to_keep": keep}
        given = {"inputs_embeds": tokens} if embedded else {"input_ids": tokens}
        inputs = {**given, "position_ids": positions, "use_cache": False, "slots_step": step, **kept}
        return self.forward(adapters, **inputs).logits

    def embedded(self, adapter: str | None, tokens: Sequence[int], images: ImagePrompt) -> Tensor:
        """What the decoder is given for `tokens`, which begin with the prompt of `images`: (1, T, hidden size)."""
        self._answered = True
        model = self._with(adapter)
        inner = base_model(model)
        ids = torch.tensor([tokens], device=inner.device)
        length = images.places.shape[-1]
        places = images.places.to(inner.device)
        inputs = {"input_ids": ids[:, :length], "position_ids": places, **images.moved(inner.device, inner.dtype)}
        prompt = decoder_embeddings(model, inner.get_decoder(), inputs)
        rest: Any = inner.get_input_embeddings()(ids[:, length:])
        return torch.cat([prompt, rest], dim=1)

    def allow_plain(self, own: OwnStep) -> None:
        """Let steps over slots go through a `PlainDecoder`; `own` is a step of the base, which is compared with it."""
        self.hows = own.survey.hows
        self._plain[None] = plain_decoder(self.base, self.base, self.hows, own)

    def plain(self, adapter: str | None) -> PlainDecoder | None:
        """The same forward pass over slots with one adapter, where there is one that gives the model's own logits."""
        if self.hows is None:
            return None
        if adapter not in self._plain:
            whole = self._with(adapter)
            self._plain[adapter] = plain_decoder(base_model(whole), whole, self.hows)
        return self._plain[adapter]

    def generate(self, adapter: str | None, **inputs: Any) -> Tensor:
        """transformers' `generate` with one adapter, and with the attention the model was loaded with."""
        with self.as_loaded():
            return self._with(adapter).generate(**inputs)

    def whole(self, adapter: str | None, **inputs: Any) -> Any:
        """The model's output with one adapter, and with the attention the model was loaded with."""
        with self.as_loaded():
            return self._with(adapter)(**inputs)

    def read(self, adapter: str | None, **inputs: Any) -> Any:
        """The output of the layers below the head, with one adapter and the attention the model was loaded with."""
        with self.as_loaded():
            model = self._with(adapter)
            # An adapter's layers stand inside its model, so the inner model is the tuned one.
            whole = base_model(model)
            return whole.base_model(**inputs)

    def close(self) -> None:
        """Give the model back as it was loaded."""
        self.set_attention(self.own_attention)

    def set_attention(self, name: str) -> None:
        """Switch how the decoders of all models here attend; a tower for images keeps its own attention."""
        self.base.set_attn_implementation(name if self._text_part is None else {self._text_part: name})

    @contextmanager
    def as_loaded(self) -> Iterator[None]:
        """Every model here with the attention it was loaded with."""
        # The adapters' models have the same configuration objects as the base.
        engines = self._text_config._attn_implementation or self.own_attention
        self.set_attention(self.own_attention)
        try:
            yield
        finally:
            self.set_attention(engines)

    def _with(self, name: str | None) -> Any:
        """The model that answers as the adapter `name`, or as the base."""
        if name is None:
            return self.base
        adapted = self._adapted[name]
        if adapted.slot is not None:
            self._activate(adapted.slot)
        return adapted.tuned

    def _activate(self, slot: str) -> None:
        if slot != self._active:
            self._shared.set_adapter(slot)
            self._active = slot

    def _of_equal_width(self, logits: Tensor) -> Tensor:
        missing = self._width - logits.shape[-1]
        return torch.nn.functional.pad(logits, (0, missing), value=-math.inf) if missing > 0 else logits

    def _widen(self, rows: int, folder: Path) -> None:
        """Logits of all rows of a batch are as many as the largest vocabulary has tokens."""
        base = _head_rows(self.base)
        if rows > max(base, self._width) and self._answered:
            raise SwiftError(
                f"the adapter in {folder} has more tokens ({rows}) than the model that answers already ({base})",
                next="name it when the model is started: --lora_modules NAME=FOLDER",
            )
        if rows != base:
            self._width = max(base, self._width, rows)


def _rows(model: PreTrainedModel) -> int:
    embeddings: Any = model.get_input_embeddings()
    return embeddings.weight.shape[0]


def _head_rows(model: PreTrainedModel) -> int:
    """How many logits a token gets."""
    head: Any = model.get_output_embeddings()
    if isinstance(head, torch.nn.Linear):
        return head.out_features  # the weight of a packed one would be copied
    return _rows(model) if head is None else head.weight.shape[0]
