"""`swift verify`: the first steps of a run again, and whether they give the same losses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from swift.core.own_parser import OwnParser

USAGE = """usage: swift verify RUN [--steps 5]

Trains the first steps of a run again, as its folder says it was trained, and compares the losses with those in its log,
to the last digit that is written there. Nothing in the folder is touched. Run it in the folder that the run was started
in, where its paths mean the same. Exit code 0: all are the same, 1: some are not, 2: bad input."""


def run(words: Sequence[str]) -> int:
    """Train, compare, say. -> exit code."""
    parser = OwnParser("verify")
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("-h", "--help", "--help-all", action="store_true")
    given = parser.parse_args(list(words))
    if given.help:
        print(USAGE)
        return 0
    if given.run is None or given.steps < 1:
        parser.error("no run is named" if given.run is None else f"--steps takes 1 or more, not {given.steps}")
    from swift.core.environment_faults import check_interpreter
    from swift.core.quick_imports import quick_imports
    from swift.core.threads import wait_briefly

    check_interpreter()
    wait_briefly(os.environ)
    with quick_imports():
        from swift.checking.first_steps import verify

    verified = verify(given.run, given.steps)
    print(verified.text())
    return 0 if verified.same else 1
