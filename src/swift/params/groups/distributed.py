"""Several devices and several machines."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from swift.params.flag import Alias, Basic, Json, Range
from swift.params.frozen import Frozen

PRESETS = ("default-zero2", "default-zero3", "zero2-offload", "zero3-offload")


class Distributed(Frozen):
    """Several devices and several machines."""

    deepspeed: Annotated[str | dict[str, Any] | None, Basic(), Json(PRESETS)] = None
    """DeepSpeed configuration: a preset, a JSON file or JSON text."""
    fsdp: str | None = ""
    """FSDP mode as in transformers."""
    fsdp_config: Annotated[str | dict[str, Any] | None, Json()] = None
    """Path of the FSDP configuration."""
    fsdp_num: Annotated[int, Range(1)] = 1
    """FSDP: number of devices that share one copy of the parameters."""
    sequence_parallel_size: Annotated[int, Range(1)] = 1
    """Number of GPUs one sequence is split over; must divide the number of ranks."""
    ddp_backend: Literal["nccl", "gloo", "mpi", "ccl", "hccl"] | None = None
    """Communication backend for distributed training."""
    ddp_timeout: Annotated[int, Range(1)] = 1800
    """Timeout of distributed operations in seconds."""
    ddp_find_unused_parameters: bool | None = None
    """Let DDP look for parameters without gradient; None does so for multimodal models, whose rows may have no media.
    """
    ddp_broadcast_buffers: bool | None = None
    """Let DDP send the buffers of rank 0 to the others before each forward pass; None decides by the tuning
    method."""
    train_backend: Literal["transformers", "megatron"] = "transformers"
    """What runs the training loop."""
    tp: Annotated[int, Range(1)] = 1
    """Tensor parallelism of the megatron backend."""
    pp: Annotated[int, Range(1)] = 1
    """Pipeline parallelism of the megatron backend."""
    sequence_parallel: bool = False
    """Split the activations of one sequence over the devices (megatron backend)."""
    model_layer_cls_name: str | None = None
    """FSDP: class name of the layer that is wrapped."""
    deepspeed_config_path: Annotated[str | dict[str, Any] | None, Alias("deepspeed"), Json()] = None
    """Another spelling of deepspeed."""
