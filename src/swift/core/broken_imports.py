"""Libraries that are installed and cannot be imported: found by importing them, in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

SECONDS = 180.0
"""For the imports of one process together."""
_TRIES = """
import importlib, json, os, sys
said = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is no answer
for name in sys.argv[1:]:
    print(json.dumps([name, None]), file=said, flush=True)
    why = ""
    try:
        importlib.import_module(name)
    except BaseException as error:
        why = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    print(json.dumps([name, why]), file=said, flush=True)
os._exit(0)
"""


def broken(modules: Sequence[str]) -> dict[str, str]:
    """Those that cannot be imported here, with why. One that takes its process down with it is named as such."""
    found: dict[str, str] = {}
    left = list(dict.fromkeys(modules))
    while left:
        ended, seen = _tried(left)
        found |= {name: why for name, why in seen.items() if why}
        last = next(reversed(seen), left[0])
        if seen.get(last) is None:
            found[last] = ended
        left = left[left.index(last) + 1 :]
    return found


def _tried(modules: Sequence[str]) -> tuple[str, dict[str, str | None]]:
    """How the process ended, and what became of each import that it began: None for one that it did not survive."""
    words = [sys.executable, *(["-S"] if sys.flags.no_site else []), "-c", _TRIES, *modules]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(words, env=env, capture_output=True, check=False, timeout=SECONDS)
        ended, said = f"it ended Python (exit code {done.returncode})", done.stdout
    except subprocess.TimeoutExpired as error:
        ended, said = f"it was not imported in {SECONDS:.0f} seconds", error.stdout or b""
    seen: dict[str, str | None] = {}
    for line in said.decode("utf-8", "replace").splitlines():
        name, why = json.loads(line)
        seen[name] = why
    return ended, seen
