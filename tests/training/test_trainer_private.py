"""The private methods of transformers that checkpoints rest on are those that were read."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest
from transformers import Trainer

from swift.training import trainer, trainer_private

ROOT = Path(__file__).parents[2]


def test_transformers_is_the_one_that_was_read() -> None:
    """When this fails: read `swift.training.trainer_private` against the new release, then move `READ`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (taken,) = [name for name in project["dependencies"] if re.match(r"transformers\b", name)]
    assert taken.removeprefix("transformers") == trainer_private.READ


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_save_checkpoint", ["self", "model", "trial"]),
        ("_load_from_checkpoint", ["self", "resume_from_checkpoint", "model"]),
        ("_prepare_for_training", ["self", "max_steps", "train_dataloader", "resume_from_checkpoint"]),
        ("_load_optimizer_and_scheduler", ["self", "checkpoint"]),
        ("_defer_fsdp_gradient_reduction", ["self"]),
        ("_get_grad_norm", ["self", "model", "grad_norm"]),
        ("_load_scaler", ["self", "checkpoint"]),
        ("_save_scaler", ["self", "output_dir"]),
        ("_save_rng_state", ["self", "output_dir"]),
        ("_load_rng_state", ["self", "checkpoint"]),
    ],
)
def test_what_is_used_is_there(method: str, parameters: list[str]) -> None:
    assert list(inspect.signature(Trainer.__dict__[method]).parameters) == parameters


def test_nothing_private_of_transformers_is_used_elsewhere() -> None:
    private = {name for name in Trainer.__dict__ if re.fullmatch(r"_[a-z]\w*", name)}
    assert set(re.findall(r"\b_[a-z]\w*", inspect.getsource(trainer))) & private == set()
