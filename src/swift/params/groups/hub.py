"""Sending results to a model hub."""

from __future__ import annotations

from typing import Annotated, Literal

from swift.params.flag import Alias
from swift.params.frozen import Frozen


class Hub(Frozen):
    """Sending results to a model hub."""

    push_to_hub: bool = False
    """Push the result to the model hub."""
    hub_model_id: str | None = None
    """Repository to push to; made when missing. None means MODEL-METHOD."""
    hub_token: str | None = None
    """Token of the hub; None reads SWIFT_HUB_TOKEN, then MODELSCOPE_API_TOKEN or HF_TOKEN."""
    hub_private_repo: bool = False
    """Make the repository private."""
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"] = "every_save"
    """What is pushed during training, and when."""
    push_hub_strategy: Annotated[
        Literal["end", "push_best", "push_last", "checkpoint", "all_checkpoints"] | None,
        Alias("hub_strategy", {"push_best": "every_save", "push_last": "every_save"}),
    ] = None
    """Another spelling of hub_strategy."""
