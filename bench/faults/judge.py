"""From what a cell said to a verdict, by the same rules for every tool."""

from __future__ import annotations

import re
from dataclasses import dataclass

VERDICTS = {
    "stopped": "stops before the first step and names the fault",
    "warned": "goes on, having named the fault before the first step",
    "during": "named once training has begun",
    "right": "the harm does not come about: what was asked for happens, which is measured",
    "silent": "ends well, names nothing, and the harm is done",
    "crashed": "ends with an error that does not name the fault",
    "hung": "did not end within the time limit",
    "none": "the tool has no such step",
    "unproved": "could not be judged: a step before failed, or the rows were not learned",
}
"""What a cell may come to, and what that means."""

FIRST_STEP = re.compile(r"""['"]loss['"]\s*:|\bstep \d+/\d+ · """)
"""A line of the training log, which every step writes."""
ECHO = re.compile(
    r"""^\s*["'][\w./ -]+["']\s*:      # a settings file that is printed
      | \b\d+%\|                       # a progress bar
      | ^\s*File\s"|^\s*[\^~]+\s*$     # where in its source a program is
      | ^\s*usage:|^\s*\[--|^\s+--\w   # the list of all flags
      | \w+Args\(|Arguments\(|Config\( # settings that are printed as one line
      | (Future|Deprecation)Warning
      | ^\s*\w+=.*,$                  # a setting in a list of all of them
      | ^\s*command\b|run\ sh:|^\s*\$\ # the command itself
    """,
    re.VERBOSE,
)
"""Lines that only repeat what was asked for, or show that something goes on: they name nothing."""
ERROR = re.compile(r"^error: |^\w+(\.\w+)*(Error|Exception)\b")
"""The line that a program ends with, where it says why."""
WARNING = re.compile(r"warn", re.IGNORECASE)
"""A line that is meant to be seen; one that only tells of the same thing is shown where there is no other."""
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Judged:
    """A verdict, and the line that it rests on."""

    verdict: str
    line: str


def lines_of(output: str) -> list[str]:
    """What a terminal shows at the end of each line; the source lines of tracebacks are left out."""
    shown = [COLOURS.sub("", line).rpartition("\r")[2].rstrip() for line in output.replace("\r\n", "\n").split("\n")]
    kept, of_source = [], False
    for line in shown:
        if not of_source or not line.startswith("    "):
            kept.append(line)
        of_source = bool(re.match(r'\s*(\[rank\d+\]:\s*)?File "', line))
    return [line for line in kept if line.strip()]


def judge(output: str, exit_code: int | None, names: list[str]) -> Judged:
    """By exit code, and by where a line first names the fault; `silent` may still turn out as `right`."""
    pattern = re.compile("|".join(f"(?:{name})" for name in names), re.IGNORECASE)
    shown = lines_of(output)
    begun = next((place for place, line in enumerate(shown) if FIRST_STEP.search(line)), len(shown))
    named = [place for place, line in enumerate(shown) if pattern.search(line) and not ECHO.search(line)]
    last = shown[-1] if shown else ""
    if exit_code is None:
        return Judged("hung", last)
    if not named:
        why = [line for line in shown if exit_code and ERROR.search(line)]
        return Judged("crashed" if exit_code else "silent", (why or [last])[-1])
    during = named[0] > begun
    lines = [shown[place] for place in named if during or place < begun]
    errors = [shown[place] for place in named if exit_code and ERROR.search(shown[place])]
    line = errors[-1] if errors else next(filter(WARNING.search, lines), lines[0])
    if during:
        return Judged("during", line)
    return Judged("stopped" if exit_code else "warned", line)
