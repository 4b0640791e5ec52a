"""The preprocessor: a row of any file becomes a conversation, then examples of token ids and labels."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.core.optional_imports import MissingPackage
from swift.core.strict_json import RepeatedKey, unrepeated
from swift.data.adapters import converter
from swift.data.column_proposal import proposal
from swift.data.columns import names, replaced
from swift.data.fields import LABELS
from swift.data.formats import PLAIN_ANSWER, Converted, convert
from swift.data.ledger import UNTRAINED
from swift.data.media_archives import placed
from swift.data.source import SourceFile, SourceRow
from swift.plan.data import Rounds
from swift.plan.methods import Kind
from swift.prompts.bad_row import BadRow
from swift.prompts.encode import AnswerTooLong, Encoder, TooLong
from swift.prompts.images import BadMedium, without_answer
from swift.prompts.rewrites import LOST
from swift.prompts.types import IGNORED, Encoded, Media, Origin, Preference, Row


@dataclass(frozen=True)
class Made:
    """Examples of one row, and its counts."""

    examples: list[dict[str, Any]]
    tokens: int
    trained: int
    truncated: bool
    rewrites: tuple[str, ...] = ()
    """Remarks on what the chat template made of the row's text."""


UNENCODED = Made([], 0, 0, False)
"""The result of a row that is only converted."""


@dataclass(frozen=True)
class Outcome:
    """What became of one row: `converted` is None when it cannot be read, `result` says why it gives no example."""

    converted: Converted | None
    result: Made | BadRow

    @property
    def note(self) -> str | None:
        """What had to be mended."""
        return "; ".join(self.converted.notes) if self.converted is not None and self.converted.notes else None


@cache
def code_digest(*packages: str) -> str:
    """Changes with the code of the packages, so that nothing an older version made is taken for its own."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted(Path(str(files(package))).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Preprocessor:
    """How rows become examples. Without an encoder they are only converted, to see which can be used."""

    kind: Kind
    encoder: Encoder | None = None
    rounds: Rounds = "last"
    """Which answers of a preference are trained."""
    notes_are_faults: bool = False
    """Drop rows that needed mending (`--check_dataset_strategy discard`)."""
    plain_text: bool = False
    """Rows are meant to be text without turns, as in pre-training."""

    @property
    def fingerprint(self) -> str:
        """Changes with everything that would change an outcome, except the rows."""
        of_encoder = self.encoder.fingerprint if self.encoder else "convert only"
        facts = (
            code_digest("swift.data", "swift.prompts"),
            self.kind,
            self.rounds,
            self.notes_are_faults,
            self.plain_text,
            of_encoder,
        )
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def __call__(self, rows: Sequence[SourceRow]) -> list[Outcome]:
        """Convert each row, and encode all that can be used with one call of the tokenizer."""
        read: list[Converted | BadRow] = []
        for row in rows:
            try:
                read.append(self.convert(row))
            except BadRow as fault:
                read.append(fault)
        usable = [converted.row for converted in read if isinstance(converted, Converted)]
        encoded = encode_rows(usable, self) if self.encoder is not None else itertools.repeat(UNENCODED)
        results = map(self._judged, encoded)
        return [
            Outcome(None, converted) if isinstance(converted, BadRow) else Outcome(converted, next(results))
            for converted in read
        ]

    def _judged(self, result: Made | BadRow) -> Made | BadRow:
        """The result, or a fault where the chat template has lost text of it and rows with remarks are dropped."""
        if self.notes_are_faults and isinstance(result, Made) and not LOST.isdisjoint(result.rewrites):
            return BadRow("needed mending", expected="a row without remarks", value="; ".join(result.rewrites))
        return result

    def convert(self, row: SourceRow) -> Converted:
        """The conversation or preference that a row means. Raises BadRow."""
        if row.fault is not None:
            raise row.fault
        file = row.source
        value, notes = _fields(row.payload)
        columns = names(value, file) if isinstance(value, Mapping) else {}
        fields = placed(_converted(value, file), file)
        converted = convert(
            fields,
            answered=self.kind != "prompt",
            labelled=self.kind == "kto",
            origin=Origin(file.label, row.place.line),
            folder=file.path.parent,
            media_there=file.media is not None or file.home is None,
            media_in_text=file.media is not None,
        )
        if self.kind == "kto" and isinstance(converted.row, Preference) and converted.row.rejected:
            converted = replace(converted, row=replace(converted.row, rejected=None))
            notes += (REJECTED_LEFT_OUT,)
        if self.kind == "pairs" and not (isinstance(converted.row, Preference) and converted.row.rejected):
            raise BadRow(
                "missing key",
                key="rejected_response",
                expected=f"a worse answer{proposal(fields, 'rejected_response')}",
                value=sorted(map(str, fields)),
            )
        unread = [key for key in UNREAD[self.kind] if fields.get(key) is not None]
        if columns or unread:
            unused = converted.unused.union(replaced(value, columns), unread)
            converted = replace(converted, renamed=columns, unused=unused)
        if file.media is None and _has_media(converted.row):
            notes += (MEDIA_LEFT_OUT,)
        if notes:
            converted = replace(converted, notes=(*converted.notes, *notes))
        if self.kind == "prompt" and self.encoder is not None and _ends_with_answer(converted.row):
            converted = replace(converted, unused=converted.unused | {ANSWER})
        if (self.plain_text or self.kind == "prompt") and PLAIN_ANSWER in converted.notes:
            converted = replace(converted, notes=tuple(note for note in converted.notes if note != PLAIN_ANSWER))
        if converted.notes and self.notes_are_faults:
            raise BadRow("needed mending", expected="a row without remarks", value="; ".join(converted.notes))
        return converted


def fields(row: SourceRow) -> dict[str, Any]:
    """The columns of a row, as they stand there and under the names that `--columns` gives them. Raises BadRow."""
    value, _ = _fields(row.payload)
    meant = _converted(value, row.source)
    return {**(value if isinstance(value, Mapping) else {}), **(meant if isinstance(meant, Mapping) else {})}


UNREAD: Mapping[Kind, tuple[str, ...]] = {
    "chat": (*LABELS, "rejected_response", "rejected_messages", "rejected"),
    "pairs": LABELS,
    "kto": (),
    "prompt": LABELS,
}
"""Keys of preferences that a kind of examples has no use for."""
REJECTED_LEFT_OUT = "its rejected answer is left out: the label belongs to the other one"
ANSWER = "the row's own answer"
MEDIA_LEFT_OUT = "its images, videos or audios are left out, the tags in the text stay"


def _ends_with_answer(row: Row) -> bool:
    conversation = row.chosen if isinstance(row, Preference) else row
    return conversation.messages[-1].role == "assistant"


def _has_media(row: Row) -> bool:
    conversation = row.chosen if isinstance(row, Preference) else row
    return conversation.media != NO_MEDIA


NO_MEDIA = Media()


def _converted(value: Any, file: SourceFile) -> Any:
    """The row under the keys of a known format. A converter that the record does not fit makes it a bad row."""
    try:
        return converter(file)(value)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise BadRow("does not fit its converter", expected="the columns it reads", value=problem) from error


def _fields(payload: bytes) -> tuple[Any, tuple[str, ...]]:
    """The JSON value of a row, and remarks on it."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as broken:
        around = payload[max(0, broken.start - 20) : broken.start + 20]
        raise BadRow("not UTF-8", expected=f"UTF-8 (byte {broken.start + 1} of the row)", value=around) from None
    notes: tuple[str, ...] = ()
    try:
        try:
            value = DECODER.decode(text)
        except RepeatedKey as repeated:
            value, notes = json.loads(text), (f"{repeated}, the last one is used",)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as broken:
        around = text[max(0, broken.pos - 30) : broken.pos + 30]
        raise BadRow("broken JSON", expected=f"JSON ({broken.msg} at column {broken.colno})", value=around) from None
    except RecursionError:
        raise BadRow("broken JSON", expected="JSON (nested too deep)", value=text) from None
    except UnicodeEncodeError:
        raise BadRow("not UTF-8", expected="whole characters (half a surrogate pair)", value=payload) from None
    except ValueError:
        raise BadRow("broken JSON", expected="JSON (a number has thousands of digits)", value=text) from None
    return value, notes


DECODER = json.JSONDecoder(object_pairs_hook=unrepeated)


def encode_rows(rows: Sequence[Row], how: Preprocessor) -> list[Made | BadRow]:
    """The examples of each row, or why it gives none."""
    encoder = how.encoder
    assert encoder is not None
    if how.kind == "chat":
        conversations = [row.chosen if isinstance(row, Preference) else row for row in rows]
        return [
            refusal(encoded) if isinstance(encoded, SwiftError) else _made(encoded, encoder)
            for encoded in encoder.encode_batch(conversations)
        ]
    encode = _encode_prompt if how.kind == "prompt" else _encode_preference
    made_rows: list[Made | BadRow] = []
    for row in rows:
        try:
            made_rows.append(encode(encoder, row, how))
        except MissingPackage:
            raise
        except SwiftError as error:
            made_rows.append(refusal(error))
    return made_rows


def _made(encoded: list[Encoded], encoder: Encoder) -> Made | BadRow:
    if any(encoder.opens_twice(one.input_ids) for one in encoded):
        return _opened_twice(encoder)
    trained = [_trained(one) for one in encoded]
    shown = encoder.images is not None
    examples = [_example(one, shown=shown) for one, count in zip(encoded, trained, strict=True) if count]
    if not examples:
        return BadRow(UNTRAINED, key="labels", expected="at least one trained token", value=0)
    return Made(
        examples,
        sum(len(one.input_ids) for one in encoded),
        sum(trained),
        any(one.truncated for one in encoded),
        _rewrites(encoded),
    )


def _rewrites(encoded: Sequence[Encoded]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(remark for one in encoded for remark in one.rewrites))


def _example(encoded: Encoded, prefix: str = "", *, shown: bool = False) -> dict[str, Any]:
    example: dict[str, Any] = {f"{prefix}input_ids": encoded.input_ids, f"{prefix}labels": encoded.labels}
    if encoded.loss_scale is not None:
        example[f"{prefix}loss_scale"] = encoded.loss_scale
    if shown and encoded.media.any:
        example[f"{prefix}media"] = encoded.media
    return example


def _opened_twice(encoder: Encoder) -> BadRow:
    token = encoder.tokens.tokenizer.bos_token
    template = encoder.template_type
    return BadRow("two bos tokens", expected=f"one, which the template {template} writes", value=token + token)


def _trained(encoded: Encoded) -> int:
    return len(encoded.labels) - encoded.labels.count(IGNORED)


def _encode_preference(encoder: Encoder, row: Row, how: Preprocessor) -> Made | BadRow:
    assert isinstance(row, Preference)
    ends = encoder.encode_preference(row, how.rounds)
    answers = [end for end in (ends.chosen, ends.rejected) if end is not None]
    if any(encoder.opens_twice(answer.input_ids) for answer in answers):
        return _opened_twice(encoder)
    if not all(_trained(answer) for answer in answers):
        return BadRow(UNTRAINED, key="labels", expected="at least one trained token", value=0)
    shown = encoder.images is not None
    if how.kind == "kto":
        example = {**_example(ends.chosen, shown=shown), "label": row.label}
    else:
        assert ends.rejected is not None
        if ends.chosen.input_ids == ends.rejected.input_ids and ends.chosen.media == ends.rejected.media:
            answer = encoder.tokens.tokenizer.decode([label for label in ends.chosen.labels if label != IGNORED])
            return BadRow("identical answers", key="rejected_response", expected="another answer", value=answer)
        sides = {"chosen_": ends.chosen, "rejected_": ends.rejected}
        example = {key: v for side, end in sides.items() for key, v in _example(end, side, shown=shown).items()}
    return Made(
        [example],
        sum(len(answer.input_ids) for answer in answers),
        sum(_trained(answer) for answer in answers),
        any(answer.truncated for answer in answers),
        _rewrites(answers),
    )


def _encode_prompt(encoder: Encoder, row: Row, how: Preprocessor) -> Made | BadRow:
    conversation = row.chosen if isinstance(row, Preference) else row
    encoded = encoder.encode(without_answer(conversation), inference=True)[-1]
    size = len(encoded.input_ids)
    shown = {"media": encoded.media} if encoder.images is not None and encoded.media.any else {}
    return Made([{"input_ids": encoded.input_ids, **shown}], size, size, bool(encoded.truncated))


def refusal(error: SwiftError) -> BadRow:
    """What the encoder says of a row, as the row's fault."""
    if isinstance(error, TooLong):
        return BadRow("too long", expected=f"at most {error.limit} tokens", value=error.length)
    if isinstance(error, AnswerTooLong):
        expected = f"at most {error.limit} tokens after the prompt is cut off"
        return BadRow("answer too long", expected=expected, value=error.length)
    if isinstance(error, BadMedium):
        reason, value = (error.what, error.why) if error.why else (f"{error.key} do not fit", error.what)
        key = error.key if error.where is None else f"{error.key}: {error.where}"
        return BadRow(reason, key=key, value=value)
    return BadRow("not for this template", value=error.what)
