"""Asks torch, the environment and the installed packages what this machine can do."""

from __future__ import annotations

import sys
from pathlib import Path

from swift.core.environment import read_int
from swift.core.machine import Device, Machine
from swift.core.optional_imports import installed

OPTIONAL = (
    "aqlm",
    "bitsandbytes",
    "compressed_tensors",
    "deepspeed",
    "flash_attn",
    "gguf",
    "gptqmodel",
    "hqq",
    "kernels",
    "liger_kernel",
    "lmdeploy",
    "optimum",
    "torchao",
    "unsloth",
    "vllm",
    "xllamacpp",
)
"""Modules whose presence decides what a plan may use."""

DEVICE_FILES = ("nvidia*", "nvhost*", "nvgpu*", "kfd", "dxg")
"""What Linux has in /dev where there is a GPU: NVIDIA's (Jetson's too), AMD's, Windows' below WSL."""


def probe() -> Machine:
    """The machine this process runs on. Ranks come from torchrun's environment variables."""
    device, count, bf16 = _device()
    return Machine(
        device=device,
        device_count=count,
        bf16=bf16,
        rank=read_int("RANK", 0),
        local_rank=read_int("LOCAL_RANK", 0),
        world_size=read_int("WORLD_SIZE", 1),
        local_world_size=read_int("LOCAL_WORLD_SIZE", 1),
        packages=frozenset(name for name in OPTIONAL if installed(name)),
    )


def _device() -> tuple[Device, int, bool]:
    if not may_have_accelerator():
        return "cpu", 0, True
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.device_count(), torch.cuda.is_bf16_supported()
    if installed("torch_npu"):
        import torch_npu  # pyright: ignore[reportMissingImports]

        if torch_npu.npu.is_available():
            return "npu", torch_npu.npu.device_count(), True
    if torch.backends.mps.is_available():
        return "mps", 1, True
    return "cpu", 0, True


def may_have_accelerator() -> bool:
    """Whether torch has to be asked, which takes a second or more to load: Linux without a device file has none."""
    if sys.platform != "linux" or installed("torch_npu"):
        return True
    return any(next(Path("/dev").glob(pattern), None) for pattern in DEVICE_FILES)
