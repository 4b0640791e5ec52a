"""Lets `save_pretrained` write in the process that calls it, as it did in transformers 4.

transformers 5.23 writes in the first process of all alone (`PreTrainedModel.should_save_on_this_rank`), so on the disks
of other machines, where `--save_on_each_node` has a process write too, there are folders without weights.

pyproject.toml admits transformers 5.23 alone; a test in tests/tuners/test_tensor_files.py fails when this can go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def writing_here(model: Any) -> Iterator[None]:
    """While it lasts, `model.save_pretrained` writes."""
    name = "should_save_on_this_rank"
    vars(model)[name] = bool
    try:
        yield
    finally:
        del vars(model)[name]
