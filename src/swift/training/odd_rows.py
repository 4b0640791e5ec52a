"""What encoded rows show, before the first step, of a run that will not learn, or will seem to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from swift.prompts.types import IGNORED
from swift.training.why_not_learning import Cause

FEW_ANSWERS = 8
"""Fewer equal answers than this may be chance, or all that there is to learn."""
ONE_IN = 4
"""Rows that ask what another one asks are named from one in so many on: fewer may be meant."""
SHORT_ANSWER = 32
"""Tokens of an answer up to which another one to the same question contradicts it: longer ones differ in words."""
ANSWERS = ("labels", "chosen_labels")
PARTS = ("input_ids", "chosen_input_ids", "rejected_input_ids")
Tokens = tuple[tuple[int, ...], ...]
"""The token ids of a row: one conversation or prompt, or the two answers of a pair."""


class Rows(Protocol):
    """Encoded examples by number; `lengths` are their tokens, of a pair those of its longer answer."""

    @property
    def lengths(self) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, place: int, /) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Effort:
    """How many rows are looked at: so many that a fault shows, and so few that it takes no time."""

    answers: int = 256
    """Rows whose answers are compared."""
    tokens: int = 4_000_000
    """Tokens of each side that are compared token for token, which takes half a second."""
    text_tokens: int = 1_000_000
    """Tokens of each side that are compared as text, which takes a second."""


OF_LAZY_ROWS = Effort(answers=32, tokens=100_000, text_tokens=0)
"""Where each row is encoded anew to be looked at."""


def in_rows(
    train: Rows,
    val: Rows | None,
    text: Callable[[Sequence[int]], str],
    *,
    plain_text: bool = False,
    effort: Effort = Effort(),
) -> list[Cause]:
    """The causes in conversations, pairs of answers or prompts. `text` gives what token ids read as."""
    looked_at = [train[place] for place in range(0, len(train), max(1, len(train) // effort.answers))]
    causes = [_same_answers(looked_at), _no_weights(looked_at)]
    if not plain_text:
        causes += [_no_questions(looked_at), _same_questions(train, effort)]
    if val is not None:
        causes.append(_seen_rows(train, val, text, effort))
    return [cause for cause in causes if cause is not None]


def _same_answers(rows: Sequence[Mapping[str, Any]]) -> Cause | None:
    side = next((name for name in ANSWERS if name in rows[0]), None)
    if side is None or len(rows) < FEW_ANSWERS:
        return None
    if len({tuple(label for label in row[side] if label != IGNORED) for row in rows}) > 1:
        return None
    return Cause(
        "identical answers",
        f"the {len(rows)} rows that were looked at all have the same {'' if side == 'labels' else 'better '}answer",
        "look at the column of the answers (--columns names it): a model learns to say this, whatever is asked",
    )


def _no_weights(rows: Sequence[Mapping[str, Any]]) -> Cause | None:
    """Weights are there where rules of a loss scale are given."""
    weights = [row[name] for row in rows for name in row if name.endswith("loss_scale")]
    if not weights or any(weight not in (0, 1) for of_row in weights for weight in of_row):
        return None
    return Cause(
        "a loss scale without weights",
        f"no token of the {len(rows)} rows that were looked at has a weight other than 1 and 0 by --use_loss_scale",
        "look at the rules (--loss_scale_config_path) if they are to do more than leave parts of answers out",
    )


def _same_questions(train: Rows, effort: Effort) -> Cause | None:
    """Of conversations. A question is what stands before the first trained token; pairs repeat theirs on purpose."""
    answers: defaultdict[int, set[int]] = defaultdict(set)
    asked, longest = Counter[int](), Counter[int]()
    for place in _within(range(len(train)), train.lengths, effort.text_tokens or effort.tokens):
        row = train[place]
        if "labels" not in row or "label" in row:
            return None
        ids = tuple(row["input_ids"])
        begin = next((at for at, label in enumerate(row["labels"]) if label != IGNORED), 0)
        if begin <= 1:  # plain text, and at most a token of the beginning
            continue
        question = hash(ids[:begin])
        asked[question] += 1
        answers[question].add(hash(ids[begin:]))
        longest[question] = max(longest[question], len(ids) - begin)
    differing = [question for question in asked if len(answers[question]) > 1]
    if len(asked) == 1 and differing and asked.total() >= FEW_ANSWERS:
        return Cause(
            "identical questions",
            f"the {asked.total()} rows that were looked at all ask the same, and have other answers",
            "look at the column of the questions (--columns names it): a model learns to say any of these answers",
        )
    several = sum(asked[question] for question in differing if longest[question] <= SHORT_ANSWER)
    if several < max(FEW_ANSWERS, asked.total() / ONE_IN):
        return None
    return Cause(
        "one question with several answers",
        f"{several} of the {asked.total()} rows that were looked at ask what another one asks, and shortly answer "
        "otherwise",
        "leave out the wrong ones if they contradict each other: a model learns a mix of them",
    )


def _no_questions(rows: Sequence[Mapping[str, Any]]) -> Cause | None:
    """Of a row that is trained whole but for its first token, nothing but a piece of an answer is left."""
    side = next((name for name in ANSWERS if name in rows[0]), None)
    alone = 0 if side is None else sum(IGNORED not in row[side][1:] for row in rows)
    if 2 * alone <= len(rows):
        return None
    return Cause(
        "answers without a question",
        f"{alone} of the {len(rows)} rows that were looked at are the answer alone",
        "raise --max_length: what is cut off is the beginning of a row, where its question stands",
    )


def _seen_rows(train: Rows, val: Rows, text: Callable[[Sequence[int]], str], effort: Effort) -> Cause | None:
    """Token for token among rows of the same length; then, where there are none, as words."""
    own = [_tokens(val[place]) for place in _within(range(len(val)), val.lengths, effort.tokens)]
    wanted = {max(map(len, tokens)) for tokens in own}
    same_length = (place for place, length in enumerate(train.lengths) if int(length) in wanted)
    seen = {hash(_tokens(train[place])) for place in _within(same_length, train.lengths, effort.tokens)}
    both, how = sum(hash(tokens) in seen for tokens in own), "token for token"
    if not both and effort.text_tokens:
        seen = {
            _letters(_tokens(train[place]), text)
            for place in _within(range(len(train)), train.lengths, effort.text_tokens)
        }
        looked_at = (own[place] for place in _within(range(len(own)), val.lengths, effort.text_tokens))
        both, how = sum(_letters(tokens, text) in seen for tokens in looked_at), "but for spaces and capitals"
    if not both:
        return None
    return Cause(
        "evaluation rows inside the training rows",
        f"{both} of {len(own)} rows of validation are trained on too, {how}",
        "take them out of --dataset, or give others as --val_dataset: eval_loss falls while nothing general is learned",
    )


def _within(places: Iterable[int], lengths: Sequence[int], tokens: int) -> Iterator[int]:
    """The first of the places, up to so many tokens."""
    for place in places:
        tokens -= int(lengths[place])
        if tokens < 0:
            return
        yield place


def _letters(tokens: Tokens, text: Callable[[Sequence[int]], str]) -> int:
    return hash(tuple("".join(text(part).casefold().split()) for part in tokens))


def _tokens(row: Mapping[str, Any]) -> Tokens:
    return tuple(tuple(row[name]) for name in PARTS if name in row)
