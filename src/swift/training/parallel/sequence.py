"""Several processes that compute one row together: each has a stretch of its tokens, and attends with some heads.

What a row is does not change (DeepSpeed-Ulysses, arXiv 2309.14509, over flattened batches): labels are placed before
the row is cut, attention sees whole sequences, and each process adds its tokens to the sums a step is divided by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PretrainedConfig
from transformers.integrations.sdpa_attention import repeat_kv

from swift.core.errors import SwiftError
from swift.models.context_window import rope_kinds
from swift.prompts.types import IGNORED
from swift.training.objectives import Batch
from swift.training.objectives.answer_log_probs import ANSWER_TOKENS, token_counts

FLAG = "--sequence_parallel_size"
BY_LENGTH = {"dynamic", "longrope"}
"""Kinds of rotary embedding that look at the largest position of a batch."""
OF_TOKENS = {"labels": IGNORED, "loss_scale": 0.0}
"""Fields of a batch that have a number for each token, and what there is where none is."""
OF_TARGETS = ("targets", "answer", "weights")
"""Fields that have one for each token that is predicted."""
Attention = Callable[..., tuple[Tensor, None]]


class SequenceGroup:
    """The processes that have one row, as one of them sees it."""

    def __init__(self, size: int, config: PretrainedConfig):
        """`size` neighbours each, for a model of this configuration. All processes of the run make theirs together."""
        heads = config.get_text_config().num_attention_heads
        if kinds := {str(rope.get("rope_type")) for rope in rope_kinds(config).values()} & BY_LENGTH:
            raise SwiftError(
                f"{FLAG} does not go together with this model's positions ({', '.join(kinds)})",
                where=FLAG,
                why="they are scaled by the longest that a process sees",
                next="leave it out, or use --rope_scaling yarn with a model of plain positions",
            )
        if size > heads:
            raise SwiftError(
                f"{FLAG} {size} is more than the model has heads of attention ({heads})",
                where=FLAG,
                why="each process attends with some of them",
                next=f"use {heads} or less",
            )
        rank, world = dist.get_rank(), dist.get_world_size()
        groups = [dist.new_group(list(range(first, first + size))) for first in range(0, world, size)]
        self._group: Any = groups[rank // size]
        self._size, self._place = size, rank % size
        self.row, self.rows = rank // size, world // size
        """Which of so many different rows this process has at a time."""

    def share(self, batch: Batch) -> Batch:
        """The stretch of a flattened batch that is computed here, all as long as the others'.

        What is missing to that is a sequence of its own without targets. `labels` and `loss_scale` have one place more,
        as each position predicts the next one. What is said of whole answers stays.
        """
        ids, lengths = batch["input_ids"], list(batch["sequence_lengths"])
        missing = -ids.shape[1] % self._size
        if missing:
            lengths.append(missing)
        length = (ids.shape[1] + missing) // self._size
        start, end = self._place * length, (self._place + 1) * length
        positions = torch.cat([batch["position_ids"], torch.arange(missing)[None]], 1)
        at = batch["predicted_at"]
        here = (at >= start) & (at < end)
        mine = {
            **batch,
            "input_ids": _filled(ids, missing, 0)[:, start:end],
            "position_ids": positions[:, start:end],
            "predicted_at": at[here] - start,
            "sequence_lengths": tuple(lengths),
            "sequence_group": self,
            "tokens": max(0, min(end, ids.shape[1]) - start),
        }
        for name, fill in OF_TOKENS.items():
            if name in batch:
                mine[name] = _filled(batch[name], missing + 1, fill)[:, start : end + 1]
        for name in OF_TARGETS:
            if name in batch:
                mine[name] = batch[name][here]
        if "prefix_lengths" in batch and missing:
            mine["prefix_lengths"] = (*batch["prefix_lengths"], 0)
        if "answer" in batch:
            mine[ANSWER_TOKENS] = token_counts(batch)
        if "kl" in batch:
            mine["kl"] = self.share(batch["kl"])
        return mine

    def sum(self, parts: Tensor) -> Tensor:
        """The sum of what each process of the group has a part of, in all of them; differentiable."""
        whole: Tensor = _Sum.apply(parts, self._group)
        return whole

    def attend(self, inner: Attention, query: Tensor, key: Tensor, value: Tensor, **how: Any) -> Tensor:
        """`inner` over whole rows with the heads of this process.

        query (1, heads, T / size, dim), key and value (1, kv_heads, T / size, dim) -> (1, T / size, heads, dim).
        """
        heads, length = query.shape[1], query.shape[2]
        groups = heads // key.shape[1]
        if groups > 1:
            key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        counts = [heads // self._size + (place < heads % self._size) for place in range(self._size)]
        mine = counts[self._place]
        whole = self._exchange(
            [torch.stack(parts) for parts in zip(*(x[0].split(counts) for x in (query, key, value)), strict=True)],
            [(3, mine, length, part.shape[-1]) for part in [query] * self._size],
        )
        q, k, v = torch.cat(whole, 2).unbind()
        out, _ = inner(query=q[None], key=k[None], value=v[None], **how)
        parts = self._exchange(list(out[0].split(length)), [(length, count, out.shape[-1]) for count in counts])
        return torch.cat(parts, 1)[None]

    def _exchange(self, parts: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Send a part to each process, and get one of each of these shapes."""
        sent = [part.numel() for part in parts]
        got = [torch.Size(shape).numel() for shape in shapes]
        flat: Any = _AllToAll.apply(torch.cat([part.reshape(-1) for part in parts]), sent, got, self._group)
        return [part.reshape(shape) for part, shape in zip(flat.split(got), shapes, strict=True)]


class _AllToAll(torch.autograd.Function):
    """`all_to_all_single` of flat tensors, whose gradients go the other way."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, sent: list[int], got: list[int], group: Any) -> Tensor:
        """See `torch.distributed.all_to_all_single`."""
        ctx.sizes, ctx.group = (sent, got), group
        return _sent(flat, sent, got, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Each part of the gradient to the process that sent the part."""
        sent, got = ctx.sizes
        return _sent(gradients[0], got, sent, ctx.group), None, None, None


class _Sum(torch.autograd.Function):
    """A sum over processes, each of which goes on with it: a part counts in what every one of them makes of the sum."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: Any) -> Tensor:
        """See `torch.distributed.all_reduce`."""
        ctx.group = group
        return _summed(parts, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The sum of their gradients."""
        return _summed(gradients[0], ctx.group), None


def _summed(parts: Tensor, group: Any) -> Tensor:
    whole = parts.clone()
    dist.all_reduce(whole, group=group)
    return whole


def _sent(flat: Tensor, sent: list[int], got: list[int], group: Any) -> Tensor:
    received = flat.new_empty(sum(got))
    dist.all_to_all_single(received, flat.contiguous(), got, sent, group=group)
    return received


def _filled(row: Tensor, missing: int, fill: float) -> Tensor:
    """(1, T) with as many more numbers at its end."""
    return torch.cat([row, row.new_full((1, missing), fill)], 1)
