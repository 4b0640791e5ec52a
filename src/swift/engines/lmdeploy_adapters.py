"""Adapters that LMDeploy puts on a model as training had them, and those that it would not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.params.checkpoint_args import adapter_config

UNREAD: Mapping[str, tuple[Any, ...]] = {
    "use_rslora": (None, False),
    "use_dora": (None, False),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "modules_to_save": (None, []),
    "bias": (None, "none"),
    "fan_in_fan_out": (None, False),
}
"""Fields of adapter_config.json that LMDeploy does not read, and the values under which that changes nothing."""


def require_adapter(folder: Path, *, sees: bool) -> None:
    """Raise SwiftError for an adapter that LMDeploy would put on a model otherwise than training did, or not at all.

    `sees` is whether it is one on a multimodal model.
    """
    fields = adapter_config(folder)
    unread = next((name for name, idle in UNREAD.items() if fields.get(name) not in idle), None)
    why = ""
    if sees:
        why = "LMDeploy has other names for the modules of a multimodal model than the adapter has"
    elif unread is not None:
        why = f"LMDeploy does not read {unread} of adapter_config.json"
    elif isinstance(fields.get("target_modules"), str):
        why = "LMDeploy takes target_modules as names, and the adapter has a pattern"
    if why:
        raise SwiftError(
            "LMDeploy would not put the adapter on the model as training did",
            where=str(folder),
            why=why,
            next="--merge_lora true, or --infer_backend pt",
        )
