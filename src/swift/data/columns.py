"""Which column of a row is which: names that were given, and known names in other spellings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError
from swift.data.column_proposal import plain_name
from swift.data.formats import NAMES, Converted
from swift.data.shard import Shard
from swift.data.source import SourceFile

Fields = Mapping[str, Any]


def names(record: Fields, file: SourceFile) -> Mapping[str, str]:
    """New names for columns of this record, by the old ones: those that were given, then known ones in any spelling."""
    if not file.columns:
        return spellings(frozenset(record)) if file.converter == "auto" else {}
    given = {old: new for old, new in file.columns.items() if old in record}
    if file.converter != "auto":
        return given
    return {**spellings(frozenset(record).difference(given).union(given.values())), **given}


@lru_cache(maxsize=1024)
def spellings(given: frozenset[str]) -> Mapping[str, str]:
    """The known names behind others: `Question`, `System Prompt`, `rejectedResponse`.

    A name that stands there as it is known, or that several others would become, is left to itself.
    """
    plain = {name: plain_name(name) for name in sorted(given - NAMES)}
    times = Counter(plain.values())
    return {old: new for old, new in plain.items() if new in NAMES and new not in given and times[new] == 1}


def renamed(record: Fields, columns: Mapping[str, str]) -> dict[str, Any]:
    """The record under the new names of its columns; `-` leaves a column out, and a new name wins over an old one."""
    changed = {new: record[old] for old, new in columns.items() if old in record and new != "-"}
    return {**{name: value for name, value in record.items() if name not in columns}, **changed}


def in_words(columns: Mapping[str, str]) -> str:
    """`Question as query, Answer as response`."""
    return ", ".join(f"{old} left out" if new == "-" else f"{old} as {new}" for old, new in columns.items())


def replaced(record: Fields, columns: Mapping[str, str]) -> list[str]:
    """The columns of the record whose names others take from them."""
    return [f"{new} (as {old} takes its name)" for old, new in columns.items() if new in record and new not in columns]


def refuse_unknown(columns: Mapping[str, str]) -> None:
    """Raise SwiftError where `--columns` would make a column what no format knows."""
    for old, new in columns.items():
        if new != "-" and new not in NAMES:
            raise SwiftError(
                f"{old!r} cannot become {new!r}: no format has such a column",
                where="--columns",
                next=suggestion(new, NAMES) or "give names such as query, response, system, messages or text",
            )


def refuse_absent(columns: Iterable[str], rows: Iterable[Shard | Converted]) -> None:
    """Raise SwiftError for a column of `--columns` that none of the rows has."""
    read: set[str] = set()
    unused: set[str] = set()
    for some in rows:
        read.update(some.renamed)
        unused.update(some.unused)
    absent = next((name for name in columns if name not in read), None)
    if absent is not None:
        raise SwiftError(
            f"no row has the column {absent!r}",
            where="--columns",
            next=suggestion(absent, unused | read) or "write the columns as they stand in the rows",
        )
