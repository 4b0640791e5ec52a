"""The fault table judges all tools by the same rules, and its page shows what was run and nothing else."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "bench" / "faults"
sys.path.insert(0, str(FOLDER))

from judge import VERDICTS, judge  # noqa: E402
from page import MARKS, lines, quoted  # noqa: E402

FAULTS = tomllib.loads((FOLDER / "faults.toml").read_text(encoding="utf-8"))["fault"]
RESULTS = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
STEP, OWN_STEP = "{'loss': '10.8', 'epoch': '0.04'}", "step 1/3 · loss 10.8 · 1s gone"


@pytest.mark.parametrize(
    ("output", "exit_code", "verdict"),
    [
        (f"row 7 is broken\n{STEP}", 0, "warned"),
        (f"{STEP}\nrow 7 is broken", 0, "during"),
        (f"{OWN_STEP}\nrow 7 is broken", 1, "during"),
        ("error: row 7 is broken", 2, "stopped"),
        (f"{STEP}\ndone", 0, "silent"),
        ("KeyError: 'label'", 1, "crashed"),
        (f"{STEP}", None, "hung"),
        # What only repeats the settings, shows progress or is a line of source names nothing.
        ('  "broken rows": true,\ndone', 0, "silent"),
        ("Dropping broken rows: 100%|#| 24/24", 0, "silent"),
        ('  File "loader.py", line 3, in load\n    raise Broken("row is broken")\nKeyError: 3', 1, "crashed"),
        ('  File "array.pxi", line 3, in load\nValueError: row 7 is broken', 1, "stopped"),
        ("broken_rows=broken,\ndone", 0, "silent"),
        ("args: SftArguments(rows='broken.jsonl')\ndone", 0, "silent"),
        ("\x1b[33mwarning: row 7 is \x1b[1mbroken\x1b[0m", 0, "warned"),
        ("row 7 is broken\rall rows are read", 0, "silent"),
    ],
)
def test_a_verdict_follows_from_exit_code_and_place(output: str, exit_code: int | None, verdict: str) -> None:
    assert judge(output, exit_code, [r"row \d+ is broken", "broken"]).verdict == verdict


def test_a_warning_is_shown_rather_than_a_line_that_tells_of_the_same() -> None:
    said = f"[INFO:swift] 0 broken rows\n[WARNING:swift] row 7 is broken\n{STEP}\n[WARNING:swift] row 9 is broken"
    assert judge(said, 0, ["broken"]).line == "[WARNING:swift] row 7 is broken"
    assert judge(said, 1, ["broken"]).verdict == "stopped"
    assert judge(f"[INFO:swift] 1 broken row\n{STEP}\n[WARNING:swift] row 9 is broken", 0, ["broken"]).line == (
        "[INFO:swift] 1 broken row"
    )


def test_each_fault_was_reported_somewhere_and_each_cell_is_of_a_fault() -> None:
    ids = [fault["id"] for fault in FAULTS]
    assert len(ids) == len(set(ids)) >= 25
    assert all(re.fullmatch(r"https://github\.com/\S+/(issues|pull)/\d+", fault["thread"]) for fault in FAULTS)
    assert set(RESULTS["cells"]) <= set(ids)
    verdicts = {cell["verdict"] for cells in RESULTS["cells"].values() for cell in cells.values()}
    assert verdicts <= set(VERDICTS) == set(MARKS)


def test_the_page_shows_each_command_that_was_run_and_no_path_of_a_machine() -> None:
    page = "\n".join(lines())
    for cells in RESULTS["cells"].values():
        for cell in cells.values():
            assert all(command in page for command in cell["commands"])
    assert not re.search(r"(/root/|/home/\w|/work/|/tmp/)", page)
    assert quoted("/a/b/site-packages/trl/sft_trainer.py:12: UserWarning: no") == "sft_trainer: UserWarning: no"


def test_ours_harms_in_no_cell() -> None:
    """A cell of ours that turns silent or into a crash is a fault of ours."""
    ours = {fault: cells["swift"]["verdict"] for fault, cells in RESULTS["cells"].items() if "swift" in cells}
    assert {name: one for name, one in ours.items() if one not in ("stopped", "warned", "right", "during")} == {}
