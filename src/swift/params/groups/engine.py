"""Engines that are installed apart."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from swift.params.flag import Basic, Json, Range
from swift.params.frozen import Frozen


class Vllm(Frozen):
    """The vLLM engine."""

    gpu_memory_utilization: Annotated[float, Basic(), Range(0, 1, above=True)] = 0.9
    """Share of GPU memory to use."""
    tensor_parallel_size: Annotated[int, Basic(), Range(1)] = 1
    """Number of GPUs for tensor parallelism."""
    max_model_len: Annotated[int | None, Basic(), Range(1)] = None
    """Overrides the model's maximum length."""
    max_num_seqs: Annotated[int, Range(1)] = 256
    """Most sequences at once."""
    disable_custom_all_reduce: bool = True
    """Use NCCL instead of the custom all-reduce kernel (vLLM itself has the other default)."""
    enforce_eager: bool = False
    """Eager mode instead of CUDA graphs; less memory, slower."""
    limit_mm_per_prompt: Annotated[str | dict[str, Any] | None, Json()] = None
    """Number of images/videos allowed per prompt, as JSON."""
    vllm_enable_lora: bool = False
    """Allow adapters."""
    vllm_max_lora_rank: Annotated[int, Range(1)] = 16
    """Largest adapter rank."""


class Lmdeploy(Frozen):
    """The LMDeploy engine."""

    tp: Annotated[int, Basic(), Range(1)] = 1
    """Tensor parallelism of the LMDeploy engine."""
    cache_max_entry_count: Annotated[float, Range(0, 1, above=True)] = 0.8
    """Share of free memory for the KV cache."""
    quant_policy: Literal[0, 4, 8] = 0
    """KV cache quantization, 0 off, 4 or 8 bits."""
    vision_batch_size: Annotated[int, Range(1)] = 1
    """Batch size of the vision model. LMDeploy computes the images of a step together."""
