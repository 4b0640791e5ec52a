"""The order in which rows come, as torch draws it, without torch."""

from __future__ import annotations

from numpy.random import MT19937, RandomState


def row_order(rows: int, seed: int) -> list[int]:
    """`torch.randperm(rows)` of a generator seeded with `seed`: a shuffle after Fisher and Yates over 32 bit draws.

    transformers' Trainer orders the rows of an epoch so, and a test holds this to torch.
    """
    order = list(range(rows))
    twister = RandomState(MT19937())
    twister.seed(seed % 2**32)
    draws = twister.randint(0, 2**32, size=max(rows - 1, 0), dtype="uint32").tolist()
    for place, draw in enumerate(draws):
        other = place + draw % (rows - place)
        order[place], order[other] = order[other], order[place]
    return order
