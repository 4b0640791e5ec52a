"""python warm.py TOOL: a process that has imported a tool's libraries, and a fork of it for each command line.

Importing takes three quarters of a short run. A fork starts where the tool's own program starts, with the arguments,
the folder and the output of the cell, and ends as that program ends. Commands come as lines of JSON on standard input;
the exit code goes to standard output, `null` for one that took too long. It runs in the environment of the tool.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

IMPORTS = {
    "swift": ("swift.cli", "torch", "transformers", "peft", "accelerate", "swift.commands.sft", "swift.training"),
    "trl": ("datasets", "peft", "trl.trainer.sft_trainer", "trl.trainer.dpo_trainer", "trl.trainer.kto_trainer"),
    "llamafactory": ("llamafactory.cli", "llamafactory.train.tuner", "llamafactory.chat.chat_model"),
    "ms-swift": ("torch", "transformers", "peft", "datasets", "swift.llm"),
}


def main() -> None:
    """Import, then fork for each line; a child leaves the loop and is the tool's program from there on."""
    tool = sys.argv[1]
    # Else the tool would import from the folder of this file.
    sys.path.remove(str(Path(__file__).parent))
    for name in IMPORTS[tool]:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            become(asked)
            start(tool, asked["words"])()
            return
        answers.write(json.dumps(ended(child, asked["seconds"])) + "\n")
        answers.flush()


def become(asked: dict[str, Any]) -> None:
    """Take on the folder, the streams and the arguments of the command."""
    os.setsid()
    os.chdir(asked["cell"])
    os.environ.update(asked["environment"])
    typed, said = os.open(asked["typed"] or os.devnull, os.O_RDONLY), os.open(asked["said"], os.O_WRONLY | os.O_CREAT)
    for stream, number in ((typed, 0), (said, 1), (said, 2)):
        os.dup2(stream, number)
    sys.argv = asked["words"]


def start(tool: str, words: list[str]) -> Callable[[], object]:
    """The tool's own program for a command line."""
    if tool == "swift":
        program = importlib.import_module("swift.cli")
        return lambda: sys.exit(program.main(words[1:]))
    if tool == "llamafactory":
        return importlib.import_module("llamafactory.cli").main
    if tool == "trl":
        sys.argv = words[2:]
        return lambda: runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    # `swift COMMAND` of ms-swift runs the file of that name in its folder `cli`, in a process of its own.
    package = find_spec("swift")
    assert package is not None and package.origin is not None
    file = Path(package.origin).parent / "cli" / f"{words[1].replace('-', '_')}.py"
    sys.argv = words[1:]
    return lambda: runpy.run_path(str(file), run_name="__main__")


def ended(child: int, seconds: float) -> int | None:
    """Its exit code; None when it had to be stopped."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    main()
