"""Faults that are nobody's bug: a full disk, a folder that is not ours, an interpreter or processes set up wrongly."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

from swift.core.environment import cache_home, read_int
from swift.core.errors import EnvironmentFault

_FILES = "raise the limit of open files: ulimit -n 65536"
_FOLDER = "change its permissions, or name another folder"
_NEXT = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some of your quota, or write to another disk",
    errno.EFBIG: "raise the limit of file sizes: ulimit -f unlimited",
    errno.EROFS: "write to another folder",
    errno.EACCES: _FOLDER,
    errno.EPERM: _FOLDER,
    errno.ENOTDIR: _FOLDER,
    errno.ENAMETOOLONG: "take a shorter name",
    errno.ELOOP: "mend the link",
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: "take a smaller model or batch, or end other programs",
    errno.EAGAIN: "end other programs, or raise the limit of processes: ulimit -u unlimited",
    errno.EIO: "check the disk",
    errno.ESTALE: "mount the file system again",
}
_ROOM = re.compile(r"[\w ]*out of memory\b(\. Tried to allocate [\d.]+ \w+)?|DefaultCPUAllocator: can't allocate[^.]*")
"""What PyTorch raises for a device, and for the host, that has no room for a tensor."""
_OPERATOR = re.compile(r"operator (\w+)::\w+ does not exist")
"""What PyTorch raises for a library whose compiled part belongs to another of its versions, as torchvision's."""
_PLACES = "it is standard output, the cache (XDG_CACHE_HOME), temporary files (TMPDIR) or the run (--output_dir)"
_LAUNCH = (
    "start with NPROC_PER_NODE=N swift …, which sets them, or unset RANK, LOCAL_RANK and WORLD_SIZE for one process"
)


def explain(error: BaseException) -> EnvironmentFault | None:
    """The message for an error that the machine made, or None for one that is ours."""
    if isinstance(error, MemoryError):
        return EnvironmentFault("the machine is out of memory", next=_NEXT[errno.ENOMEM])
    if isinstance(error, RuntimeError) and (room := _ROOM.search(str(error))):
        return EnvironmentFault(f"there is not enough memory: {room[0].strip('. ')}", next=_NEXT[errno.ENOMEM])
    if isinstance(error, RuntimeError) and (built := _OPERATOR.search(str(error))):
        return EnvironmentFault(
            f"the package `{built[1]}` is built for another torch: {built[0]}", next=_install("torch", built[1])
        )
    if isinstance(error, ImportError) and error.__cause__ is not None and (deeper := explain(error.__cause__)):
        return deeper  # as transformers raises it: `Could not import module 'AutoModel'`
    if isinstance(error, ImportError) and (package := (error.name or _raised_in(error)).partition(".")[0]) != "swift":
        return EnvironmentFault(
            f"the package `{package}` cannot be imported: {error.msg}", where=error.path, next=_install(package)
        )
    if isinstance(error, OSError) and error.filename is not None:
        return _explain_path(error, Path(os.fsdecode(error.filename)))
    number = error.errno if isinstance(error, OSError) else _os_error_in(str(error))
    if number in _NEXT:
        why = _PLACES if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS) else None
        return EnvironmentFault(os.strerror(number), why=why, next=_NEXT[number])
    if "No usable temporary directory" in str(error):
        return EnvironmentFault("there is no folder for temporary files", next="export TMPDIR=FOLDER")
    return None


def _raised_in(error: BaseException) -> str:
    """The module whose code raised the error."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "swift" if at is None else str(at.tb_frame.f_globals.get("__name__"))


def _install(package: str, beside: str | None = None) -> str:
    """The line that brings a package into this environment, and all that is missing with it, in tested ranges.

    `beside` it pip finds the version of another that belongs to it."""
    try:
        from swift.core.installation import requirements

        needed = list(requirements())
    except ImportError:  # of what reads the ranges, or of a package that was never installed by pip
        needed = []
    wrong = [one.requirement for one in needed if one.fit != "ok"]
    if not wrong:
        distributions = packages_distributions().get(package, [])
        broken = {one.name: one.requirement for one in needed if one.name in distributions}
        wrong = (
            ["--force-reinstall", *(broken.get(name, name) for name in distributions)] if distributions else [package]
        )
    return shlex.join([sys.executable, "-m", "pip", "install", *wrong, *([beside] if beside else [])])


def _explain_path(error: OSError, path: Path) -> EnvironmentFault | None:
    cache = cache_home()
    of_cache = cache in (path, *path.parents) or path in cache.parents
    if error.errno not in _NEXT and not (of_cache and isinstance(error, FileNotFoundError)):
        return None
    return EnvironmentFault(
        str(error.strerror),
        where=str(path),
        why=f"it belongs to the cache, {cache}" if of_cache else None,
        next="export XDG_CACHE_HOME=FOLDER" if of_cache else _NEXT[error.errno or 0],
    )


def _os_error_in(message: str) -> int:
    """The number of the system's error in what a library written in Rust or C++ raises, 0 where there is none."""
    if match := re.search(r"\(os error (\d+)\)", message):
        return int(match[1])
    if any(name in message for name in ("PytorchStreamWriter failed writing", "inline_container.cc", "iostream error")):
        return errno.ENOSPC
    return errno.EAGAIN if "can't start new thread" in message else 0


def check_interpreter() -> None:
    """Raise EnvironmentFault for a process that the libraries below us do not run in."""
    if sys.flags.optimize >= 2:
        raise EnvironmentFault(
            "Python runs without docstrings, which transformers reads",
            where="PYTHONOPTIMIZE=2, or python -OO",
            next="unset PYTHONOPTIMIZE",
        )
    try:
        Path.cwd()
    except FileNotFoundError:
        raise EnvironmentFault("the current folder does not exist any more", next="cd to another one") from None


def check_ranks(env: Mapping[str, str]) -> None:
    """Raise EnvironmentFault where the variables of torchrun are incomplete or contradict each other."""
    world, local_world = read_int("WORLD_SIZE", 1, env, low=1), read_int("LOCAL_WORLD_SIZE", 1, env, low=1)
    for name, total, size in (("RANK", "WORLD_SIZE", world), ("LOCAL_RANK", "LOCAL_WORLD_SIZE", local_world)):
        known = total == "WORLD_SIZE" or env.get(total)
        if read_int(name, 0, env) >= size and known:
            raise EnvironmentFault(
                f"{name} is {env[name]}, but {total} is {size}", where="the environment", next=_LAUNCH
            )
    if world == 1 and not env.get("LOCAL_RANK"):
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if not env.get(name)]
    if missing:
        given = "LOCAL_RANK" if env.get("LOCAL_RANK") else "WORLD_SIZE"
        raise EnvironmentFault(
            f"{given} is set, but {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not",
            where="the environment",
            why="each process of a run has to know them all",
            next=_LAUNCH,
        )
    read_int("MASTER_PORT", 0, env, low=1)
