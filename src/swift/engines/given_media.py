"""Media for engines that are installed apart: which are given, how many, and why others are not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from swift.core.errors import NotBuilt, SwiftError
from swift.prompts.types import Media

if TYPE_CHECKING:
    from swift.models.families import MediaProcessor

MODALITIES = {"images": "image", "videos": "video", "audios": "audio"}
"""What these engines and --limit_mm_per_prompt call each kind."""
Taken = Mapping[str, tuple[str, ...]]
"""Kinds of media by family that an engine's answers were compared with those of the model itself for."""


def limits_of(given: str | Mapping[str, Any] | None) -> dict[str, int]:
    """The counts that --limit_mm_per_prompt gives. Raises SwiftError for anything else."""
    mistake = SwiftError(
        f"limits are counts by kind of media ({', '.join(MODALITIES.values())})",
        where="--limit_mm_per_prompt",
        next="""write it like '{"image": 2}'""",
    )
    try:
        limits = json.loads(given) if isinstance(given, str) else dict(given or {})
    except json.JSONDecodeError:
        raise mistake from None
    if not isinstance(limits, dict) or not set(limits) <= set(MODALITIES.values()):
        raise mistake
    if not all(type(count) is int and count >= 0 for count in limits.values()):
        raise mistake
    return limits


def require_taken(
    engine: str,
    taken: Taken,
    reasons: Mapping[str, str],
    images: MediaProcessor | None,
    media: Media,
    limits: Mapping[str, int],
) -> MediaProcessor:
    """Raise SwiftError for media that `engine` is not given, or more of them than --limit_mm_per_prompt allows.

    `reasons` say of a family why it is not among those that are `taken`.
    """
    family = "" if images is None else type(images.family).__name__
    for kind, name in MODALITIES.items():
        count = len(media.of(kind))
        if count and kind not in taken.get(family, ()):
            raise NotBuilt(
                f"{engine} is not given {kind} of {family or 'a model of text'}",
                why=reasons.get(family, "its answers about them were not compared with those of the model itself"),
                next="use --infer_backend pt",
            )
        if count > limits.get(name, count):
            raise SwiftError(
                f"the prompt has {count} {kind}, and --limit_mm_per_prompt allows {limits[name]}",
                where="--limit_mm_per_prompt",
                next="show fewer, or start with a larger limit",
            )
    assert images is not None, "a model of text takes no media"
    return images


def require_same_places(engine: str, images: MediaProcessor | None, config: Mapping[str, Any]) -> None:
    """Raise SwiftError for a Qwen3-VL `config` whose pieces of an image `engine` would put into other places.

    transformers lays the coordinates of a place out by turns whatever the file says; the others want to be told.
    """
    if images is None or type(images.family).__name__ != "Qwen3VL":
        return
    if not config["text_config"]["rope_parameters"].get("mrope_interleaved"):
        raise SwiftError(
            f"config.json of the model does not say mrope_interleaved, without which {engine} places images otherwise",
            where="rope_parameters of text_config",
            next='write "mrope_interleaved": true there, or use --infer_backend pt',
        )
