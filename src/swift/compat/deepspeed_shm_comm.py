"""Starts DeepSpeed on a CPU without compiling anything.

DeepSpeed 0.19 compiles a library for shared memory when the processes of a machine join, which takes minutes, and a
start that is interrupted leaves a lock behind at which all later ones hang. To find out whether it could, it calls
compilers, whose errors go to the terminal. gloo does the same work.

pyproject.toml admits DeepSpeed 0.19 alone; tests/training/test_parallel.py fails when it looks elsewhere for what can
be compiled.
"""

from __future__ import annotations

from typing import Any

NAME = "deepspeed_shm_comm"


def compile_nothing(ops: Any) -> None:
    """Tell `deepspeed.ops`, before the first process joins, that this machine can compile none of them."""
    ops.__compatible_ops__ = {NAME: False}
