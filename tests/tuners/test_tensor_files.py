"""Whole models on their way to disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed as dist
from transformers.distributed import mixin

from swift.tuners.tensor_files import write_model
from training.kit import tiny_model


def test_a_process_that_is_not_the_first_writes_weights_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with --save_on_each_node. When `theirs` has weights as well, that file of `swift.compat` can go."""
    model = tiny_model()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    monkeypatch.setattr(mixin, "_get_torch_distributed_rank", lambda: 1)
    try:
        model.save_pretrained(tmp_path / "theirs")
        write_model(model, tmp_path / "ours")
    finally:
        dist.destroy_process_group()
    assert not list((tmp_path / "theirs").glob("*.safetensors"))
    assert {path.name for path in (tmp_path / "ours").iterdir()} >= {"model.safetensors", "config.json"}
    assert "should_save_on_this_rank" not in vars(model)
