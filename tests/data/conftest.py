"""Encoders with the chatml template."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from hub.small_hub import SmallHub, serve
from swift.catalog import load_catalog
from swift.plan.prompt import PromptPlan
from swift.prompts.encode import Encoder, build_encoder


@pytest.fixture(scope="session")
def tokenizer(smollm2_tokenizer_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(smollm2_tokenizer_dir)


@pytest.fixture(scope="session")
def encode_with(tokenizer: Any) -> Callable[..., Encoder]:
    """An encoder with the chatml template and some options of its own."""

    def make(max_length: int | None = 2048, strategy: str = "delete", system: str | None = None) -> Encoder:
        plan = PromptPlan(
            template_type="chatml",
            system=system,
            tools_format=None,
            max_length=max_length,
            truncation_strategy=strategy,  # type: ignore[arg-type]
            loss_scale=None,
        )
        return build_encoder(plan, tokenizer, load_catalog())

    return make


@pytest.fixture(scope="session")
def encoder(encode_with: Callable[..., Encoder]) -> Encoder:
    return encode_with()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SmallHub]:
    """ModelScope on loopback, with its cache in `tmp_path / "hub"`."""
    with serve() as running:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", running.url)
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
        yield running
