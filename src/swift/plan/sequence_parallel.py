"""`--sequence_parallel_size` decided: how many processes compute a row together, and with what that does not go."""

from __future__ import annotations

from collections.abc import Iterator

from swift.core.errors import NotBuilt, SwiftError, raise_together
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.groups import Distributed, Model, Train
from swift.plan.methods import method_name

FLAG = "--sequence_parallel_size"


def plan_sequence_parallel(args: Args, machine: Machine, sft_type: str) -> int:
    """Processes that compute a row together; 1: each has rows of its own. Raises SwiftError for what cannot be."""
    size = args[Distributed].sequence_parallel_size
    if size > 1:
        raise_together([*_misfits(args, machine, size, sft_type)])
    return size


def _misfits(args: Args, machine: Machine, size: int, sft_type: str) -> Iterator[SwiftError]:
    if machine.world_size % size:
        fitting = [n for n in range(1, machine.world_size + 1) if machine.world_size % n == 0]
        yield SwiftError(
            f"{FLAG} {size} does not divide the number of processes ({machine.world_size})",
            where=FLAG,
            next=f"use one of {', '.join(map(str, fitting))}" if len(fitting) > 1 else "set NPROC_PER_NODE=N",
        )
    if args[Model].rope_scaling == "dynamic":
        yield SwiftError(
            f"--rope_scaling dynamic does not go together with {FLAG}",
            where=FLAG,
            why="it scales positions by the longest that a process sees",
            next="use --rope_scaling yarn or linear",
        )
    train, method = args[Train], method_name(args)
    given = {
        f"swift {method}": method in ("ppo", "grpo"),
        "--sft_type longlora": sft_type == "longlora",
        "--acc_strategy sentence": train.acc_strategy == "sentence",
        "--loss_name long-ce": train.loss_name == "long-ce",
        "--torch_compile": train.torch_compile,
        "--use_flash_attn": args[Model].use_flash_attn,
        "--tuner_backend unsloth": args.values.get("tuner_backend") == "unsloth",
    }
    for what, is_given in given.items():
        if is_given:
            yield NotBuilt(f"{what} is not built yet with {FLAG}", where=FLAG, next="drop one of the two")
