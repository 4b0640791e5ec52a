"""The result file: one JSON object a line, written as answers come, continued after a kill."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from swift.core.errors import SwiftError
from swift.core.locks import lock
from swift.core.log import log
from swift.core.transaction import write_file
from swift.core.writable import require_writable, writing
from swift.prompts.types import Conversation

UNFINISHED = ".unfinished"
"""Beside a result file as long as rows are missing: names the run that may go on with it."""
ELSEWHERE = "--result_dir FOLDER, or --save_result false"


@dataclass
class Results:
    """An open result file; `done` rows were there already. Without a path the rows are kept to be scored."""

    path: Path | None
    done: int
    _file: BinaryIO | None
    _kept: list[dict[str, Any]] = field(default_factory=list)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; it is on disk, as far as a killed process is concerned, when this returns.

        Raises SwiftError when the disk does not take it; the file then ends with the row before.
        """
        if self._file is None or self.path is None:
            self._kept.append(row)
            return
        line = json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        whole = os.fstat(self._file.fileno()).st_size
        try:
            with writing(self.path, where="--result_dir", next="make room, then run the same command again to go on"):
                rest = memoryview(line)
                while rest:
                    rest = rest[self._file.write(rest) :]
        except SwiftError:
            self._file.truncate(whole)
            raise

    def rows(self) -> list[dict[str, Any]]:
        """Every row that was written, those of earlier starts too."""
        return _complete(self.path)[0] if self.path else self._kept


@contextmanager
def open_results(folder: Path | None, run: str | None, now: datetime) -> Iterator[Results]:
    """The result file of a run in `folder` (None keeps none).

    `run` names what is answered how: an unfinished file of the same run is gone on with, its broken last line cut off.
    None (a chat) always starts a new file. The caller calls `finish` when all rows are there.
    """
    if folder is None:
        yield Results(None, 0, None)
        return
    require_room_for_results(folder)
    with writing(folder, where="--result_dir", next=ELSEWHERE):
        path, done, file = (_unfinished(folder, run) if run else None) or _new(folder, now)
        if run:
            write_file(_mark(path), run)
    with file:
        yield Results(path, done, file)


def require_room_for_results(folder: Path) -> None:
    """Raises SwiftError when no result file can be written in `folder`."""
    require_writable(folder, "--result_dir", ELSEWHERE)


def finish(results: Results) -> None:
    """All rows are there: nobody goes on with this file."""
    if results.path is not None:
        _mark(results.path).unlink(missing_ok=True)


def run_name(*facts: object) -> str:
    """A name for a run: equal when all `facts` print the same."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def fields(conversation: Conversation, default_system: str | None) -> dict[str, Any]:
    """The columns of a conversation that is to be answered: system, query, history and what it carries."""
    messages = list(conversation.messages)
    system = messages.pop(0).content if messages and messages[0].role == "system" else default_system
    query = messages.pop().content if messages else ""
    history: list[list[str]] = []
    for question, answer in zip(messages[::2], messages[1::2], strict=False):
        history.append([question.content, answer.content])
    carried = {
        "images": conversation.media.images,
        "videos": conversation.media.videos,
        "audios": conversation.media.audios,
    }
    return {
        "system": system,
        "query": query,
        "history": history,
        **{name: list(paths) for name, paths in carried.items() if paths},
    }


def _new(folder: Path, now: datetime) -> tuple[Path, int, BinaryIO]:
    """A file that nobody has yet, open and locked."""
    number = 1
    while True:
        path = folder / f"{now:%Y%m%d-%H%M%S}{f'-{number}' if number > 1 else ''}.jsonl"
        try:
            file = path.open("xb", buffering=0)
        except FileExistsError:
            number += 1
            continue
        lock(file.fileno(), path)
        return path, 0, file


def _unfinished(folder: Path, run: str) -> tuple[Path, int, BinaryIO] | None:
    """The newest file this run left unfinished, repaired, open and locked, and how many rows it has."""
    for mark in sorted(folder.glob(f"*{UNFINISHED}"), reverse=True):
        path = mark.with_suffix("")
        if _run_of(mark) != run or not path.is_file():
            continue
        file = path.open("ab", buffering=0)
        held = lock(file.fileno(), path)
        if not held:
            log.info("another process is answering the same rows into %s: these answers get a file of their own", path)
        if not held or _run_of(mark) != run:  # its owner may have finished it just now
            file.close()
            continue
        rows, whole = _complete(path)
        file.truncate(whole)
        log.info("going on with %s: %d rows are answered", path, len(rows))
        return path, len(rows), file
    return None


def _complete(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows up to the first broken line, and how many bytes they take."""
    rows: list[dict[str, Any]] = []
    whole = 0
    with path.open("rb") as file:
        for line in file:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
            if not line.endswith(b"\n"):
                rows.pop()
                break
            whole += len(line)
    return rows, whole


def _run_of(mark: Path) -> str | None:
    try:
        return mark.read_text("utf-8")
    except FileNotFoundError:
        return None


def _mark(path: Path) -> Path:
    return path.with_name(path.name + UNFINISHED)
