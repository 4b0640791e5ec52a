"""A row that shows a medium of each kind and trains nothing: it joins batches that show nothing themselves.

Processes that share weights out fetch them together, module by module, and those that share gradients out exchange
those of every weight. A process whose rows are texts would leave tower and projector out, and the others would wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swift.models.families import MediaProcessor
from swift.models.families.samples import sample
from swift.plan.train import TrainPlan
from swift.prompts.encode import Encoder
from swift.prompts.types import IGNORED, Conversation, Media, Message
from swift.training.objectives import Setting

FRAMES = 2
"""Of a video, which some families want an even number of."""


def companions_of(setting: Setting) -> tuple[dict[str, Any], ...]:
    """Those of a run's batches."""
    return companions_for(setting.plan.train, setting.images, setting.encoder)


def companions_for(plan: TrainPlan, images: MediaProcessor | None, encoder: Encoder) -> tuple[dict[str, Any], ...]:
    """The row of each kind of media that the model takes, where the processes of a run need it; else nothing."""
    if images is None or not in_step(plan):
        return ()
    return tuple(_row(encoder, kind) for kind in images.kinds)


def in_step(plan: TrainPlan) -> bool:
    """Whether the processes of a run have to run the same modules."""
    return plan.world_size > 1 and (plan.zero is not None or plan.fsdp is not None)


def missing(companions: Sequence[dict[str, Any]], shown: Sequence[Media]) -> list[dict[str, Any]]:
    """Those of the kinds that the rows of a batch do not show."""
    return [row for row in companions if not any(_kinds(row["media"]) & _kinds(media) for media in shown)]


def _kinds(media: Media) -> set[str]:
    return {kind for kind in ("images", "videos", "audios") if media.of(kind)}


def _row(encoder: Encoder, kind: str) -> dict[str, Any]:
    shown = sample((kind,))
    if kind == "videos":
        shown = Media(videos=(sample(("images",)).images * FRAMES,))
    encoded = encoder.encode(Conversation((Message("user", "?"),), media=shown), inference=True)[-1]
    ids = encoded.input_ids
    return {"input_ids": ids, "labels": [IGNORED] * len(ids), "media": encoded.media}
