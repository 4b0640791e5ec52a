"""What needs weights as a whole, and so does not run where each process has a share of them."""

from __future__ import annotations

from collections.abc import Iterator

from swift.core.errors import NotBuilt
from swift.params.args import Args
from swift.params.flag import chosen
from swift.params.groups import Train
from swift.plan.methods import method_name


def sharded_misfits(args: Args, engine: str, instead: str) -> Iterator[NotBuilt]:
    """What of the run reads weights as a whole, of which each process has a share with this engine."""
    method, train = method_name(args), args[Train]
    given = {
        f"swift {method}": method in ("ppo", "grpo"),
        "--quantization_bit": args.values.get("quantization_bit"),
        "--torch_compile": train.torch_compile,
        "--use_liger": train.use_liger,
        "--pack_frozen_layers true": args.is_explicit("pack_frozen_layers") and chosen(train.pack_frozen_layers),
    }
    for what, is_given in given.items():
        if is_given:
            yield NotBuilt(
                f"{what} is not built yet with {engine}, which shares weights out", where=engine, next=instead
            )
