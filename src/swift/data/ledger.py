"""The account of every row: kept, truncated or dropped with a reason, by file and line, with totals that add up."""

from __future__ import annotations

import itertools
import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.column_proposal import proposed
from swift.plan.data import DataPlan
from swift.prompts.rewrites import LOST, QUIET

Status = Literal["kept", "truncated", "dropped"]
STATUSES: tuple[Status, ...] = ("kept", "truncated", "dropped")
FILE_NAME = "data_ledger.jsonl"
FLUSHED = 1000
"""Lines that are written together."""
UNTRAINED = "nothing to train on"
"""Why a row is dropped whose every label is masked."""
NO_ANSWERS = (
    "name a registered template with --template_type if the chat template writes no answers, or train one of each row"
)
SHOWN = 5
"""Bad rows that are shown in the log."""


@dataclass(frozen=True)
class Entry:
    """What became of one row."""

    source: str
    line: int
    status: Status
    reason: str | None = None
    detail: str | None = None
    tokens: int = 0
    trained: int = 0
    """Tokens of the row that are supervised."""
    examples: int = 1
    note: str | None = None
    rewrites: tuple[str, ...] = ()
    """Remarks on what the chat template made of the row's text."""

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}"


class Ledger:
    """Writes one JSON line a row to `path` (nowhere when it is None) and a last line with the totals.

    `strict` makes the first dropped row an error; `judge` holds the ratios: of dropped rows, and of those whose answers
    lost text to the chat template.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        max_drop_ratio: float = 1.0,
        max_rewritten_ratio: float = 1.0,
        strict: bool = False,
    ):
        self.path = path
        self.max_drop_ratio = max_drop_ratio
        self.max_rewritten_ratio = max_rewritten_ratio
        self.strict = strict
        self.counts: Counter[Status] = Counter()
        self.reasons: Counter[str] = Counter()
        self.rewritten = 0
        """Rows whose answers lost text to the chat template."""
        self.rewrites: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        """Remark on the chat template -> the place of its first row."""
        self._remarked = 0
        """How many of these the log has shown."""
        self.sampled_out: Counter[str] = Counter()
        self.tokens = 0
        self.trained = 0
        self.bad: list[Entry] = []
        """The first dropped rows."""
        self._given = 0
        """How many of these the log has shown."""
        self._lines: list[str] = []
        self._written = 0
        self._started = False
        self._closed = False

    @classmethod
    def of_plan(cls, plan: DataPlan, path: Path | None = None) -> Ledger:
        """The ledger of a run."""
        ratios = {"max_drop_ratio": plan.max_drop_ratio, "max_rewritten_ratio": plan.max_rewritten_ratio}
        return cls(path, strict=plan.strict, **ratios)

    def of_the_same_limits(self) -> Ledger:
        """An empty ledger that writes nothing and judges as this one does."""
        return Ledger(
            max_drop_ratio=self.max_drop_ratio, max_rewritten_ratio=self.max_rewritten_ratio, strict=self.strict
        )

    @property
    def total(self) -> int:
        """Rows that were asked for and read; rows left out by `#n` are counted apart."""
        return sum(self.counts.values())

    def add(self, entry: Entry, split: str | None = None) -> None:
        """Account for one row. Raises SwiftError for a dropped row when `strict`."""
        self.counts[entry.status] += 1
        self.tokens += entry.tokens
        self.trained += entry.trained
        self.rewrites.update(entry.rewrites)
        self.rewritten += not LOST.isdisjoint(entry.rewrites)
        for remark in entry.rewrites:
            self._first.setdefault(remark, entry.where)
        if entry.status == "dropped":
            self.reasons[entry.reason or "?"] += 1
            if len(self.bad) < SHOWN:
                self.bad.append(entry)
        self._write(_line(entry, split))
        if entry.status == "dropped" and self.strict:
            self._end()
            raise bad_row_error(entry)

    def leave_out(self, source: str, rows: int) -> None:
        """Count rows that `#n` did not choose; they are neither kept nor dropped."""
        if rows:
            self.sampled_out[source] += rows

    def judge(self) -> None:
        """Stop a run that would train on nothing or on far less than was given. Raises SwiftError."""
        used = self.counts["kept"] + self.counts["truncated"]
        first = self.bad[0] if self.bad else None
        why = f"{first.where}: {first.reason}: {first.detail}" if first else None
        if not self.total:
            none = "none was chosen (#0)" if self.sampled_out else "the data sets are empty"
            raise SwiftError("no row can be used: there are no rows", why=none, next="choose other data")
        if not used:
            raise SwiftError(
                f"no row can be used: {self._dropped_by_reason()}",
                where=str(self.path) if self.path else None,
                why=why,
                next=NO_ANSWERS
                if set(self.reasons) == {UNTRAINED}
                else _mended(first, "mend the rows that are named, or choose other data"),
            )
        if self.trained == 0:
            raise SwiftError("no token of the data is trained", why="every label is masked", next="check the template")
        dropped = self.counts["dropped"]
        read = self.total + sum(self.sampled_out.values())
        if dropped > self.max_drop_ratio * read:
            raise SwiftError(
                f"{dropped} of {read} rows were dropped: {self._dropped_by_reason()}",
                where=str(self.path) if self.path else None,
                why=why,
                next=_mended(first, f"mend them, or allow more than {self.max_drop_ratio:g} with --max_drop_ratio"),
            )
        if self.rewritten > self.max_rewritten_ratio * used:
            remark, place = next(item for item in self._first.items() if item[0] in LOST)
            raise SwiftError(
                f"{self.rewritten} of {used} rows would train other answers than they hold",
                where=str(self.path) if self.path else None,
                why=f"{place}: {remark}",
                next="name a registered template with --template_type, mend the chat template, or go on with "
                "--max_rewritten_ratio 1",
            )

    def summary(self) -> str:
        """The totals in one line."""
        left_out = sum(self.sampled_out.values())
        return (
            f"{self.total} rows: {self.counts['kept']} kept, {self.counts['truncated']} truncated, "
            f"{self.counts['dropped']} dropped"
            + (f" ({self._dropped_by_reason()})" if self.reasons else "")
            + (f"; {left_out} not sampled" if left_out else "")
            + f"; {self.tokens} tokens, {self.trained} trained"
            + "".join(f"; {remark}: {rows}" for remark, rows in self.rewrites.most_common())
        )

    def close(self) -> None:
        """Write the totals and say them; a second call does nothing."""
        if not self._closed:
            self._end()
            self.report()

    def _end(self) -> None:
        self._write(json.dumps({"summary": self.totals()}, ensure_ascii=False) + "\n")
        self.flush()
        self._closed = True

    def totals(self) -> dict[str, object]:
        """The totals as they stand in the last line of the file."""
        return {
            "rows": self.total,
            **{status: self.counts[status] for status in STATUSES},
            "reasons": dict(self.reasons),
            "rewritten": self.rewritten,
            "rewrites": dict(self.rewrites),
            "not_sampled": dict(self.sampled_out),
            "tokens": self.tokens,
            "trained": self.trained,
        }

    def report(self) -> None:
        """Say the totals and the first bad rows in the log, if there were any rows."""
        self.say_rows()
        hidden = self.counts["dropped"] - len(self.bad)
        if hidden > 0:
            log.warning("… and %d more, see %s", hidden, self.path or f"the {FILE_NAME} of the run")
        if self.total or self.sampled_out:
            log.info("data: %s", self.summary())

    def say_rows(self) -> None:
        """Say the first bad rows, and the first of each remark on the chat template, each once."""
        for entry in self.bad[self._given :]:
            log.warning("dropped %s: %s: %s", entry.where, entry.reason, entry.detail)
        self._given = len(self.bad)
        for remark, place in list(self._first.items())[self._remarked :]:
            log.log(logging.INFO if remark in QUIET else logging.WARNING, "%s: %s", place, remark)
        self._remarked = len(self._first)

    def account(self) -> dict[str, Any]:
        """What is entered so far, as JSON values: a ledger that is left here goes on with `go_on`."""
        return {"lines": self._written, "counts": dict(self.counts), **self.totals()}

    def go_on(self, account: Mapping[str, Any]) -> None:
        """Keep the first part of the file at `path`, up to `account`; what stood behind it is told again.

        Without that part, as in another folder, this ledger is about the rows from here on.
        """
        if self.path is not None and not self._started and self.path.is_file():
            self._keep(self.path, account)

    def go_back(self, account: Mapping[str, Any]) -> None:
        """Forget what was entered since `account` was taken of this very ledger: it is told again."""
        if self.path is not None:
            self.flush()
            self._keep(self.path, account)

    def _keep(self, path: Path, account: Mapping[str, Any]) -> None:
        with path.open("r+b") as file:
            sizes = [len(line) for line in itertools.islice(file, account["lines"])]
            if len(sizes) < account["lines"]:
                return
            file.truncate(sum(sizes))
        self._started, self._written = True, account["lines"]
        self._lines.clear()
        self.counts, self.reasons = Counter(account["counts"]), Counter(account["reasons"])
        self.rewritten, self.rewrites = account["rewritten"], Counter(account["rewrites"])
        self.tokens, self.trained = account["tokens"], account["trained"]

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _dropped_by_reason(self) -> str:
        return ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())

    def _write(self, line: str) -> None:
        if self.path is not None and not self._closed:
            self._lines.append(line)
            self._written += 1
            if len(self._lines) >= FLUSHED:
                self.flush()

    def flush(self) -> None:
        """Append what waits. The file is not kept open: worker processes and crashes find it whole."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a" if self._started else "w", encoding="utf-8") as file:
            file.writelines(self._lines)
        self._started = True
        self._lines.clear()


def enter_late(path: Path, entry: Entry) -> None:
    """Drop a row that was kept and turned out to be broken while it was trained, once, with new totals behind it.

    Any process of a run may do it, its data workers too.
    """
    from filelock import FileLock  # which no run needs whose rows are whole

    with FileLock(f"{path}.lock"):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        line = _line(entry, None)
        if line in text or not text:
            return
        totals = json.loads(text.splitlines()[-1])["summary"]
        totals["kept"], totals["dropped"] = totals["kept"] - 1, totals["dropped"] + 1
        reason = entry.reason or "?"
        totals["reasons"][reason] = totals["reasons"].get(reason, 0) + 1
        with path.open("a", encoding="utf-8") as file:
            file.write(line + json.dumps({"summary": totals}, ensure_ascii=False) + "\n")


def bad_row_error(entry: Entry) -> SwiftError:
    """The error that stops a strict run."""
    return SwiftError(
        f"{entry.reason}: {entry.detail}",
        where=entry.where,
        next=_mended(entry, "mend the row, or leave out --strict to drop such rows"),
    )


def _mended(entry: Entry | None, otherwise: str) -> str:
    """What to do about a dropped row: name its columns, where that is all."""
    columns = entry and proposed(entry.detail)
    return f"{columns} names the columns of these rows; or {otherwise}" if columns else otherwise


def _line(entry: Entry, split: str | None) -> str:
    """One ledger line; the common case is put together by hand, it is written once a row."""
    note = "; ".join((*filter(None, (entry.note,)), *entry.rewrites)) or None
    start = (
        f'{{"source": {json.dumps(entry.source, ensure_ascii=False)}, "line": {entry.line}, "status": "{entry.status}"'
    )
    more = "".join(
        f', "{name}": {json.dumps(value, ensure_ascii=False)}'
        for name, value in (("reason", entry.reason), ("detail", entry.detail), ("note", note), ("split", split))
        if value is not None
    )
    counted = f', "tokens": {entry.tokens}, "trained": {entry.trained}' if entry.status != "dropped" else ""
    several = f', "examples": {entry.examples}' if entry.examples != 1 else ""
    return f"{start}{counted}{several}{more}}}\n"
