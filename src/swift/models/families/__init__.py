"""Multimodal families: one file each says what an image is in a prompt and what the model is given of it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig, PreTrainedModel

from swift.catalog.entries import MediaText
from swift.core.errors import NotBuilt, SwiftError, first_line
from swift.models.families.base import Family
from swift.models.families.kinds import KINDS, Readers, Source
from swift.models.families.media_settings import given_settings, tried
from swift.prompts.images import BadVideo
from swift.prompts.types import Media

_HERE = "swift.models.families"
FAMILIES = {
    "deepseek_vl": f"{_HERE}.deepseek_vl:DeepseekVL",
    "florence2": f"{_HERE}.florence2:Florence2",
    "gemma3": f"{_HERE}.gemma:Gemma3",
    "glm4v": f"{_HERE}.glm4v:Glm4v",
    "got_ocr2": f"{_HERE}.got_ocr2:GotOcr2",
    "idefics3": f"{_HERE}.idefics3:Idefics3",
    "internvl": f"{_HERE}.internvl:InternVL",
    "janus": f"{_HERE}.deepseek_vl:Janus",
    "llava": f"{_HERE}.llava:Llava",
    "llava_next": f"{_HERE}.llava_next:LlavaNext",
    "llava_next_video": f"{_HERE}.llava_next:LlavaNextVideo",
    "llava_onevision": f"{_HERE}.llava_next:LlavaOnevision",
    "mllama": f"{_HERE}.mllama:Mllama",
    "ovis2": f"{_HERE}.ovis2:Ovis2",
    "paligemma": f"{_HERE}.gemma:PaliGemma",
    "pixtral": f"{_HERE}.pixtral:Pixtral",
    "qwen2_audio": f"{_HERE}.qwen2_audio:Qwen2Audio",
    "qwen2_vl": f"{_HERE}.qwen_vl:Qwen2VL",
    "qwen2_5_vl": f"{_HERE}.qwen_vl:Qwen25VL",
    "qwen3_vl": f"{_HERE}.qwen_vl:Qwen3VL",
    "smolvlm": f"{_HERE}.idefics3:Idefics3",
}
"""`model_type` of a config.json, or of its tower (Pixtral's models are LLaVA's otherwise) -> the family's class."""

OF_TOKENS = frozenset({"mm_token_type_ids", "token_type_ids", "cross_attention_mask"})
"""Inputs of a model that have a value for each token of its prompt."""
NOT_SETTINGS = ("image_processor_type", "processor_class", "_processor_class", "auto_map")
"""What a processor says besides how it treats images: names of classes, which versions of transformers change."""


def is_multimodal(config: PretrainedConfig) -> bool:
    """Whether a family here carries out models of this configuration."""
    return _kind(config) in FAMILIES


def _kind(config: PretrainedConfig) -> str:
    if config.model_type == "llava" and config.vision_config.model_type == "pixtral":
        return "pixtral"
    return config.model_type


def family_of(config: PretrainedConfig) -> type[Family]:
    """The family of a multimodal model."""
    module, _, name = FAMILIES[_kind(config)].partition(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True, eq=False)
class Shown:
    """One medium of a prompt."""

    kind: str
    places: Sequence[int]
    """Where its tokens stand, in rising order."""
    digest: bytes
    """The same for media that look or sound the same."""
    inputs: Mapping[str, Tensor]
    """What the model is given of it."""


class MediaProcessor:
    """A family with the model's own processor: prompts ask it for tokens of media, batches for pixels."""

    def __init__(self, family: Family, processor: Any, read: Readers):
        self.family = family
        self.processor = processor
        self.kinds = tuple(family.tokens)
        self.boxes_in_pixels = family.boxes_in_pixels
        self.stands_first = family.stands_first
        self.tokens: Mapping[str, int] = dict(family.tokens.values())
        settings = json.loads(processor.to_json_string())
        own = {name: value for name, value in settings.items() if name not in NOT_SETTINGS and value is not None}
        of_videos = {} if family.sampling is None else {"videos": asdict(family.sampling)}
        self.facts: Mapping[str, Any] = {
            "family": type(family).__name__,
            "token": family.token_text,
            **own,
            **of_videos,
            **read.image.facts,
        }
        self._of = {kind: KINDS[kind](family, read) for kind in family.tokens}
        self._size = read.image.size

    def written(self, media: Media, form: MediaText) -> dict[str, list[str]]:
        """What stands in the prompt for each medium of a row.

        Raises BadMedium when one cannot be used or the model cannot take its size.
        """
        return {kind: side.written(media.of(kind), form) for kind, side in self._of.items() if media.of(kind)}

    def counts(self, media: Media) -> dict[int, int]:
        """How often each token stands in a prompt that shows these media. Raises BadMedium."""
        found = dict.fromkeys(self.tokens.values(), 0)
        for kind, written in self.written(media, MediaText()).items():
            name, token = self.family.tokens[kind]
            found[token] += sum(text.count(name) for text in written)
        return found

    def size(self, source: str) -> tuple[int, int]:
        """Width and height of an image as it is in the file, upright. Raises BadImage when it cannot be used."""
        return self._size(source)

    def box_size(self, source: str) -> tuple[int, int]:
        """Width and height of an image as it is shown to the model. Raises BadImage."""
        return self._of["images"].box_size(source)

    def check(self, media: Media) -> None:
        """Raise BadMedium for what cannot be decoded after all, though its head could be read."""
        self.opened(media)

    def opened(self, media: Media) -> list[Any]:
        """Its media decoded, in the order of `_in_order`. Raises BadMedium."""
        return [self._of[kind].opened(source) for kind, source in self._in_order(media)]

    def _in_order(self, media: Media) -> list[tuple[str, Source]]:
        """Kind and source of each medium: kind after kind, or as the prompt has them where two kinds share a token.

        Raises BadVideo where that is not known.
        """
        if len(self.tokens) == len(self.kinds) or not (media.images and media.videos):
            return [(kind, source) for kind in self._of for source in media.of(kind)]
        if not media.order:
            raise BadVideo("images and videos, which are one kind of token in this model, are in no known order")
        sources = {kind: iter(media.of(kind)) for kind in self.kinds}
        return [(kind, next(sources[kind])) for kind in media.order]

    def described(self, ids: Sequence[int], media: Media) -> Iterator[tuple[str, list[int]]]:
        """The ids of a row in stretches: a medium with its words, `<image: 448x336, 192 tokens>`, or text with ""."""
        start = 0
        for first, places, kind, source in self._stretches(ids, media):
            if first > start:
                yield "", list(ids[start:first])
            start = places[-1] + 1
            yield f"<{self._of[kind].words(source)}, {len(places)} tokens>", list(ids[first:start])
        if start < len(ids):
            yield "", list(ids[start:])

    def in_order(self, ids: Sequence[int], media: Media) -> list[tuple[int, str, Source]]:
        """First place, kind and source of each medium in the ids of a row, in the order of the prompt."""
        return [(first, kind, source) for first, _, kind, source in self._stretches(ids, media)] if media.any else []

    def within(self, ids: Sequence[int], media: Media) -> Media:
        """What is shown of a row's media in the ids that it begins with."""
        return Media.of_kinds([(kind, source) for _, kind, source in self.in_order(ids, media)])

    def _stretches(self, ids: Sequence[int], media: Media) -> list[tuple[int, list[int], str, Source]]:
        """First place, all places, kind and source of each medium in the ids of a row, in the order of the prompt."""
        stretches = []
        texts = {kind: iter(written) for kind, written in self.written(media, MediaText()).items()}
        tokens = set(self.tokens.values())
        places: dict[int, list[int]] = {token: [] for token in tokens}
        for place, each in enumerate(ids):
            if each in tokens:
                places[each].append(place)
        for kind, source in self._in_order(media):
            name, token = self.family.tokens[kind]
            count = next(texts[kind]).count(name)
            own, places[token] = places[token][:count], places[token][count:]
            if own:
                stretches.append((own[0], own, kind, source))
        for kind in texts:
            if left := places[self.family.tokens[kind][1]]:
                raise SwiftError(f"the prompt has {len(left)} tokens of {kind} more than its {kind} have")
        return sorted(stretches, key=lambda stretch: stretch[0])

    def apart(self, ids: Sequence[int], media: Media) -> list[Shown]:
        """The media in the ids of a row, in the order of the prompt, each as if it stood there alone."""
        shown = []
        for _, places, kind, source in self._stretches(ids, media):
            tokens = torch.tensor([[ids[place] for place in places]])
            side = self._of[kind]
            inputs = self.family.inputs(self.processor, [[side.opened(source)]], tokens, None)
            shown.append(Shown(kind, places, side.digest(source), inputs))
        return shown

    def inputs(self, rows: Sequence[Media], ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The model's further keywords for a batch of rows `ids` (B, T) with their media in order."""
        opened = [self.opened(row) for row in rows]
        return self.family.inputs(self.processor, opened, ids, labels)

    def inputs_end_to_end(
        self, model: PreTrainedModel, rows: Sequence[Media], ids: Tensor, lengths: Sequence[int], labels: Tensor
    ) -> dict[str, Any]:
        """The model's further keywords for rows that lie end to end in `ids` (1, T), each of its `lengths` tokens.

        Among them, where tokens have several coordinates, `position_ids` (1 + coordinates, 1, T), whose first row is
        the number of a token in its row; and where there is any, `both_ways`, for each row the stretches that see
        themselves both ways.
        """
        inputs: dict[str, Any] = self.inputs(rows, ids, labels)
        tokens, targets = (list(map(Tensor.tolist, _cut(whole, lengths))) for whole in (ids, labels))
        both_ways = tuple(tuple(self.family.both_ways(*row)) for row in zip(tokens, targets, strict=True))
        places = self._coordinates(model, ids, lengths, inputs)
        if places is not None:
            inputs["position_ids"] = places
        return {**inputs, "both_ways": both_ways} if any(both_ways) else inputs

    def _coordinates(
        self, model: PreTrainedModel, ids: Tensor, lengths: Sequence[int], inputs: Mapping[str, Any]
    ) -> Tensor | None:
        """The family counts them in padded rows, as each begins anew."""
        of_tokens = OF_TOKENS & inputs.keys()
        apart = {name: pad_sequence(_cut(inputs[name], lengths), batch_first=True) for name in of_tokens}
        mask = pad_sequence([torch.ones(length, dtype=torch.long) for length in lengths], batch_first=True)
        rows = pad_sequence(_cut(ids, lengths), batch_first=True)
        places = self.family.positions(model, rows, {**inputs, **apart}, mask)
        if places is None:
            return None
        own = torch.cat([places[:, row, :length] for row, length in enumerate(lengths)], 1)
        number = torch.cat([torch.arange(length) for length in lengths])
        return torch.cat([number[None], own])[:, None]

    def keys(self, ids: Sequence[int], media: Media) -> list[int]:
        """The ids of one row, with numbers below 0 for its media: equal for the same piece of the same picture.

        A picture in another number of pieces is another one: beside others, LLaVA-OneVision shows its small view alone.
        """
        keys = list(ids)
        for _, places, kind, source in self._stretches(ids, media):
            first = (int.from_bytes(self._of[kind].digest(source)[:8]) << 32 | len(places)) << 32
            for piece, place in enumerate(places):
                keys[place] = -1 - first - piece
        return keys

    def answer_form(self, tokenizer: Any) -> tuple[tuple[int, ...], frozenset[int]]:
        """What answers begin with (see `Family.opening`), and special tokens that are part of their text."""
        if not self.family.writes_special_tokens:
            return self.family.opening, frozenset()
        names = [name for name in tokenizer.special_tokens_map.values() if isinstance(name, str)]
        named = {tokenizer.convert_tokens_to_ids(name) for name in names}
        return self.family.opening, frozenset(tokenizer.all_special_ids) - named - {self.family.token}

    def save(self, folder: Path) -> None:
        """Write the processor beside the tokenizer of a checkpoint."""
        self.processor.save_pretrained(folder)
        if self.family.sampling is not None:
            self.family.sampling.save(folder)


def _cut(whole: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """The rows that lie end to end in (1, T, …)."""
    return list(whole[0].split(list(lengths)))


def load_media_processor(
    config: PretrainedConfig, folder: Path, tokenizer: Any, read: Readers, kwargs: Mapping[str, Any]
) -> MediaProcessor | None:
    """The media side of a model, whose processor lies in `folder`; None for a model of text.

    `kwargs` are those of `--model_kwargs`, of which the processor takes what the model does not have. Raises SwiftError
    without a processor, and for a setting that neither has.
    """
    if not is_multimodal(config):
        if "vision_config" in config.to_dict() and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise NotBuilt(
                f"models of the kind {config.model_type} are not built yet",
                next=f"use one of {', '.join(FAMILIES)}",
            )
        return None
    family = family_of(config)
    try:
        processor = family.load_processor(folder)
    except (OSError, ValueError) as error:
        raise SwiftError(
            f"the image processor of {folder} cannot be loaded",
            why=first_line(error),
            next="copy preprocessor_config.json of the model into the folder",
        ) from error
    own = {name: v for name, v in kwargs.items() if name not in config.to_dict()}
    given = given_settings(family, processor, own)
    settings = {
        family.settings.get(name, name): value
        for name, value in given.items()
        if name in family.settings or name not in family.video_settings
    }
    if settings:
        processor = tried(family, folder, settings)
    named: Any = [config, processor, tokenizer.convert_ids_to_tokens(getattr(config, family.token_name))]
    if family.sampling is not None:
        chosen = {own: given[name] for name, own in family.video_settings.items() if name in given}
        named += [family.sampling.of(folder, chosen), tokenizer.convert_ids_to_tokens]
    return MediaProcessor(family(*named), processor, read)
