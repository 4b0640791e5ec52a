"""Rows become examples: read as JSON, converted to conversations, encoded; a chunk of rows becomes a shard."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swift.core.errors import SwiftError
from swift.data.adapters import converter
from swift.data.bad_row import BadRow
from swift.data.formats import Converted, convert
from swift.data.media_archives import placed
from swift.data.read import RawRow, read_rows
from swift.data.shard import KEPT, TRUNCATED, UNENCODED, UNUSABLE, Shard, columns_of
from swift.data.source import SourceFile
from swift.plan.data import Rounds
from swift.plan.methods import Kind
from swift.prompts.encode import Encoder, TooLong
from swift.prompts.types import IGNORED, Conversation, Encoded, Media, Origin, Preference, Row

CHUNK = 512
"""Rows of a file that are encoded, stored and lost together."""


@dataclass(frozen=True)
class Recipe:
    """How rows become examples. Without an encoder they are only converted, to see which can be used."""

    kind: Kind
    encoder: Encoder | None = None
    rounds: Rounds = "last"
    """Which answers of a preference are trained."""
    notes_are_faults: bool = False
    """Drop rows that needed mending (`--check_dataset_strategy discard`)."""

    @property
    def fingerprint(self) -> str:
        """Changes with everything that would change a shard, except the rows."""
        of_encoder = self.encoder.fingerprint if self.encoder else "convert only"
        return hashlib.sha256(f"2|{self.kind}|{self.rounds}|{self.notes_are_faults}|{of_encoder}".encode()).hexdigest()[
            :16
        ]


@dataclass(frozen=True)
class Chunk:
    """Neighbouring rows of one file."""

    file: SourceFile
    rows: Sequence[RawRow]
    indices: Sequence[int]
    """Where in the file the rows are, counted from 0."""

    def key(self) -> str:
        """Names the content: the bytes of the rows and how their columns are read."""
        digest = hashlib.sha256(self.file.reading.encode())
        for row in self.rows:
            digest.update(b"%d:" % len(row.payload))
            digest.update(row.payload)
        return digest.hexdigest()


def chunks(file: SourceFile, wanted: NDArray[np.bool_] | None = None) -> Iterator[Chunk]:
    """The file cut every `CHUNK` rows from its start, so that appended rows leave the earlier chunks as they are.

    `wanted` marks the rows to take by their index in the file.
    """
    rows = enumerate(read_rows(file.path, media=file.media))
    while block := list(itertools.islice(rows, CHUNK)):
        chosen = block if wanted is None else [(index, row) for index, row in block if wanted[index]]
        if chosen:
            yield Chunk(file, [row for _, row in chosen], [index for index, _ in chosen])


def encode_chunk(chunk: Chunk, recipe: Recipe) -> Shard:
    """Convert and encode every row of a chunk; rows that cannot be used carry their fault."""
    size = len(chunk.rows)
    fate = np.full(size, KEPT, dtype=np.uint8)
    faults: dict[int, tuple[str, str]] = {}
    notes: dict[int, str] = {}
    formats: Counter[str] = Counter()
    unused: set[str] = set()
    usable: list[tuple[int, Row]] = []
    for index, raw in enumerate(chunk.rows):
        try:
            converted = read_row(raw, chunk.file, recipe)
        except BadRow as fault:
            fate[index], faults[index] = UNUSABLE, (fault.reason, fault.detail)
            continue
        formats[converted.format] += 1
        unused |= converted.unused
        if converted.notes:
            notes[index] = "; ".join(converted.notes)
        usable.append((index, converted.row))

    examples: list[dict[str, Any]] = []
    counts = np.zeros((3, size), dtype=np.int32)
    if recipe.encoder is not None:
        for (index, _), made in zip(usable, encode_rows([row for _, row in usable], recipe), strict=True):
            if isinstance(made, BadRow):
                fate[index], faults[index] = UNENCODED, (made.reason, made.detail)
                continue
            examples += made.examples
            counts[:, index] = made.tokens, made.trained, len(made.examples)
            fate[index] = TRUNCATED if made.truncated else KEPT
    tokens, trained, several = counts
    _complete(examples)
    return Shard(fate, tokens, trained, several, columns_of(examples), faults, notes, dict(formats), sorted(unused))


def read_row(raw: RawRow, file: SourceFile, recipe: Recipe) -> Converted:
    """What a raw row means. Raises BadRow."""
    if raw.fault is not None:
        raise raw.fault
    fields = placed(_converted(_fields(raw.payload), file), file)
    converted = convert(
        fields,
        answered=recipe.kind != "prompt",
        labelled=recipe.kind == "kto",
        origin=Origin(file.label, raw.line),
        folder=file.path.parent,
        media_there=file.media is not None or file.home is None,
    )
    if recipe.kind == "kto" and isinstance(converted.row, Preference) and converted.row.rejected:
        converted = replace(converted, row=replace(converted.row, rejected=None))
    if recipe.kind == "pairs" and not (isinstance(converted.row, Preference) and converted.row.rejected):
        raise BadRow("missing key", key="rejected_response", expected="a worse answer", value=sorted(map(str, fields)))
    if file.media is None and _has_media(converted.row):
        converted = replace(converted, notes=(*converted.notes, MEDIA_LEFT_OUT))
    if converted.notes and recipe.notes_are_faults:
        raise BadRow("needed mending", expected="a row without remarks", value="; ".join(converted.notes))
    return converted


MEDIA_LEFT_OUT = "its images, videos or audios are left out, the tags in the text stay"


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


def _fields(payload: bytes) -> Any:
    """The JSON value of a row."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as broken:
        around = payload[max(0, broken.start - 20) : broken.start + 20]
        raise BadRow("not UTF-8", expected=f"UTF-8 (byte {broken.start + 1} of the row)", value=around) from None
    try:
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as broken:
        around = text[max(0, broken.pos - 30) : broken.pos + 30]
        raise BadRow("broken JSON", expected=f"JSON ({broken.msg} at column {broken.colno})", value=around) from None
    except RecursionError:
        raise BadRow("broken JSON", expected="JSON (nested too deep)", value=text) from None
    except UnicodeEncodeError:
        raise BadRow("not UTF-8", expected="whole characters (half a surrogate pair)", value=payload) from None
    return value


@dataclass(frozen=True)
class Made:
    """Examples of one row, and its counts."""

    examples: list[dict[str, Any]]
    tokens: int
    trained: int
    truncated: bool


def encode_rows(rows: Sequence[Row], recipe: Recipe) -> list[Made | BadRow]:
    """The examples of each row, or why it gives none."""
    encoder = recipe.encoder
    assert encoder is not None
    if recipe.kind == "chat":
        conversations = [row.chosen if isinstance(row, Preference) else row for row in rows]
        return [
            refusal(made) if isinstance(made, SwiftError) else _made(made, encoder)
            for made in encoder.encode_batch(conversations)
        ]
    encode = _encode_prompt if recipe.kind == "prompt" else _encode_preference
    made_rows: list[Made | BadRow] = []
    for row in rows:
        try:
            made_rows.append(encode(encoder, row, recipe))
        except SwiftError as error:
            made_rows.append(refusal(error))
    return made_rows


def _made(encoded: list[Encoded], encoder: Encoder) -> Made | BadRow:
    if any(encoder.opens_twice(one.input_ids) for one in encoded):
        return _opened_twice(encoder)
    trained = [_trained(one) for one in encoded]
    examples = [_example(one) for one, count in zip(encoded, trained, strict=True) if count]
    if not examples:
        return BadRow("nothing to train on", key="labels", expected="at least one trained token", value=0)
    return Made(
        examples,
        sum(len(one.input_ids) for one in encoded),
        sum(trained),
        any(one.truncated for one in encoded),
    )


def _example(encoded: Encoded, prefix: str = "") -> dict[str, Any]:
    example: dict[str, Any] = {f"{prefix}input_ids": encoded.input_ids, f"{prefix}labels": encoded.labels}
    if encoded.loss_scale is not None:
        example[f"{prefix}loss_scale"] = encoded.loss_scale
    return example


def _opened_twice(encoder: Encoder) -> BadRow:
    token = encoder.tokens.tokenizer.bos_token
    template = encoder.template_type
    return BadRow("two bos tokens", expected=f"one, which the template {template} writes", value=token + token)


def _trained(encoded: Encoded) -> int:
    return len(encoded.labels) - encoded.labels.count(IGNORED)


def _encode_preference(encoder: Encoder, row: Row, recipe: Recipe) -> Made | BadRow:
    assert isinstance(row, Preference)
    ends = encoder.encode_preference(row, recipe.rounds)
    made = [end for end in (ends.chosen, ends.rejected) if end is not None]
    if any(encoder.opens_twice(one.input_ids) for one in made):
        return _opened_twice(encoder)
    if not all(_trained(one) for one in made):
        return BadRow("nothing to train on", key="labels", expected="at least one trained token", value=0)
    if recipe.kind == "kto":
        example = {**_example(ends.chosen), "label": row.label}
    else:
        assert ends.rejected is not None
        example = {**_example(ends.chosen, "chosen_"), **_example(ends.rejected, "rejected_")}
    return Made(
        [example],
        sum(len(one.input_ids) for one in made),
        sum(_trained(one) for one in made),
        any(one.truncated for one in made),
    )


def _encode_prompt(encoder: Encoder, row: Row, recipe: Recipe) -> Made | BadRow:
    conversation = row.chosen if isinstance(row, Preference) else row
    encoded = encoder.encode(without_answer(conversation), inference=True)[-1]
    size = len(encoded.input_ids)
    return Made([{"input_ids": encoded.input_ids}], size, size, bool(encoded.truncated))


def without_answer(conversation: Conversation) -> Conversation:
    """The conversation up to the turn that is to be answered."""
    messages = conversation.messages
    while messages and messages[-1].role == "assistant":
        messages = messages[:-1]
    return Conversation(messages, conversation.tools, conversation.media, conversation.origin)


def refusal(error: SwiftError) -> BadRow:
    """What the encoder says of a row, as the row's fault."""
    if isinstance(error, TooLong):
        return BadRow("too long", expected=f"at most {error.limit} tokens", value=error.length)
    return BadRow("not for this template", value=error.what)


def _complete(examples: list[dict[str, Any]]) -> None:
    """Where some examples of a chunk have weights, the others weigh 1 everywhere."""
    for prefix in ("", "chosen_", "rejected_"):
        name = f"{prefix}loss_scale"
        if any(name in example for example in examples):
            for example in examples:
                example.setdefault(name, [1.0] * len(example[f"{prefix}input_ids"]))
