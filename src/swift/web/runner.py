"""The parent of a job's command: starts it, waits for it, and writes down how it ended.

Run as `python -m swift.web.runner JOB-FOLDER` in a session of its own. The web server need not live as long. Standard
library only: it stays in memory as long as the job.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from swift.core.transaction import write_file

ARGV, PROCESS, EXIT, LOG = "argv.json", "process.json", "exit.json", "log"


def start_time(pid: int) -> str | None:
    """When the process began, as a text to compare: boot and clock ticks on Linux, else seconds."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{stat.rpartition(b')')[2].split()[19].decode()}"
    except FileNotFoundError:
        pass
    except (OSError, IndexError):
        return None
    if sys.platform == "linux":
        return None
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return None


def main(folder: Path) -> None:
    """Run the command of the job to its end."""
    # Whoever signals the whole group ends the command; this process stays to say how. Not ignored, since the command
    # would inherit that.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    job = json.loads((folder / ARGV).read_text(encoding="utf-8"))
    with (folder / LOG).open("ab") as log:
        try:
            child = subprocess.Popen(
                job["argv"], cwd=job["cwd"], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        except OSError as error:
            log.write(f"error: {job['argv'][0]} cannot be started: {error}\n".encode())
            write_file(folder / EXIT, json.dumps({"code": 2, "time": time.time()}))
            return
        processes = [{"pid": pid, "started": start_time(pid)} for pid in (os.getpid(), child.pid)]
        write_file(folder / PROCESS, json.dumps({"runner": processes[0], "command": processes[1]}))
        code = child.wait()
    write_file(folder / EXIT, json.dumps({"code": code, "time": time.time()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
