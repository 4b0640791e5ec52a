"""Liger's kernels for rotary positions, norms and MLPs, by transformers' own door (`use_liger_kernel`).

Its fused loss stays off: our losses are made of weighted sums over the tokens that are trained, in parts that never
hold all logits (`chunked_cross_entropy`), which its loss cannot give.
"""

from __future__ import annotations

from transformers import PretrainedConfig

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError

KERNELS = {"cross_entropy": False, "fused_linear_cross_entropy": False}
"""What transformers hands to `_apply_liger_kernel_to_instance`; what is not named is on where Liger has it."""


def check_model(config: PretrainedConfig) -> None:
    """Raise SwiftError for a model that Liger has no kernels for: it would only log that, and go on without."""
    from liger_kernel.transformers.monkey_patch import (  # pyright: ignore[reportMissingImports]
        MODEL_TYPE_TO_APPLY_LIGER_FN as KNOWN,
    )

    if config.model_type not in KNOWN:
        raise SwiftError(
            f"liger-kernel has no kernels for {config.model_type}",
            where="--use_liger",
            next=suggestion(config.model_type, KNOWN) or "leave it out, or pip install -U liger-kernel",
        )
