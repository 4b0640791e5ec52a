"""Media for LMDeploy: the token ids and the pixels of training, past the templates and processors it has itself.

Its PyTorch engine takes, beside the ids of a prompt, a dict for each medium, as its own preprocessing makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from swift.core.errors import SwiftError
from swift.engines.given_media import MODALITIES, Taken
from swift.prompts.types import Media

if TYPE_CHECKING:
    from swift.models.families import MediaProcessor, Shown

TAKEN: Taken = {
    "Llava": ("images",),
    "LlavaNext": ("images",),
    "InternVL": ("images",),
    "Qwen25VL": ("images",),
    "Qwen3VL": ("images", "videos"),
}
"""Those whose log-probabilities its own model code gave as the model does, on a CPU with plain operators."""
REASONS: Mapping[str, str] = {
    "Qwen2VL": "LMDeploy computes GELU in its tower where the model has QuickGELU",
    "Qwen25VL": "LMDeploy takes images of it alone",
    "Gemma3": "LMDeploy gives the scale of its attention as a share of places to drop: answers about images are random",
    "Glm4v": "LMDeploy cannot read its configuration",
}
ONE_DECODER = ("Llava", "LlavaNext", "InternVL")
"""Families whose decoder LMDeploy builds from what config.json says of it alone, by the name of its class."""
Item = dict[str, Any]
"""What LMDeploy's input processors read of a medium."""


def require_decoder(images: MediaProcessor | None, config: Mapping[str, Any]) -> None:
    """Raise SwiftError for a `config` that does not name the class of the decoder, which LMDeploy goes by."""
    if images is None or type(images.family).__name__ not in ONE_DECODER:
        return
    if not config["text_config"].get("architectures"):
        raise SwiftError(
            "config.json of the model does not name the class of its decoder, by which LMDeploy builds it",
            where="architectures of text_config",
            next='write "architectures": ["Qwen2ForCausalLM"] there, or what class it is, or use --infer_backend pt',
        )


def items_of(images: MediaProcessor, ids: Sequence[int], media: Media) -> list[Item]:
    """The media of a prompt in its order. Raises SwiftError for media that do not fit the ids."""
    make: Callable[[MediaProcessor, Shown], list[Item]]
    make = _in_stretches if type(images.family).__name__ == "Qwen3VL" else _at_once
    return [item for one in images.apart(ids, media) for item in make(images, one)]


def _at_once(images: MediaProcessor, one: Shown) -> list[Item]:
    place = {"offset": one.places[0], "image_tokens": len(one.places)}
    return [{**one.inputs, **place, "image_token_id": images.family.tokens[one.kind][1]}]


def _in_stretches(images: MediaProcessor, one: Shown) -> list[Item]:
    """Images, and frames of a video by themselves: text stands between them, and an item is one stretch of tokens."""
    from lmdeploy.vl.constants import Modality  # pyright: ignore  # LMDeploy has an environment of its own

    name = MODALITIES[one.kind]
    pixels = "pixel_values" if one.kind == "images" else "pixel_values_videos"
    (grid,) = one.inputs[f"{name}_grid_thw"]
    count = int(grid[0])
    length = len(one.places) // count
    return [
        {
            "modality": Modality(name),
            pixels: frame,
            f"{name}_grid_thw": grid.new_tensor([1, *grid[1:].tolist()]),
            "offset": (one.places[number * length], one.places[(number + 1) * length - 1] + 1),
            f"{name}_token_id": images.family.tokens[one.kind][1],
        }
        for number, frame in enumerate(one.inputs[pixels].chunk(count))
    ]
