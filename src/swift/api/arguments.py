"""From the keywords of a call to the arguments of its command, with all checks of the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from swift.core.environment_faults import check_interpreter, explain
from swift.core.errors import SwiftError, raise_together
from swift.core.launch import wants_processes
from swift.core.log import another_command
from swift.core.threads import wait_briefly
from swift.params.args import Args
from swift.params.parse import read_call
from swift.plan.mistakes import mistakes

ConfigFile = str | os.PathLike[str] | None


@contextmanager
def faults_told() -> Iterator[None]:
    """Raise as SwiftError what the command line would report as a fault of the machine: a package that is not
    installed, a full disk, too little memory."""
    try:
        yield
    except SwiftError:
        raise
    except Exception as error:
        if fault := explain(error):
            raise fault from error
        raise


def arguments(command: str, config: ConfigFile, flags: Mapping[str, Any]) -> Args:
    """The arguments of a command; `config` is a file of flags, which `flags` win over. Raises SwiftError."""
    if config is not None and not isinstance(config, str | os.PathLike):
        raise SwiftError(
            f"the first argument is a file of flags, not {type(config).__name__}", next="flags are keywords: f(**flags)"
        )
    parsed = read_call(command, None if config is None else os.fspath(config), flags)
    raise_together([*parsed.errors, *mistakes(parsed.args, unsure=bool(parsed.errors))])
    if parsed.args.values["print_config"]:
        raise SwiftError("print_config is for the command line", where="print_config", next=f"swift {command} --help")
    check_interpreter()
    wait_briefly(os.environ)
    another_command()
    parsed.say()
    return parsed.args


def require_one_process(command: str) -> None:
    """Raise SwiftError where the environment asks for processes that a call cannot start."""
    if wants_processes(os.environ):
        raise SwiftError(
            "NPROC_PER_NODE and NNODES start processes of the command line, and a call trains in its own",
            next=f"run `swift {command}` in a shell, start the script with torchrun, or unset them",
        )
