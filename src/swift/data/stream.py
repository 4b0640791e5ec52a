"""Rows as a stream: read, shuffled in a buffer, encoded and packed as they come, in bounded memory.

A stream can be left anywhere and entered again at the same place: its state holds where in the files it reads, which
rows wait in the buffer, and the state of the random generator. Nothing is replayed.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch.utils.data import IterableDataset, get_worker_info

from swift.core.errors import SwiftError
from swift.core.log import log, once
from swift.data.bad_row import BadRow
from swift.data.dataset import ListDataset, MapDataset
from swift.data.eager import examples_of
from swift.data.formats import Converted
from swift.data.ledger import Entry, Ledger, Status
from swift.data.packing import join, pack_groups
from swift.data.preprocess import Made, Recipe, encode_rows, read_row
from swift.data.read import RawRow, read_at, read_rows, seekable
from swift.data.source import SourceFile, open_source
from swift.data.table import cache_for, open_part, speak_of
from swift.plan.data import Check, DataPlan, DatasetSpec

GROUP = 64
"""Rows that are encoded together."""
POOL = 1024
"""Rows among which packing looks for the best fit."""
REMEMBERED = 64
"""Groups whose start is kept, so that a state can be had for items handed out but not yet trained on."""
JUDGED_AFTER = 1000
"""Rows after which too many dropped ones stop the run."""


class Ref(NamedTuple):
    """Where a row is: number of the file, its number in the file from 0, byte offset, line."""

    file: int
    row: int
    offset: int
    line: int


@dataclass(frozen=True)
class Snapshot:
    """The stream before a group: the next row to read, the waiting rows, the generator."""

    items: int
    """Items handed out before."""
    examples: int
    """Examples made before; with packing there are several in an item."""
    cursor: Ref
    buffer: list[tuple[Ref, RawRow]]
    generator: tuple[Any, ...]
    account: dict[str, Any]
    """What the ledger holds."""


class StreamDataset(IterableDataset):  # type: ignore[type-arg]
    """Items as `EncodedDataset` has them, one after another; each pass over the files has its own order."""

    lengths = None
    """Not known before the rows are encoded."""

    def __init__(
        self,
        files: Sequence[SourceFile],
        limits: Sequence[int],
        recipe: Recipe,
        ledger: Ledger,
        *,
        seed: int,
        buffer_size: int,
        check: Check = "none",
        capacity: int | None = None,
        start: Ref | None = None,
    ):
        """`limits` is the number of rows to take from each file (-1: all); `capacity` packs; `start` skips rows.

        `check` says how to speak of rows that needed mending.
        """
        self.files = list(files)
        self.limits = list(limits)
        self.recipe = recipe
        self.ledger = ledger
        self.seed = seed
        self.buffer_size = buffer_size
        self.check: Check = check
        self.capacity = capacity
        self.start = start or Ref(0, 0, 0, 1)
        self.first: tuple[dict[str, Any], str]
        """The first example of the files and its row, encoded ahead by `open_stream`."""
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
        worker = get_worker_info()
        if worker is not None:
            self.ledger = Ledger()
        for snapshot, rows in self._groups(cursor, waiting, generator):
            self._history.append(snapshot)
            for number, item in enumerate(self._items(rows)):
                self.handed_out += 1
                if number < skip:
                    continue
                if worker is None or self.handed_out % worker.num_workers == worker.id:
                    yield item
            skip = 0
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
            "buffer": [list(ref) for ref, _ in snapshot.buffer],
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

    def _begin(self) -> tuple[list[tuple[Ref, RawRow]], Ref, random.Random, int]:
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
        refs = [Ref(*ref) for ref in state["buffer"]]
        found = dict(self._fetch(refs))
        return [(ref, found[ref]) for ref in refs], Ref(*state["cursor"]), generator, state["skip"]

    def _fetch(self, refs: Sequence[Ref]) -> Iterator[tuple[Ref, RawRow]]:
        """The rows that waited in the buffer, read again."""
        for number, file in enumerate(self.files):
            mine = sorted(ref for ref in refs if ref.file == number)
            if mine and seekable(file.path):
                for ref, payload in zip(mine, read_at(file.path, [ref.offset for ref in mine]), strict=True):
                    yield ref, RawRow(ref.line, payload, ref.offset)
            elif mine:
                wanted = {ref.row: ref for ref in mine}
                for index, row in enumerate(read_rows(file.path, media=file.media)):
                    if index in wanted:
                        yield wanted[index], row

    def _read(self, cursor: Ref) -> Iterator[tuple[Ref, RawRow]]:
        """Rows of all files from `cursor` on."""
        for number in range(cursor.file, len(self.files)):
            file, limit = self.files[number], self.limits[number]
            at = cursor if number == cursor.file else Ref(number, 0, 0, 1)
            if seekable(file.path):
                rows = enumerate(read_rows(file.path, offset=at.offset, line=at.line), at.row)
            else:
                every = enumerate(read_rows(file.path, media=file.media))
                rows = ((index, row) for index, row in every if index >= at.row)
            for index, row in rows:
                if 0 <= limit <= index:
                    break
                yield Ref(number, index, row.offset, row.line), row

    def _groups(
        self, cursor: Ref, waiting: list[tuple[Ref, RawRow]], generator: random.Random
    ) -> Iterator[tuple[Snapshot, list[tuple[Ref, RawRow]]]]:
        """Rows in shuffled order, in groups, each with the state before it."""
        rows = self._read(cursor)
        size = POOL if self.capacity else GROUP
        upcoming = next(rows, None)
        while upcoming is not None or waiting:
            end = Ref(len(self.files), 0, 0, 1)
            following = upcoming[0] if upcoming else end
            snapshot = Snapshot(
                self.handed_out,
                self._examples,
                following,
                list(waiting),
                generator.getstate(),
                self.ledger.account(),
            )
            group: list[tuple[Ref, RawRow]] = []
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

    def _items(self, rows: Sequence[tuple[Ref, RawRow]]) -> list[dict[str, Any]]:
        """What a group of rows is handed out as."""
        examples = self._examples_of(rows, "train")
        self.ledger.say_dropped()
        if self.ledger.total >= JUDGED_AFTER:
            self.ledger.judge()
        if self.capacity is None:
            return examples
        return [join(group) for group in pack_groups(examples, self.capacity)]

    def _examples_of(self, rows: Sequence[tuple[Ref, RawRow]], split: str) -> list[dict[str, Any]]:
        """The examples of some rows; every row of the first epoch is entered into the ledger."""
        usable: list[tuple[Ref, Converted]] = []
        for ref, raw in rows:
            try:
                usable.append((ref, read_row(raw, self.files[ref.file], self.recipe)))
            except BadRow as fault:
                self._enter(ref, fault, split)
        examples: list[dict[str, Any]] = []
        made_rows = encode_rows([converted.row for _, converted in usable], self.recipe)
        for (ref, converted), made in zip(usable, made_rows, strict=True):
            self._enter(ref, made, split, self._remark(ref, converted))
            for example in made.examples if isinstance(made, Made) else ():
                examples.append({**example, "row": self._examples})
                self._origins.append((self._examples, f"{self.files[ref.file].label}:{ref.line}"))
                self._examples += 1
        return examples

    def take_first(self, count: int, within: int | None = None) -> tuple[list[dict[str, Any]], Ref]:
        """The first `count` examples in the order of the files (of the first `within` rows), and the row after them."""
        taken: list[dict[str, Any]] = []
        rows = self._read(self.start)
        for number, (ref, raw) in enumerate(rows):
            if len(taken) >= count or number == within:
                return taken, ref
            taken += self._examples_of([(ref, raw)], "val")
        return taken, Ref(len(self.files), 0, 0, 1)

    def origin(self, row: int) -> str:
        """`file:line` of an example that was handed out lately."""
        first = self._origins[0][0] if self._origins else 0
        known = 0 <= row - first < len(self._origins)
        return self._origins[row - first][1] if known else f"row {row} of the stream"

    def _remark(self, ref: Ref, converted: Converted) -> str | None:
        """Say, once a file, what format and which unused keys were found in it, and speak of what needed mending."""
        label = self.files[ref.file].label
        once(f"{label}: format {converted.format}", level=logging.INFO)
        for key in sorted(converted.unused):
            once(f"{label}: key not used: {key}", level=logging.INFO)
        for note in converted.notes:
            once(f"{label}: {note}", level=logging.INFO)
        if not converted.notes:
            return None
        note = "; ".join(converted.notes)
        if not self.epoch:
            speak_of(note, f"{label}:{ref.line}", self.check)
        return note

    def _enter(self, ref: Ref, made: Made | BadRow, split: str, note: str | None = None) -> None:
        if self.epoch:
            return
        source = self.files[ref.file].label
        if isinstance(made, BadRow):
            self.ledger.add(Entry(source, ref.line, "dropped", made.reason, made.detail), split)
            return
        status: Status = "truncated" if made.truncated else "kept"
        counts = (made.tokens, made.trained, len(made.examples))
        self.ledger.add(Entry(source, ref.line, status, None, None, *counts, note), split)


def open_stream(plan: DataPlan, recipe: Recipe, ledger: Ledger) -> tuple[StreamDataset, MapDataset | None]:
    """The training stream, and the validation rows: those of `val_dataset`, or the first of the stream.

    Raises SwiftError when none of the first rows can be used.
    """
    opened = [found for spec in plan.train for found in _limited(spec, open_source(spec, plan))]
    files = [file for file, _ in opened]
    capacity = plan.max_length if plan.packing else None
    if plan.mix or plan.train_sample >= 0:
        log.warning("a stream does not mix or sample by size: train_dataset_sample and _mix_ratio have no effect")

    def stream(
        ledger: Ledger, buffer_size: int, start: Ref | None = None, capacity: int | None = None
    ) -> StreamDataset:
        return StreamDataset(
            files,
            [limit for _, limit in opened],
            recipe,
            ledger,
            seed=plan.seed,
            buffer_size=buffer_size,
            check=plan.check,
            capacity=capacity,
            start=start,
        )

    rows_ahead = stream(ledger, 1)
    held_back, start = rows_ahead.take_first(0 if plan.val else plan.stream_val_size)
    ahead = stream(Ledger(), 1, start)
    train = stream(ledger, plan.buffer_size, start, capacity)
    train.first = _first(ahead)
    if plan.val:
        cache = cache_for(plan, recipe)
        parts = [open_part(spec, plan, recipe, cache, validation=True) for spec in plan.val]
        return train, examples_of(parts, [part.val for part in parts])
    return train, ListDataset(held_back) if held_back else None


def _limited(spec: DatasetSpec, files: Sequence[SourceFile]) -> Iterator[tuple[SourceFile, int]]:
    """The files with the rows to take from each: `#n` counts over all files of the data set, from its start."""
    left = spec.sample
    for file in files:
        if spec.sample < 0:
            yield file, -1
        elif left:
            rows = sum(1 for _ in itertools.islice(read_rows(file.path), left))
            left -= rows
            yield file, rows
    if left > 0:
        log.warning("%s: a stream repeats no rows, there are %d", spec.text, spec.sample - left)


def _first(stream: StreamDataset) -> tuple[dict[str, Any], str]:
    """An example of the first rows and its row, before a model is loaded for them. Raises SwiftError for none."""
    if stream.check == "warning":
        stream.check = "none"  # the rows come again
    taken, _ = stream.take_first(1, within=JUDGED_AFTER)
    if not taken:
        stream.ledger.judge()
    return taken[0], stream.origin(taken[0]["row"])
