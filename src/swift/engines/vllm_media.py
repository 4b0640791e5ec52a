"""Media for vLLM: the token ids and the pixels of training, past the processors that vLLM has itself.

A family here and vLLM's need not agree in how an image is resized, normalised and counted. vLLM's engine takes what a
processor makes, so it is given what the model was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift.core.errors import SwiftError
from swift.engines.given_media import MODALITIES, Taken
from swift.prompts.types import Media

if TYPE_CHECKING:
    from swift.models.families import MediaProcessor, Shown

TAKEN: Taken = {
    "Llava": ("images",),
    "LlavaNext": ("images",),
    "Qwen2VL": ("images", "videos"),
    "Qwen25VL": ("images", "videos"),
    "Qwen3VL": ("images", "videos"),
    "InternVL": ("images",),
    "Idefics3": ("images",),
    "Pixtral": ("images",),
}
REASONS: Mapping[str, str] = {
    "Gemma3": "pieces of an image see each other, and in vLLM's attention for CPUs only those before them",
    "LlavaOnevision": "of several images it is shown the small views alone, for which vLLM was not compared",
    "PaliGemma": "its whole prompt sees itself both ways, and in vLLM only what stands before",
}
"""Why families are not given to it that were compared."""
ADAPTED = ("Qwen2VL", "Qwen25VL", "Qwen3VL")
"""Families whose adapters may change the projector and the tower too, and not only the decoder. Of others vLLM leaves
such parts out without a word, or its process ends over them."""
BEGUN = ("Qwen3VL",)
"""Families in whose videos vLLM looks for the token that begins the first frame, too."""
TILED = {"InternVL": "image_num_patches", "Idefics3": "num_patches", "Gemma3": "num_patches"}
"""Families whose tiles of images lie end to end, be it one tile, and what vLLM calls their number."""
OF_THE_HOST = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts", "image_sizes", *TILED.values())
"""Numbers that vLLM's models read on the CPU."""


def adapts_all(images: MediaProcessor | None) -> bool:
    """Whether vLLM puts an adapter on all parts of the model."""
    return images is not None and type(images.family).__name__ in ADAPTED


def require_adapted(images: MediaProcessor | None, adapter: Path) -> None:
    """Raise SwiftError for an adapter that changes parts of a multimodal model which vLLM would not change."""
    if images is None or adapts_all(images):
        return
    from swift.tuners.tensor_files import read_tensors

    paths = (name.removeprefix("base_model.model.") for name in read_tensors(adapter))
    missing = sorted(set(map(images.family.parts.part_of, paths)) - {"decoder"})
    if missing:
        raise SwiftError(
            f"vLLM does not put what the adapter changes in the {missing[0]} of the model on it",
            where=str(adapter),
            why="it would answer about images without that",
            next="--merge_lora true, or --infer_backend pt",
        )


def prompt_with_media(images: MediaProcessor, ids: Sequence[int], media: Media) -> Any:
    """A prompt as vLLM's engine has it once it is processed. Raises SwiftError for media that do not fit the ids."""
    import torch
    from vllm.inputs import mm_input  # pyright: ignore[reportMissingImports]  # vLLM has an environment of its own
    from vllm.multimodal.inputs import MultiModalKwargsItems, PlaceholderRange  # pyright: ignore[reportMissingImports]

    items: dict[str, list[Any]] = {}
    hashes: dict[str, list[str]] = {}
    ranges: dict[str, list[Any]] = {}
    for one in images.apart(ids, media):
        name = MODALITIES[one.kind]
        begun = one.kind == "videos" and type(images.family).__name__ in BEGUN
        first = one.places[0] - begun
        length = one.places[-1] + 1 - first
        own = torch.zeros(length, dtype=torch.bool)
        own[[place - first for place in one.places]] = True
        inputs, tiled = _inputs(images, one), type(images.family).__name__ in TILED
        fields = {key: _field(name, key, value, tiled) for key, value in inputs.items()}
        items.setdefault(name, []).extend(MultiModalKwargsItems.from_hf_inputs(inputs, fields)[name])
        hashes.setdefault(name, []).append(one.digest.hex())
        ranges.setdefault(name, []).append(PlaceholderRange(first, length, None if own.all() else own))
    return mm_input(list(ids), MultiModalKwargsItems(items), hashes, ranges)


def _inputs(images: MediaProcessor, one: Shown) -> dict[str, Any]:
    """What vLLM's model is given of a medium."""
    import torch

    from swift.models.families import OF_TOKENS

    inputs = {name: value for name, value in one.inputs.items() if name not in OF_TOKENS}
    family = type(images.family).__name__
    if family not in TILED:
        return inputs
    if family == "Idefics3":  # its images lie in a row of squares
        inputs = {name: value[0] for name, value in inputs.items()}
    told = {TILED[family]: len(inputs["pixel_values"])}
    if family == "InternVL":
        told["image_token_id"] = images.family.tokens[one.kind][1]
    return {**inputs, **{name: torch.tensor([number]) for name, number in told.items()}}


def _field(modality: str, name: str, value: Any, tiled: bool) -> Any:
    """Whether tensors of several media are stacked, or laid end to end as the patches of Qwen-VL are."""
    import torch
    from vllm.multimodal.inputs import MultiModalFieldConfig  # pyright: ignore[reportMissingImports]  # as above

    if len(value) == 1 and not (tiled and name.startswith("pixel")):
        return MultiModalFieldConfig.batched(modality, keep_on_cpu=name in OF_THE_HOST)
    return MultiModalFieldConfig.flat_from_sizes(modality, torch.tensor([len(value)]))
