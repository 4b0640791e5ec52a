"""What a check found, in ten lines for people and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One check. `differences` are shares, by what was compared; the check passes where none is above its `allowed`."""

    name: str
    status: Status
    detail: str
    differences: Mapping[str, float] = field(default_factory=dict)
    allowed: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def line(self) -> str:
        """`ok      resumed = uninterrupted      loss 0, weights 0 (3.1 s)`."""
        mark = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}[self.status]
        return f"{mark:<8}{self.name:<36}{self.detail} ({self.seconds:.1f} s)"


def judged(name: str, what: str, differences: Mapping[str, float], allowed: Mapping[str, float]) -> Result:
    """The result of a comparison: failed where a difference is above what is allowed, or is not a number."""
    limits = {key: allowed[key] for key in differences}
    over = [key for key, value in differences.items() if not value <= limits[key]]
    numbers = ", ".join(f"{key} {_short(value)}" for key, value in differences.items())
    if over:
        numbers += f"; allowed: {', '.join(f'{key} {_short(limits[key])}' for key in over)}"
    detail = f"{what}: {numbers}"
    return Result(
        name=name,
        status="failed" if over else "passed",
        detail=detail,
        differences=dict(differences),
        allowed=limits,
    )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All checks of a run."""

    subject: str
    results: Sequence[Result]
    command: str
    """The command line that repeats it."""
    seconds: float

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [result.name for result in self.results if result.status == "failed"]

    def text(self) -> str:
        """A line for each check, and the sum with what was checked."""
        counts = [
            f"{number} {status}"
            for status in ("passed", "failed", "skipped")
            if (number := sum(result.status == status for result in self.results))
        ]
        return "\n".join(
            [
                *(result.line() for result in self.results),
                f"{'FAILED' if self.failed else 'ok'}: {', '.join(counts)} in {self.seconds:.0f} s: {self.subject}",
            ]
        )

    def as_json(self) -> dict[str, Any]:
        """The same as plain values; what is not a number is a text."""
        return {
            "version": 1,
            "passed": not self.failed,
            "subject": self.subject,
            "command": self.command,
            "seconds": round(self.seconds, 1),
            "checks": [
                {
                    **asdict(result),
                    "differences": {key: _plain(value) for key, value in result.differences.items()},
                    "seconds": round(result.seconds, 1),
                }
                for result in self.results
            ],
        }


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.1g}"


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
