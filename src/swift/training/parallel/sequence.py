"""Several processes that compute one row together: each has a stretch of its tokens, and attends with some heads.

What a row is does not change (DeepSpeed-Ulysses, arXiv 2309.14509, over flattened batches): labels are placed before
the row is cut, attention sees whole sequences, and each process adds its tokens to the sums a step is divided by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv

from swift.core.errors import SwiftError
from swift.models.context_window import rope_kinds
from swift.models.families import OF_TOKENS as OF_PROMPT
from swift.models.families import is_multimodal
from swift.prompts.types import IGNORED
from swift.training.objectives import Batch
from swift.training.objectives.answer_log_probs import ANSWER_TOKENS, ENDED_HERE, MEDIA_INPUTS, token_counts

FLAG = "--sequence_parallel_size"
BY_LENGTH = {"dynamic", "longrope"}
"""Kinds of rotary embedding that look at the largest position of a batch."""
OF_TOKENS = {"labels": IGNORED, "loss_scale": 0.0}
"""Fields of a batch that have a number for each token, and what there is where none is."""
PIECES, FEATURES = "visual_pos_masks", "deepstack_visual_embeds"
"""Which tokens are pieces of images, and what some decoders add to those, layer by layer."""
AMONG_TOKENS = (PIECES, "position_ids", *OF_PROMPT)
"""What decoders are given of each token beside its embedding."""
OF_TARGETS = ("targets", "answer", "weights")
"""Fields that have one for each token that is predicted."""
Attention = Callable[..., tuple[Tensor, None]]


class SequenceGroup:
    """The processes that have one row, as one of them sees it."""

    def __init__(self, size: int, config: PretrainedConfig):
        """`size` neighbours each, for a model of this configuration. All processes of the run make theirs together."""
        self._whole = is_multimodal(config)
        """Whether models are given whole rows, which their decoders cut (`cut_in_decoder`)."""
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
        here = self._here(ids.shape[1] + missing)
        whole = {**batch, **_lengthened(batch, missing), "sequence_lengths": tuple(lengths)}
        if MEDIA_INPUTS in batch:
            whole[MEDIA_INPUTS] = {**batch[MEDIA_INPUTS], **_lengthened(batch[MEDIA_INPUTS], missing)}
        if not self._whole:
            whole |= {name: whole[name][:, here] for name in ("input_ids", "position_ids")}
        at = batch["predicted_at"]
        predicted = (at >= here.start) & (at < here.stop)
        mine = {
            **whole,
            "predicted_at": at[predicted] - here.start,
            "sequence_group": self,
            "tokens": max(0, min(here.stop, ids.shape[1]) - here.start),
        }
        for name, fill in OF_TOKENS.items():
            if name in batch:
                mine[name] = _filled(batch[name], missing + 1, fill)[:, here.start : here.stop + 1]
        for name in OF_TARGETS:
            if name in batch:
                mine[name] = batch[name][predicted]
        if "last" in batch:
            ends = (batch["last"] >= here.start) & (batch["last"] < here.stop)
            mine["last"], mine[ENDED_HERE] = batch["last"][ends] - here.start, ends.nonzero()[:, 0]
        if "answer" in batch:
            mine[ANSWER_TOKENS] = token_counts(batch)
        if "kl" in batch:
            mine["kl"] = self.share(batch["kl"])
        return mine

    def _here(self, length: int) -> slice:
        """The places of a row of `length` tokens that are computed here."""
        own = length // self._size
        return slice(self._place * own, (self._place + 1) * own)

    def stretch(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What a decoder is given of a whole row, for the tokens that are computed here."""
        here = self._here(given["inputs_embeds"].shape[1])
        mine = {name: given[name][..., here] for name in AMONG_TOKENS if given.get(name) is not None}
        mine["inputs_embeds"] = given["inputs_embeds"][:, here]
        if given.get(FEATURES) is not None:
            pieces = given[PIECES][0]
            before, own = int(pieces[: here.start].sum()), int(pieces[here].sum())
            mine[FEATURES] = [features[before : before + own] for features in given[FEATURES]]
        return {**given, **mine}

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


def cut_in_decoder(model: PreTrainedModel, decoder: str) -> None:
    """Let the `decoder` of a model compute a stretch of a row of which several processes have the whole.

    Each embeds all that is shown, so that features find their tokens, and learns of it what its own tokens teach.
    """

    def cut(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        group: SequenceGroup | None = given.get("sequence_group")
        return args, given if group is None else group.stretch(given)

    model.get_submodule(decoder).register_forward_pre_hook(cut, with_kwargs=True)


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


def _lengthened(batch: Mapping[str, Any], missing: int) -> dict[str, Any]:
    """The inputs that have something for each token or each sequence, with a sequence of `missing` tokens more."""
    if not missing:
        return {}
    longer: dict[str, Any] = {}
    for name in ("input_ids", *OF_PROMPT):
        if name in batch:
            longer[name] = _filled(batch[name], missing, 0)
    if "position_ids" in batch:
        places = batch["position_ids"]
        longer["position_ids"] = torch.cat([places, torch.arange(missing).expand(*places.shape[:-1], missing)], -1)
    for name, nothing in (("prefix_lengths", 0), ("both_ways", ())):
        if name in batch:
            longer[name] = (*batch[name], nothing)
    return longer


def _filled(row: Tensor, missing: int, fill: float) -> Tensor:
    """(1, T) with as many more numbers at its end."""
    return torch.cat([row, row.new_full((1, missing), fill)], 1)
