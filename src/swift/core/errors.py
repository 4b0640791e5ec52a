"""The one error a user sees: what is wrong, where, why, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 1200
"""Characters of one line of a message; of longer ones the beginning and the end are shown."""


class SwiftError(Exception):
    """A mistake in the input or the surroundings that the user can mend; ends the command with `exit_code`.

    Anything that is not a `SwiftError` is a bug of ours and shows as one.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, why: str | None = None, next: str | None = None):
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.next = next

    @property
    def reason(self) -> str:
        """What and why, for where the place is known."""
        return ": ".join(filter(None, (self.what, self.why)))

    @property
    def one_line(self) -> str:
        """What, why and where, for a list of rows."""
        return self.reason if self.where is None else f"{self.reason} ({self.where})"

    def lines(self) -> list[str]:
        """The message as it is printed, at most four lines."""
        labelled = (("where", self.where), ("why", self.why), ("next", self.next))
        return [f"error: {_line(self.what)}", *(f"{label:>5}: {_line(text)}" for label, text in labelled if text)]

    def __str__(self) -> str:
        return "\n".join(self.lines())


class NotBuilt(SwiftError):
    """A flag, value or command of the contract whose work does not exist yet. Refused, never ignored."""


class EnvironmentFault(SwiftError):
    """The machine or its settings do not do. Each process says it, since the next one may have another environment."""


class PeerLost(SwiftError):
    """Another process of the run ended or hangs. Told by one that lives on when those who know more have spoken."""

    exit_code = 1


class CheckFailed(SwiftError):
    """The work was done and its own check rejects the result (a merge that differs, rows that went missing)."""

    exit_code = 1


class Interrupted(SwiftError):
    """A signal stopped the run after everything was saved: 75 (try again later) for SIGTERM, 130 for Ctrl-C."""

    def __init__(self, what: str, *, exit_code: int, next: str | None = None):
        super().__init__(what, next=next)
        self.exit_code = exit_code


class SeveralErrors(SwiftError):
    """Mistakes that were found together are reported together."""

    def __init__(self, errors: Iterable[SwiftError]):
        self.errors = list(errors)
        super().__init__("; ".join(error.what for error in self.errors))

    def lines(self) -> list[str]:
        """One line a mistake, at most six in all, so that the last screen line is still about the input."""
        shown = self.errors if len(self.errors) <= 6 else self.errors[:5]
        rows = ["error: " + _line(", ".join(filter(None, (e.what, e.next)))) for e in shown]
        hidden = len(self.errors) - len(shown)
        return [*rows, f"error: {hidden} more of this kind"] if hidden else rows


def _line(text: str) -> str:
    """The text in one line of a length that can be read: inputs and libraries' words stand in it, whatever they are."""
    whole = " ".join(text.splitlines())
    return whole if len(whole) <= LONGEST else f"{whole[: LONGEST // 2]} … {whole[-LONGEST // 2 :]}"


def raise_together(errors: Iterable[SwiftError]) -> None:
    """Raise nothing, the one error, or all of them as one."""
    listed = list(errors)
    if len(listed) == 1:
        raise listed[0]
    if listed:
        raise SeveralErrors(listed)


def first_line(error: Exception) -> str:
    """What a library's error says, short enough for the `why` of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
