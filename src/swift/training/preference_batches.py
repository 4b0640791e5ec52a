"""Batches of answers that are compared: which token is predicted from which place, and to which answer it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from swift.core.log import log
from swift.data.collator import rows
from swift.data.stream import StreamDataset
from swift.params.flag import chosen
from swift.prompts.types import IGNORED
from swift.training.companion_row import companions_of
from swift.training.media_inputs import MediaInputs
from swift.training.objectives import Batch, Setting
from swift.training.objectives.answer_log_probs import MEDIA_INPUTS
from swift.training.rows_with_media import beginnings_agree
from swift.training.shared_beginnings import SHORTEST_PREFIX, WORTH_IT, cannot_share, common_length
from swift.training.varlen_attention import shares_prefixes

SAMPLED, SAMPLED_WITH_MEDIA = 1000, 50
"""Pairs from which the gain of sharing prompts is estimated, spread over all rows; their media are decoded for it."""


def build_pairs(setting: Setting) -> CollatePairs:
    """The collator of pairs; it shares what they begin with where that is asked for, or pays."""
    return CollatePairs(setting.flat, setting.pad_id, shares_prompts(setting), media_inputs(setting))


def media_inputs(setting: Setting) -> MediaInputs | None:
    """What makes inputs of the media of answers; None for a model of text."""
    return None if setting.images is None else MediaInputs(setting.images, setting.base, companions_of(setting))


def build_unpaired(setting: Setting) -> CollateUnpaired:
    """The collator of labelled answers."""
    plan = setting.plan
    assert plan.alignment is not None
    with_kl = plan.alignment.loss.loss_type == "kto"
    return CollateUnpaired(setting.flat, setting.pad_id, plan.data.max_length, with_kl, media_inputs(setting))


@dataclass(frozen=True)
class CollatePairs:
    """Pairs of answers: those of pair i are number 2i (chosen) and 2i + 1 (rejected).

    With `share`, what the two begin with, the prompt as a rule, is computed once: the rejected answer is a sequence of
    its own tokens that goes on after the first tokens of the sequence before it.
    """

    flat: bool
    pad_id: int
    share: bool = False
    media: MediaInputs | None = None

    def __call__(self, items: list[dict[str, Any]]) -> Batch:
        """The batch; `rows` and `items` count pairs. See `answers` for its tensors."""
        ends = [end(item, prefix) for item in items for prefix in ("chosen_", "rejected_")]
        common = [0] * len(ends)
        if self.share and self.flat:
            common[1::2] = [shared_length(item, self.media) for item in items]
        return {**answers(ends, self.flat, self.pad_id, common, self.media), **account(items)}


@dataclass(frozen=True)
class CollateUnpaired:
    """Single answers with labels, and under `kl` each prompt with the answer of the next row of the micro-batch.

    A prompt whose foreign answer would not fit into `max_length` loses its beginning, unless something is shown there.
    One row has no neighbour: then there is no `kl`.
    """

    flat: bool
    pad_id: int
    max_length: int | None = None
    with_kl: bool = True
    media: MediaInputs | None = None

    def __call__(self, items: list[dict[str, Any]]) -> Batch:
        """The batch, with `desirable` (A, bool)."""
        batch = {**answers(items, self.flat, self.pad_id, media=self.media), **account(items)}
        batch["desirable"] = torch.tensor([bool(item["label"]) for item in items])
        if self.with_kl and len(items) > 1:
            following = [*items[1:], items[0]]
            mixed = [self._with_answer_of(item, other) for item, other in zip(items, following, strict=True)]
            batch["kl"] = answers(mixed, self.flat, self.pad_id, media=self.media)
        return batch

    def _with_answer_of(self, item: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        end, start = _answer_start(item), _answer_start(other)
        prompt = item["input_ids"][:end]
        shown = {} if self.media is None else {"media": self.media.joined(item, other, end, start)}
        answer = {
            name: values[start:] for name, values in other.items() if name in ("input_ids", "labels", "loss_scale")
        }
        if self.max_length is not None and not ("media" in shown and shown["media"].any):
            prompt = prompt[max(0, len(prompt) + len(answer["input_ids"]) - self.max_length) :]
        before = {"input_ids": prompt, "labels": [IGNORED] * len(prompt), "loss_scale": [0.0] * len(prompt)}
        return {**{name: [*before[name], *values] for name, values in answer.items()}, **shown}


def end(pair: dict[str, Any], prefix: str) -> dict[str, Any]:
    """One side of a pair of answers (`chosen_` or `rejected_`) as an item of its own."""
    return {name.removeprefix(prefix): value for name, value in pair.items() if name.startswith(prefix)}


def shared_length(pair: dict[str, Any], media: MediaInputs | None = None) -> int:
    """Tokens at the start of a pair that need to be computed once only; 0 where it would not pay.

    Equal tokens at equal places after equal ones have equal hidden states, so any common beginning may be shared. The
    last token of either side is kept apart, so that each has one of its own.
    """
    chosen, rejected = pair["chosen_input_ids"], pair["rejected_input_ids"]
    length = common_length(chosen[:-1], rejected[:-1])
    if length < SHORTEST_PREFIX or (
        media is not None and not media.shareable(end(pair, "chosen_"), end(pair, "rejected_"), length)
    ):
        return 0
    return length


def shares_prompts(setting: Setting) -> bool:
    """Whether common beginnings are computed once, as the plan says or by what it saves. Says what it found."""
    wanted = chosen(setting.plan.train.group.share_prompts)
    if wanted is False:
        return False
    media = media_inputs(setting)
    able = setting.flat and (shares_prefixes(setting.base) if media is None else _shares_with_media(setting, media))
    if not able:
        if wanted:
            raise cannot_share("its attention cannot see two answers after one prompt")
        log.info("prompts are computed once for each answer: this model cannot share them")
        return False
    pairs = setting.rows
    if isinstance(pairs, StreamDataset):
        log.info("prompts are %s", "shared" if wanted else "computed once for each answer: a stream has no known ratio")
        return bool(wanted)
    picked = range(0, len(pairs), max(1, len(pairs) // (SAMPLED if media is None else SAMPLED_WITH_MEDIA)))
    ratio = token_ratio([pairs[i] for i in picked], media)
    shares = wanted or ratio > WORTH_IT
    how = "shared by both answers" if shares else "computed once for each answer"
    log.info("prompts are %s: sharing them makes %.3f x fewer tokens", how, ratio)
    return shares


def _shares_with_media(setting: Setting, media: MediaInputs) -> bool:
    apart = CollatePairs(True, setting.pad_id, media=media)
    return beginnings_agree(setting.base, media.images, apart, replace(apart, share=True))


def token_ratio(pairs: Sequence[dict[str, Any]], media: MediaInputs | None = None) -> float:
    """Tokens of the pairs side by side, divided by those left when common beginnings are computed once."""
    apart = sum(len(pair["chosen_input_ids"]) + len(pair["rejected_input_ids"]) for pair in pairs)
    together = apart - sum(shared_length(pair, media) for pair in pairs)
    return apart / together if together else 1.0


def answers(
    items: Sequence[dict[str, Any]],
    flat: bool,
    pad_id: int,
    common: Sequence[int] | None = None,
    media: MediaInputs | None = None,
) -> dict[str, Any]:
    """Answers of A sequences as the model takes them, and N trained tokens as the loss does.

    `input_ids` with `position_ids`, `sequence_lengths` and `prefix_lengths` (1, T) when flat, else with
    `attention_mask` (A, T). `targets` (N) are the tokens to predict, `predicted_at` (N) the places in the flattened
    batch whose hidden states predict them, `answer` (N) whose they are, `weights` (N) what they count if not 1. `last`
    (A) are the places of the last tokens, `answers` is A. `common` says of each sequence how many first tokens it has
    in common with the last one before it that has 0 there. `media` makes the `media_inputs` of a model that takes some.
    """
    count, common = len(items), [0] * len(items) if common is None else common
    if media is not None:  # behind the answers, as sequences in which nothing is trained
        beside = media.beside(items)
        items, common = [*items, *beside], [*common, *[0] * len(beside)]
    width = max(len(item["input_ids"]) for item in items)
    places = _places([len(item["input_ids"]) for item in items], common, None if flat else width)
    batch: dict[str, Any] = _flat(items, common) if flat else _padded(items, pad_id, width)
    at: list[Tensor] = []
    targets: list[Tensor] = []
    owner: list[Tensor] = []
    weights: list[Tensor] = []
    for number, item in enumerate(items):
        labels = torch.tensor(item["labels"])
        trained = labels != IGNORED
        trained[0] = False
        (where,) = trained.nonzero(as_tuple=True)
        at.append(places[number][where - 1])
        targets.append(labels[where])
        owner.append(torch.full_like(where, number))
        scale = item.get("loss_scale")
        weights.append(torch.ones(len(where)) if scale is None else torch.tensor(scale, dtype=torch.float)[where])
    batch["last"] = torch.stack([place[-1] for place in places[:count]])
    batch["predicted_at"], batch["targets"], batch["answer"] = torch.cat(at), torch.cat(targets), torch.cat(owner)
    if any("loss_scale" in item for item in items):
        batch["weights"] = torch.cat(weights)
    if media is not None:
        ids = batch["input_ids"]
        batch[MEDIA_INPUTS] = media.end_to_end(items, ids, common) if flat else media.padded(items, ids)
    return {**batch, "answers": count}


def account(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Which rows a batch holds, how many, and the reference's log-probabilities (A) where they are known already."""
    known: dict[str, Any] = {}
    if "reference" in items[0]:
        known["reference"] = torch.tensor([value for item in items for value in item["reference"]])
    return {"rows": rows(items), "items": len(items), **known}


def _places(lengths: Sequence[int], common: Sequence[int], width: int | None) -> list[Tensor]:
    """Where each token of each sequence lies in the flattened batch; padded sequences are `width` apart."""
    places: list[Tensor] = []
    start = 0
    first = torch.empty(0)
    for length, shared in zip(lengths, common, strict=True):
        own = torch.arange(start, start + length - shared)
        first = first if shared else own
        places.append(torch.cat([first[:shared], own]) if shared else own)
        start += len(own) if width is None else width
    return places


def _flat(items: Sequence[dict[str, Any]], common: Sequence[int]) -> dict[str, Any]:
    pieces = [torch.tensor(item["input_ids"][shared:]) for item, shared in zip(items, common, strict=True)]
    positions = [torch.arange(s, s + len(piece)) for piece, s in zip(pieces, common, strict=True)]
    batch: dict[str, Any] = {
        "input_ids": torch.cat(pieces)[None],
        "position_ids": torch.cat(positions)[None],
        "sequence_lengths": tuple(len(piece) for piece in pieces),
    }
    if any(common):
        batch["prefix_lengths"] = tuple(common)
    return batch


def _padded(items: Sequence[dict[str, Any]], pad_id: int, width: int) -> dict[str, Any]:
    ids = torch.full((len(items), width), pad_id)
    mask = torch.zeros((len(items), width), dtype=torch.long)
    for number, item in enumerate(items):
        length = len(item["input_ids"])
        ids[number, :length] = torch.tensor(item["input_ids"])
        mask[number, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _answer_start(item: dict[str, Any]) -> int:
    return next(i for i, label in enumerate(item["labels"]) if label != IGNORED)
