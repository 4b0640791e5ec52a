"""`swift COMMAND …`: pick the command, report every mistake at once, start the processes, run.

Nothing is imported here before it is needed: help and mistakes answer in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from swift.core.errors import CheckFailed, EnvironmentFault, PeerLost, SwiftError, raise_together

OTHERS_SPEAK = 5.0
"""Seconds in which a launcher ends the other processes of a machine when one of them has failed, and told why.

A check that fails may do so in one process alone, or in all of them."""


def script() -> None:
    """The console entry point."""
    sys.stdout, sys.stderr = _writable(sys.stdout), _writable(sys.stderr)
    if isinstance(sys.stdin, io.TextIOWrapper) and sys.stdin.encoding.lower() in ("ascii", "ansi_x3.4-1968"):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # the locale C says nothing of the input
    code = main()
    try:
        sys.stdout.flush()
    except OSError as error:  # `swift … | head`, or a full disk: what is left cannot be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            _report([f"error: standard output: {error.strerror}"], sys.argv[1:])
            code = code or 2
    sys.exit(code)


def _writable(stream: TextIO | None) -> TextIO:
    """The stream as one that never fails: closed (`>&-`) it goes nowhere, without UTF-8 it shows `?`."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    return stream


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 0, 1 (a check failed), 2 (bad input), 75 or 130 (stopped)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except SwiftError as error:
        late = isinstance(error, PeerLost) or (isinstance(error, CheckFailed) and not _first_of_machine())
        if late:
            time.sleep(OTHERS_SPEAK)
        _report(error.lines(), words, every=late or isinstance(error, EnvironmentFault))
        return error.exit_code
    except KeyboardInterrupt:
        _report(["interrupted"], words)
        return 130
    except BrokenPipeError:
        return 0
    except Exception as bug:  # the one place where a bug of ours becomes a line that people can report
        from swift.core.environment_faults import explain

        if fault := explain(bug):
            _report(fault.lines(), words, every=True)
            return fault.exit_code
        line = f"internal error: {type(bug).__name__}: {_first_line(bug)} ({_place(bug)})"
        _report([line, _BUG], words, every=True)
        return 1


_BUG = " next: this is a bug of swift; run again with --debug for the traceback, and please report it"


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "--help-all", "help"):
        from swift.params.render import overview

        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"swift {version('swift-llm')}")
        return 0
    if words[0].startswith("-"):
        raise SwiftError(f"{words[0]} stands before a command", next="swift COMMAND --flag …, see swift --help")

    from swift.params.commands import OWN, TRAINING, find_command

    if words[0] in OWN:
        return _work_of(OWN[words[0]].run)(words[1:]) or 0
    command, _ = find_command(words[0])
    if helped := [word for word in words[1:] if word in ("-h", "--help", "--help-all", "--help_all")]:
        from swift.params.render import command_help

        print(command_help(command, every="--help-all" in helped or "--help_all" in helped))
        return 0
    from swift.params.parse import read

    parsed = read(words)
    if form := parsed.args.values["print_config"]:
        raise_together(parsed.errors)
        from swift.params.render import config

        print(config(parsed.args, form))
        return 0

    from swift.plan.mistakes import mistakes

    raise_together([*parsed.errors, *mistakes(parsed.args, unsure=bool(parsed.errors))])
    run = _work_of(command.run)
    from swift.core.environment_faults import check_interpreter
    from swift.core.threads import wait_briefly

    check_interpreter()
    wait_briefly(os.environ)
    if command.name in TRAINING:
        if (code := _launched(words)) is not None:
            return code
    elif command.name != "web-ui" and (
        asked := [each for each in ("NPROC_PER_NODE", "NNODES") if os.environ.get(each)]
    ):
        parsed.warnings.append(f"swift {command.name} is one process: {' and '.join(asked)} does not count")
    parsed.say()
    return run(parsed.args) or 0


def _launched(words: list[str]) -> int | None:
    """The exit code of the processes that the environment asks for; None in one of them, and where one is all."""
    from swift.core.end_with_parent import end_with_parent
    from swift.core.environment_faults import check_ranks
    from swift.core.launch import relaunch, wants_processes

    if wants_processes(os.environ):
        return relaunch(words, os.environ)
    check_ranks(os.environ)
    if os.environ.get("LOCAL_RANK"):
        end_with_parent(os.environ)
    return None


def _work_of(where: str) -> Callable[..., int | None]:
    """The function that does a command's work."""
    import importlib

    module, _, function = where.partition(":")
    return importlib.import_module(module).__dict__[function]


def _report(lines: list[str], words: list[str], *, every: bool = False) -> None:
    """Print to standard error, from the first process that torchrun started on each machine or from `every` one."""
    if "--debug" in words:
        import traceback

        traceback.print_exc()
    env = os.environ
    if every and env.get("RANK"):
        lines = [f"[rank {env['RANK']}] {lines[0]}", *lines[1:]]
    if every or _first_of_machine():
        with contextlib.suppress(OSError):  # nobody can be told
            print("\n".join(lines[:6]), file=sys.stderr, flush=True)


def _first_of_machine() -> bool:
    env = os.environ
    return not (env.get("RANK") and env.get("LOCAL_RANK", "0") != "0" and env.get("MASTER_ADDR"))


def _first_line(bug: BaseException) -> str:
    return (str(bug).strip().splitlines() or [""])[0]


def _place(bug: BaseException) -> str:
    at = bug.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at is not None else "?"
