"""What a process started by the web page reports to it: the folder its work is written to."""

from __future__ import annotations

import os
from pathlib import Path

from swift.core.transaction import write_file

VARIABLE = "SWIFT_JOB_FOLDER"
"""Set by `swift web-ui` for each process it starts: the folder of the job."""
RESULT = "result"


def report_result(folder: Path) -> None:
    """Note in the folder of the job, if there is one, where the results of this process lie."""
    job = os.environ.get(VARIABLE)
    if job and Path(job).is_dir():
        write_file(Path(job) / RESULT, str(folder.resolve()))
