"""What became of a few hundred rows, as flat arrays: their fate, and their examples column by column.

The same bytes serve as the value that worker processes send back and as a file of the token cache, where the arrays
are mapped into memory instead of being read.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swift.prompts.types import Media

MAGIC = b"swift-shard-2\n"
KEPT, TRUNCATED, UNUSABLE, UNENCODED = range(4)
"""Fates of a row. `UNUSABLE` rows do not convert, `UNENCODED` ones convert but give no example (too long, say)."""
ALIGNMENT = 8
MEDIA = "media"
"""What the names of columns end with whose lists are bytes: JSON of what an example shows, as it is referred to."""
LENGTH = "length"
"""The column of a shard whose tokens are not kept."""


@dataclass(frozen=True)
class Column:
    """One field of all examples: scalars, or lists of numbers end to end with `offsets` between them."""

    values: NDArray[Any]
    offsets: NDArray[np.int64] | None = None

    def __getitem__(self, index: int) -> Any:
        if self.offsets is None:
            return self.values[index].item()
        return self.values[self.offsets[index] : self.offsets[index + 1]].tolist()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Numbers in each list."""
        assert self.offsets is not None
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Shard:
    """Rows of one chunk. Arrays of the row's facts have one entry a row, columns one entry an example."""

    fate: NDArray[np.uint8]
    tokens: NDArray[np.int32]
    trained: NDArray[np.int32]
    examples: NDArray[np.int32]
    columns: Mapping[str, Column]
    faults: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Row -> reason and detail, for rows without examples."""
    notes: Mapping[int, str] = field(default_factory=dict)
    rewrites: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Row -> remarks on what the chat template made of its text."""
    formats: Mapping[str, int] = field(default_factory=dict)
    unused: Mapping[str, int] = field(default_factory=dict)
    """Keys of rows and messages that nothing reads, each with the rows that have it."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Columns of the rows that are read under another name, old to new."""

    @cached_property
    def first_example(self) -> NDArray[np.int64]:
        """Index of each row's first example."""
        return np.concatenate([[0], np.cumsum(self.examples)[:-1]]).astype(np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example (of its longest sequence, for a pair), without reading the tokens."""
        if LENGTH in self.columns:
            return self.columns[LENGTH].values.astype(np.int64)
        sizes = [column.lengths for name, column in self.columns.items() if name.endswith("input_ids")]
        return np.maximum.reduce(sizes) if sizes else np.zeros(0, dtype=np.int64)

    def example(self, index: int) -> dict[str, Any]:
        """One example as the trainer takes it."""
        columns = self.columns.items()
        media = {name: _media(column[index]) for name, column in columns if name.endswith(MEDIA)}
        others = {name: column[index] for name, column in columns if name not in media}
        return {**others, **{name: shown for name, shown in media.items() if shown.any}}

    def pack(self) -> bytes:
        """The shard as bytes: magic, header length, JSON header, aligned arrays."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _ROW_ARRAYS}
        for name, column in self.columns.items():
            arrays[f"column:{name}"] = column.values
            if column.offsets is not None:
                arrays[f"offsets:{name}"] = column.offsets
        places, position = {}, 0
        for name, array in arrays.items():
            places[name] = [array.dtype.str, position, len(array)]
            position += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        header = {
            "arrays": places,
            "faults": list(self.faults.items()),
            "notes": list(self.notes.items()),
            "rewrites": list(self.rewrites.items()),
            "formats": dict(self.formats),
            "unused": dict(self.unused),
            "renamed": dict(self.renamed),
        }
        text = json.dumps(header, ensure_ascii=False).encode()
        start = len(MAGIC) + ALIGNMENT
        text += b" " * (-(start + len(text)) % ALIGNMENT)
        body = b"".join(array.tobytes() + b"\0" * (-array.nbytes % ALIGNMENT) for array in arrays.values())
        return b"".join((MAGIC, len(text).to_bytes(ALIGNMENT, "little"), text, body))


_ROW_ARRAYS = ("fate", "tokens", "trained", "examples")


def unpack(data: bytes | mmap.mmap) -> Shard:
    """The shard inside `data`, whose arrays are views of it. Raises ValueError when it is none."""
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("no shard")
    start = len(MAGIC) + ALIGNMENT
    size = int.from_bytes(data[len(MAGIC) : start], "little")
    header = json.loads(data[start : start + size])
    base = start + size

    def array(name: str) -> NDArray[Any]:
        dtype, position, count = header["arrays"][name]
        return np.frombuffer(data, dtype=np.dtype(dtype), count=count, offset=base + position)

    columns = {}
    for name in header["arrays"]:
        if name.startswith("column:"):
            offsets = name.replace("column:", "offsets:")
            columns[name.removeprefix("column:")] = Column(
                array(name), array(offsets) if offsets in header["arrays"] else None
            )
    return Shard(
        *(array(name) for name in _ROW_ARRAYS),
        columns=columns,
        faults={row: (reason, detail) for row, (reason, detail) in header["faults"]},
        notes=dict(header["notes"]),
        rewrites={row: tuple(remarks) for row, remarks in header["rewrites"]},
        formats=header["formats"],
        unused=header["unused"],
        renamed=header["renamed"],
    )


def columns_of(examples: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Flat columns from examples as dicts that all have the same fields."""
    if not examples:
        return {}
    columns = {}
    for name in examples[0]:
        values = [_as_list(example[name]) for example in examples]
        if not isinstance(values[0], list):
            columns[name] = Column(np.array(values))
            continue
        kind = np.float32 if name.endswith("loss_scale") else np.uint8 if name.endswith(MEDIA) else np.int32
        offsets = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum([len(value) for value in values], out=offsets[1:])
        columns[name] = Column(np.concatenate([np.asarray(value, dtype=kind) for value in values]), offsets)
    return columns


def _as_list(value: Any) -> Any:
    return list(json.dumps(vars(value)).encode()) if isinstance(value, Media) else value


def _media(written: Sequence[int]) -> Media:
    """Media from their JSON, which has lists for tuples."""
    return Media(**{name: _tuples(values) for name, values in json.loads(bytes(written)).items()})


def _tuples(values: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)
