"""Named causes of a run that does not learn: each is told once, with what to do, and kept in the run's folder.

What makes learning impossible stops a run (`swift.data.build`: no trained token, answers that would not learn to end;
`swift.training.callbacks.loss_watch`: losses that are no numbers, no gradient). What only looks wrong is found in rows
(`odd_rows.py`), curves (`callbacks/curve_watch.py`) and weights (`callbacks/weight_watch.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from swift.core.errors import CheckFailed
from swift.core.log import log
from swift.training.run_dir import append

FILE = "why_not_learning.jsonl"


@dataclass(frozen=True)
class Cause:
    """Why a run does not learn, or seems to and does not."""

    cause: str
    why: str
    next: str


class Notebook:
    """Tells each cause once and keeps it in the run's folder."""

    def __init__(self, folder: Path):
        self._file, self._told = folder / FILE, set[str]()

    def tell(self, cause: Cause, step: int) -> None:
        """As a warning and as a line of the file."""
        if cause.cause in self._told:
            return
        self._told.add(cause.cause)
        log.warning("why it may not learn: %s: %s; %s", cause.cause, cause.why, cause.next)
        append(self._file, {"step": step, **asdict(cause)})

    def keep(self, error: CheckFailed, step: int) -> None:
        """A cause that stopped the run, which is told by the error itself."""
        append(
            self._file, {"step": step, "cause": error.what, "why": error.why, "where": error.where, "next": error.next}
        )
