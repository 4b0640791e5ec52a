"""The streaming store: rows read, shuffled in a buffer, encoded and packed as they come, in bounded memory.

A stream can be left anywhere and entered again at the same place: its state holds where in the files it reads, which
rows wait in the buffer, and the state of the random generator. Nothing is replayed.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch.utils.data import IterableDataset

from swift.core.errors import SwiftError
from swift.core.log import log, once
from swift.data.columns import in_words, refuse_absent
from swift.data.dataset import ListDataset, MapDataset
from swift.data.dataset_files import dataset_files
from swift.data.example_index import ExampleIndex
from swift.data.formats import Converted
from swift.data.ledger import Entry, Ledger, Status
from swift.data.packing import join, pack_groups
from swift.data.parts import open_parts
from swift.data.preprocess import Made, Outcome, Preprocessor, refusal
from swift.data.row_table import level_of, speak_of
from swift.data.shown_rows import media_shown, rows_of
from swift.data.source import START, Place, RowSource, SourceFile, SourceRow
from swift.plan.data import Check, DataPlan
from swift.prompts.bad_row import BadRow
from swift.prompts.images import BadMedium, MediaTokens

GROUP = 64
"""Rows that are encoded together."""
POOL = 1024
"""Rows among which packing looks for the best fit."""
REMEMBERED = 64
"""Groups whose start is kept, so that a state can be had for items handed out but not yet trained on."""
JUDGED_AFTER = 1000
"""Rows after which too many dropped ones stop the run."""


@dataclass(frozen=True)
class Snapshot:
    """The stream before a group: the next row to read, the waiting rows, the generator."""

    items: int
    """Items handed out before."""
    examples: int
    """Examples made before; with packing there are several in an item."""
    cursor: Place
    buffer: list[SourceRow]
    generator: tuple[Any, ...]
    account: dict[str, Any]
    """What the ledger holds."""


class StreamDataset(IterableDataset):  # type: ignore[type-arg]
    """Items as `EncodedDataset` has them, one after another; each pass over the files has its own order."""

    lengths: None = None
    """Not known before the rows are encoded."""

    def __init__(
        self,
        rows: SampledRows,
        preprocess: Preprocessor,
        ledger: Ledger,
        *,
        seed: int,
        buffer_size: int,
        check: Check = "none",
        capacity: int | None = None,
        start: Place = START,
        columns: Collection[str] = (),
    ):
        """`capacity` packs, `start` skips rows, `check` says how to speak of rows that needed mending.

        Some row should have each of the `columns`.
        """
        self.rows = rows
        self.preprocess = preprocess
        self.ledger = ledger
        self.seed = seed
        self.buffer_size = buffer_size
        self.check: Check = check
        self.capacity = capacity
        self.start = start
        self.columns = columns
        self.first: tuple[dict[str, Any], str]
        """The first example of the files and its row, known after `look_ahead`."""
        self._ahead: dict[Place, Outcome] = {}
        self.epoch = 0
        self.handed_out = 0
        self._examples = 0
        self._origins: deque[tuple[int, str]] = deque(maxlen=REMEMBERED * POOL)
        self._history: deque[Snapshot] = deque(maxlen=REMEMBERED)
        self._resume: Mapping[str, Any] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        if self._resume is None:
            self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        waiting, cursor, generator, skip = self._begin()
        for snapshot, rows in self._groups(cursor, waiting, generator):
            self._history.append(snapshot)
            for number, item in enumerate(self._items(rows)):
                self.handed_out += 1
                if number >= skip:
                    yield item
            skip = 0
        if not self.handed_out:
            self.ledger.judge()
        self.epoch += 1

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Where the stream is after `consumed` items (all that were handed out), as plain JSON values.

        Items that a DataLoader fetched ahead are not lost: give the number that training has used.
        """
        self.ledger.flush()
        used = self.handed_out if consumed is None else consumed
        before = [snapshot for snapshot in self._history if snapshot.items <= used]
        if not before:
            if self._resume is not None:
                return dict(self._resume)
            return {"version": 1, "epoch": self.epoch, "consumed": 0, "examples": 0, "skip": 0, "cursor": None}
        snapshot = before[-1]
        version, inner, gauss = snapshot.generator
        return {
            "version": 1,
            "epoch": self.epoch,
            "consumed": used,
            "examples": snapshot.examples,
            "skip": used - snapshot.items,
            "cursor": list(snapshot.cursor),
            "buffer": [list(row.place) for row in snapshot.buffer],
            "generator": [version, list(inner), gauss],
            "account": snapshot.account,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, with the next iteration. Raises SwiftError for a state of another kind."""
        if state.get("version") != 1:
            raise SwiftError("the saved place in the data is of an unknown version", next="start without --resume")
        self._resume = state
        if "account" in state:
            self.ledger.go_on(state["account"])

    def go_back(self, place: Mapping[str, Any]) -> None:
        """Come to a place once more that this very stream was in; its rows are entered in the ledger again."""
        self._history.clear()
        self.load_state_dict(place)
        self.ledger.go_back(place["account"])

    def _begin(self) -> tuple[list[SourceRow], Place, random.Random, int]:
        """Waiting rows, the next row to read, the generator, and the items of the first group to leave out."""
        state, self._resume = self._resume, None
        self._history.clear()
        if state is not None:
            self.epoch, self._examples = state["epoch"], state["examples"]
            self.handed_out = state["consumed"] - state["skip"]
        generator = random.Random(f"{self.seed}-{self.epoch}")
        if state is None or state["cursor"] is None:
            return [], self.start, generator, 0
        version, inner, gauss = state["generator"]
        generator.setstate((version, tuple(inner), gauss))
        places = [Place(*place) for place in state["buffer"]]
        waiting = {row.place: row for row in self.rows.source.fetch(sorted(places))}
        return [waiting[place] for place in places], Place(*state["cursor"]), generator, state["skip"]

    def _groups(
        self, cursor: Place, waiting: list[SourceRow], generator: random.Random
    ) -> Iterator[tuple[Snapshot, list[SourceRow]]]:
        """Rows in shuffled order, in groups, each with the state before it."""
        rows = self.rows.read(cursor)
        size = POOL if self.capacity else GROUP
        upcoming = next(rows, None)
        while upcoming is not None or waiting:
            following = upcoming.place if upcoming is not None else self.rows.end
            snapshot = Snapshot(
                self.handed_out,
                self._examples,
                following,
                list(waiting),
                generator.getstate(),
                self.ledger.account(),
            )
            group: list[SourceRow] = []
            while len(group) < size and (upcoming is not None or waiting):
                if upcoming is not None and len(waiting) < max(self.buffer_size, 1):
                    waiting.append(upcoming)
                    upcoming = next(rows, None)
                    continue
                place = generator.randrange(len(waiting)) if self.buffer_size > 1 else 0
                group.append(waiting[place])
                if upcoming is not None:
                    waiting[place] = upcoming
                    upcoming = next(rows, None)
                else:
                    waiting[place] = waiting[-1]
                    waiting.pop()
            yield snapshot, group

    def _items(self, rows: Sequence[SourceRow]) -> list[dict[str, Any]]:
        """What a group of rows is handed out as."""
        examples = self._examples_of(rows, "train")
        self.ledger.say_rows()
        if self.ledger.total >= JUDGED_AFTER:
            self.ledger.judge()
        if self.capacity is None:
            return examples
        return [join(group) for group in pack_groups(examples, self.capacity)]

    def _examples_of(self, rows: Sequence[SourceRow], split: str) -> list[dict[str, Any]]:
        """The examples of some rows; every row of the first epoch is entered into the ledger."""
        examples: list[dict[str, Any]] = []
        for row, outcome in zip(rows, self._outcomes(rows), strict=True):
            if outcome.converted is not None:
                self._remark(row, outcome.converted)
            if not self.epoch:
                enter(row, outcome, self.ledger, self.check, split)
            for example in outcome.result.examples if isinstance(outcome.result, Made) else ():
                examples.append({**example, "row": self._examples})
                self._origins.append((self._examples, row.where))
                self._examples += 1
        return examples

    def _outcomes(self, rows: Sequence[SourceRow]) -> list[Outcome]:
        """What the preprocessor makes of the rows; those looked at ahead need it no more."""
        ahead = self._ahead
        fresh = iter(self.preprocess([row for row in rows if row.place not in ahead]))
        outcomes = [ahead.pop(row.place) if row.place in ahead else next(fresh) for row in rows]
        images = None if self.preprocess.encoder is None else self.preprocess.encoder.images
        return outcomes if images is None else [_decoded(outcome, images) for outcome in outcomes]

    def take_first(self, count: int) -> tuple[list[dict[str, Any]], Place]:
        """The first `count` examples in the order of the files, and the place of the row after them."""
        taken: list[dict[str, Any]] = []
        for row in self.rows.read(self.start):
            if len(taken) >= count:
                return taken, row.place
            taken += self._examples_of([row], "val")
        return taken, self.rows.end

    def look_ahead(self) -> None:
        """Preprocess the first rows of the files, to have their `first` example before a model is loaded for them.

        Raises SwiftError when too few of them can be used.
        """
        ledger = self.ledger.of_the_same_limits()
        check: Check = "none" if self.check == "warning" else self.check  # the rows come again, and are spoken of then
        rows = itertools.islice(self.rows.read(self.start), JUDGED_AFTER)
        while group := list(itertools.islice(rows, GROUP)):
            for row, outcome in zip(group, self.preprocess(group), strict=True):
                enter(row, outcome, ledger, check, "train")
                self._ahead[row.place] = outcome
        ledger.judge()
        if ledger.total < JUDGED_AFTER:
            refuse_absent(self.columns, (o.converted for o in self._ahead.values() if o.converted is not None))
        usable = ((p, o.result.examples) for p, o in self._ahead.items() if isinstance(o.result, Made))
        place, examples = next((place, examples) for place, examples in usable if examples)
        self.first = {**examples[0], "row": 0}, f"{self.rows.source.files[place.file].label}:{place.line}"

    def origin(self, row: int) -> str:
        """`file:line` of an example that was handed out lately."""
        first = self._origins[0][0] if self._origins else 0
        known = 0 <= row - first < len(self._origins)
        return self._origins[row - first][1] if known else f"row {row} of the stream"

    def _remark(self, row: SourceRow, converted: Converted) -> None:
        """Say, once a file, what format and which unused keys were found in it, and speak of what needed mending."""
        label = row.source.label
        once(f"{label}: format {converted.format}", level=logging.INFO)
        if converted.renamed:
            once(f"{label}: columns {in_words(converted.renamed)}", level=logging.INFO)
        for key in sorted(converted.unused):
            once(f"{label}: key not used: {key}", level=logging.INFO)
        for note in converted.notes:
            once(f"{label}: {note}", level=level_of(note))


def _decoded(outcome: Outcome, images: MediaTokens) -> Outcome:
    """The outcome, or the fault of media whose head was whole and that cannot be decoded after all."""
    if isinstance(outcome.result, Made):
        try:
            for media in (media for example in outcome.result.examples for media in media_shown(example)):
                images.check(media)
        except BadMedium as error:
            return replace(outcome, result=refusal(error))
    return outcome


def enter(row: SourceRow, outcome: Outcome, ledger: Ledger, check: Check, split: str) -> None:
    """A line in the ledger for a row. Raises SwiftError where `check` or the ledger allows no such row."""
    source, line, result = row.source.label, row.place.line, outcome.result
    if outcome.note is not None:
        speak_of(outcome.note, row.where, check)
    if isinstance(result, BadRow):
        ledger.add(Entry(source, line, "dropped", result.reason, result.detail), split)
        return
    status: Status = "truncated" if result.truncated else "kept"
    counts = (result.tokens, result.trained, len(result.examples))
    ledger.add(Entry(source, line, status, None, None, *counts, outcome.note, result.rewrites), split)


@dataclass(frozen=True)
class Span:
    """The files of one data set among all, and how many rows to take from its start (-1: all)."""

    text: str
    files: range
    sample: int


class SampledRows:
    """The rows of all data sets, of each as many as were asked for: `#n` counts over all of its files."""

    def __init__(self, source: RowSource, spans: Sequence[Span]):
        self.source = source
        self.end = Place(len(source.files), 0, 0, 1)
        self._spans = spans
        self._sizes: dict[int, int] = {}
        """Rows of the files that were read to their end."""

    def read(self, start: Place) -> Iterator[SourceRow]:
        """The rows from a place on."""
        for span in self._spans:
            if span.files.stop > start.file:
                yield from self._of_span(span, start)

    def _of_span(self, span: Span, start: Place) -> Iterator[SourceRow]:
        first = max(start.file, span.files.start)
        taken = sum(map(self._size, range(span.files.start, first))) if span.sample >= 0 else 0
        for number in range(first, span.files.stop):
            entered = start if number == start.file and start.row else None
            read = entered.row if entered else 0
            for row in self.source.rows_of(number, entered):
                if 0 <= span.sample <= taken + read:
                    return
                read += 1
                yield row
            self._sizes[number] = read
            taken += read
        if taken < span.sample:
            once(f"{span.text}: a stream repeats no rows, there are {taken}")

    def _size(self, number: int) -> int:
        if number not in self._sizes:
            self._sizes[number] = sum(1 for _ in self.source.rows_of(number))
        return self._sizes[number]


def open_stream(plan: DataPlan, preprocess: Preprocessor, ledger: Ledger) -> tuple[StreamDataset, MapDataset | None]:
    """The training stream, and the validation rows: those of `val_dataset`, or the first of the stream.

    Raises SwiftError when too few of the first rows can be used.
    """
    if plan.mix or plan.train_sample >= 0 or (plan.val_sample is not None and not plan.val):
        log.warning(
            "a stream does not mix or sample by size: train_dataset_sample, train_dataset_mix_ratio and, without "
            "val_dataset, val_dataset_sample have no effect; --dataset NAME#N and --streaming_val_size do"
        )
    files: list[SourceFile] = []
    spans = []
    for spec in plan.train:
        start = len(files)
        files += dataset_files(spec, plan)
        spans.append(Span(spec.text, range(start, len(files)), spec.sample))
    rows = SampledRows(RowSource(files), spans)

    def stream(place: Place, buffer_size: int) -> StreamDataset:
        capacity = plan.max_length if plan.packing else None
        return StreamDataset(
            rows,
            preprocess,
            ledger,
            seed=plan.seed,
            buffer_size=buffer_size,
            check=plan.check,
            capacity=capacity,
            start=place,
            columns=plan.columns,
        )

    held_back, place = stream(START, 1).take_first(0 if plan.val else plan.stream_val_size)
    train = stream(place, plan.buffer_size)
    train.look_ahead()
    if plan.val:
        of_media = preprocess.encoder is not None and preprocess.encoder.images is not None
        others = replace(plan, train=(), mix=(), train_sample=-1)
        parts = open_parts(others, preprocess, "lengths" if of_media else "tokens")
        index = ExampleIndex([part.table for part in parts], [part.val for part in parts])
        return train, rows_of(index, preprocess, ledger, lazy=of_media)
    return train, ListDataset(held_back) if held_back else None
