"""Weights on their way to a disk that may be full."""

from __future__ import annotations

from safetensors import SafetensorError

from swift.core.writable import reason

TORCH_WRITER = ("PytorchStreamWriter", "inline_container")
"""What a RuntimeError of `torch.save` names when the file could not be written."""
FAILURES = (OSError, RuntimeError, SafetensorError)
"""What writers of weights raise; `unwritten` tells whether it was about the file."""


def unwritten(error: Exception) -> str | None:
    """Why a file could not be written, or None when the error is about something else."""
    if isinstance(error, OSError):
        return reason(error)
    if isinstance(error, SafetensorError):
        return str(error)
    torchs = any(name in str(error) for name in TORCH_WRITER)
    return "the file could not be written to its end" if torchs else None
