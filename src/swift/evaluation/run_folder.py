"""The folder of an evaluation: a line for each question, written as it is answered, and where earlier answers lie."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from swift.core.job_folder import report_result
from swift.core.writable import require_writable, writing

QUESTIONS = "questions.jsonl"
Record = dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """An evaluation's own folder, with its file of questions open."""

    path: Path
    _file: BinaryIO

    def write(self, record: Mapping[str, Any]) -> None:
        """Append the record of a question; a killed process does not lose it. Raises SwiftError on a full disk."""
        line = json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        with writing(self.path, where="--eval_output_dir", next="make room, then go on with --eval_use_cache true"):
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())


@contextmanager
def new_run(output: Path, now: datetime) -> Iterator[RunFolder]:
    """A new folder in `output`, named by the time. Raises SwiftError where none can be written."""
    require_writable(output, "--eval_output_dir", "--eval_output_dir FOLDER")
    with writing(output, where="--eval_output_dir", next="--eval_output_dir FOLDER"):
        path = _made(output / f"{now:%Y%m%d-%H%M%S}")
        file = (path / QUESTIONS).open("ab", buffering=0)
    report_result(path)
    with file:
        yield RunFolder(path, file)


def _made(path: Path) -> Path:
    """The folder, or the first with a number behind it that no other evaluation has."""
    number, folder = 1, path
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = path.with_name(f"{path.name}-{number}")


def read_records(folder: Path) -> list[Record]:
    """The questions of a run up to the first broken line, which a kill may leave."""
    records: list[Record] = []
    with (folder / QUESTIONS).open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                break
            records.append(record)
    return records


def answered(output: Path) -> dict[str, Record]:
    """What earlier runs in `output` were answered, by the key of the question; the newest of several."""
    records: dict[str, Record] = {}
    for path in sorted(output.glob(f"*/{QUESTIONS}")):
        records.update((record["key"], record) for record in read_records(path.parent) if "error" not in record)
    return records


def key_of(*facts: Any) -> str:
    """A name for all that decides an answer."""
    return hashlib.sha256(json.dumps(facts, ensure_ascii=False, sort_keys=True, default=repr).encode()).hexdigest()
