"""What tests of LMDeploy have in common: it has an environment of its own, and warns a lot."""

from __future__ import annotations

import importlib.util

import pytest

needs_lmdeploy = pytest.mark.skipif(
    importlib.util.find_spec("lmdeploy") is None, reason="LMDeploy has an environment of its own: make test-vllm"
)
ITS_WARNINGS = [
    pytest.mark.filterwarnings(f"ignore::{name}") for name in ("FutureWarning", "DeprecationWarning", "UserWarning")
]
