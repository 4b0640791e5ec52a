"""Keeps the names in PEFT's configs and files as they are given, on mixtures of experts too.

PEFT 0.21 reads `gate_proj`, `up_proj` and `down_proj` on some thirty model types as the experts' layers of
transformers 4 and turns them into parameters of the fused experts of transformers 5. Dense blocks and shared experts
of the same names then get no adapter, without a word (https://github.com/huggingface/peft/issues/3711). It turns the
names in adapter files as well, and breaks some (`mlp.shared_experts.` of Laguna). Both are decided by
`config.model_type` alone (`peft.utils.transformers_weight_conversion`).

pyproject.toml admits PEFT 0.21 alone; a test in tests/tuners/test_names_as_given.py fails when this can go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def names_as_given(model: Any) -> Iterator[None]:
    """While it lasts, PEFT takes the names of layers of `model` (a PeftModel or its base) as they are written."""
    kind = model.config.model_type
    model.config.model_type = ""  # the one thing that PEFT asks before it turns names
    try:
        yield
    finally:
        model.config.model_type = kind
