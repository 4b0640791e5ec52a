"""Batches of answers that a model gave, with what their prompts show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelerate.utils import send_to_device
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.training.batches import tokens_in
from swift.training.media_inputs import MediaInputs
from swift.training.objectives import Batch, Setting
from swift.training.policy_gradient.rollouts import Rollout
from swift.training.policy_gradient.schedule import Schedule
from swift.training.preference_batches import answers
from swift.training.shared_beginnings import beginnings


def batch_of(
    setting: Setting,
    given: Sequence[Rollout],
    model: PreTrainedModel,
    flat: bool,
    media: MediaInputs | None,
    *,
    shared: bool = False,
) -> Batch:
    """Answers of a run as `model` takes them, on its device, with the count of their `tokens`, which the Trainer adds
    up. `media` makes its inputs of what is shown; a prompt is computed once for answers that follow each other, where
    it is `shared`."""
    items = [one.item if media is None else {**one.item, **_shown(setting.rows, one)} for one in given]
    batch = answers(items, flat, setting.pad_id, beginnings(items) if shared else None, media)
    moved: Any = send_to_device(batch, model.device)
    return {**moved, "tokens": tokens_in(batch)}


def _shown(schedule: Schedule, one: Rollout) -> dict[str, Any]:
    """The `media` of a prompt, where it has any. Raises SwiftError where they cannot be decoded any more."""
    prompt = schedule.prompts[one.row]
    if prompt["row"] != one.row:
        raise SwiftError("its media could be decoded when it was answered, and now they cannot", where=one.origin)
    return {name: value for name, value in prompt.items() if name == "media"}
