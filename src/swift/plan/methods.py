"""Every training method in a table: the rows it takes, how rows become a batch, and what it minimises.

`swift sft` and `swift pt` are methods of their own, `swift rlhf` has one for each `--rlhf_type`. A new one is a file in
`swift/training/objectives/` and a row here. Code is named, so that planning imports none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from swift.core.errors import NotBuilt
from swift.params.args import Args
from swift.params.frozen import Frozen

Kind = Literal["chat", "pairs", "kto", "prompt"]
"""What a row becomes: one conversation, a pair of answers, one answer with a label, or a prompt to answer."""


class Method(Frozen):
    """One way to train."""

    kind: Kind
    collator: str = "swift.training.batches:build"
    """`module:function` from a Setting (below) to what makes a batch of items."""
    objective: str | None = None
    """`module:function` from `swift.training.objectives.Setting` to an Objective; None is not built yet."""


PAIRS = "swift.training.preference_batches:build_pairs"
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "sft": Method("chat", objective="swift.training.objectives.sft:build"),
        "pt": Method("chat", objective="swift.training.objectives.sft:build"),
        "dpo": Method("pairs", PAIRS, "swift.training.objectives.dpo:build"),
        "orpo": Method("pairs", PAIRS, "swift.training.objectives.orpo:build"),
        "simpo": Method("pairs", PAIRS, "swift.training.objectives.cpo:build"),
        "cpo": Method("pairs", PAIRS, "swift.training.objectives.cpo:build"),
        "rm": Method("pairs", PAIRS, "swift.training.objectives.reward:build"),
        "kto": Method("kto", "swift.training.preference_batches:build_unpaired", "swift.training.objectives.kto:build"),
        "ppo": Method("prompt"),
    }
)


def method_name(args: Args) -> str:
    """The method that a training command asks for."""
    return args.values["rlhf_type"] if args.command == "rlhf" else args.command


def plan_method(args: Args) -> str:
    """The name of a method that can be carried out. Raises NotBuilt for one that cannot yet."""
    name = method_name(args)
    if METHODS[name].objective is None:
        raise NotBuilt(f"--rlhf_type {name} is not built yet", where="--rlhf_type")
    return name
