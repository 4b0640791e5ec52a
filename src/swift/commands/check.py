"""`swift check`: whether a run on these rows computes what it should, before hours go into it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swift.core.own_parser import OwnParser

if TYPE_CHECKING:
    from swift.checking.subject import Planned
    from swift.checking.verdict import Verdict

USAGE = """usage: swift check [sft|pt|rlhf|dpo|…] [FILE.yaml] [--flag value …] [--result_path FILE.json]

Takes every flag of `swift sft`, or of the training command named. On your model and a few of your rows it trains
a handful of steps in ways that must agree, and compares: batch x accumulation; flat, packed and padded rows; gradient
checkpointing on and off; one process and two; a resumed run and one that was never stopped; losses and steps, and the
same by hand; an adapter in memory, loaded, and merged; the prompts of training and those of the server. fp32, unless
--dtype says otherwise. Prints a line for each and writes JSON to --result_path, else into a folder below --output_dir.
Exit code 0: all agree, 1: some do not, 2: bad input."""
FOLDER_OF_PROCESSES = "SWIFT_CHECK_FOLDER"
"""Set for the processes that a check starts: where the first of them leaves its numbers."""


def run(words: Sequence[str]) -> int:
    """Plan, check, say and write the verdict. -> exit code."""
    result_path, rest = own_words(words)
    if result_path is None and {"-h", "--help", "--help-all"}.intersection(rest):
        print(USAGE)
        return 0
    from swift.core.environment_faults import check_interpreter
    from swift.core.quick_imports import quick_imports
    from swift.core.threads import wait_briefly

    check_interpreter()
    wait_briefly(os.environ)
    with quick_imports():
        from swift.checking.checks import one_of_two
        from swift.checking.subject import planned

    given = planned(rest)
    if folder := os.environ.get(FOLDER_OF_PROCESSES):
        from swift.core.end_with_parent import end_with_parent

        end_with_parent(os.environ)
        one_of_two(given, Path(folder))
        return 0
    return _checked(given, rest, result_path)


def own_words(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """`--result_path`, and the words that are flags of `swift sft`. Raises SwiftError."""
    parser = OwnParser("check")
    parser.add_argument("--result_path", "--result-path", type=Path)
    known, rest = parser.parse_known_args(list(words))
    return known.result_path, rest


def written_verdict(given: Planned, words: Sequence[str], path: Path) -> Verdict:
    """Check, and write the verdict. Raises SwiftError for a file that cannot be written, before anything is checked."""
    import json

    from swift.checking.checks import verdict_of
    from swift.core.errors import SwiftError
    from swift.core.log import log
    from swift.core.transaction import write_file
    from swift.core.writable import removed_if_empty, require_writable

    if path.is_dir():
        raise SwiftError(f"{path} is a folder", where="--result_path", next=f"name a file: {path / 'check.json'}")
    with removed_if_empty(path.parent):
        require_writable(path.parent, "--result_path")
        verdict = verdict_of(given, words)
        write_file(path, json.dumps(verdict.as_json(), indent=2, ensure_ascii=False) + "\n")
    log.info("written to %s", path)
    return verdict


def _checked(given: Planned, words: Sequence[str], result_path: Path | None) -> int:
    from datetime import datetime

    folder = f"check-{datetime.now():%Y%m%d-%H%M%S}"
    verdict = written_verdict(given, words, result_path or given.plan.train.output_dir / folder / "check.json")
    print(verdict.text())
    return 1 if verdict.failed else 0
