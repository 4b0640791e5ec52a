"""What a run writes about itself: its environment, and `report.html` at the start, at checkpoints and at its end."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from swift.core.errors import Interrupted, SwiftError
from swift.core.installation import DISTRIBUTION, requirements
from swift.core.log import log
from swift.core.machine import Machine
from swift.params.args import Args
from swift.plan.sft import SftPlan
from swift.reports.run_files import ARGS, ENVIRONMENT, Run
from swift.reports.training import Told, write_training_report
from swift.training.artifacts import decided, write_json
from swift.training.run_inputs import inputs

PACKAGES = (DISTRIBUTION, *("torch", "transformers", "peft", "accelerate", "tokenizers", "datasets", "numpy"))
MOST_WARNINGS = 100
UNDER_WAY = "not ended: it goes on still, or it was killed after what is shown here"


def environment(machine: Machine) -> dict[str, Any]:
    """What the numbers of a run may depend on besides its flags and rows."""
    cuda = machine.device == "cuda" and torch.cuda.is_available()
    devices = [torch.cuda.get_device_name(number) for number in range(machine.device_count if cuda else 0)]
    return {
        **{name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "devices": ", ".join(devices) or machine.device,
        "processes": machine.world_size,
        "threads": torch.get_num_threads(),
        "working folder": str(Path.cwd()),
    }


def note_inputs(args: Args, plan: SftPlan, source: Path, folder: Path) -> None:
    """Add what a run reads to the environment that its folder keeps; the weights are in `source`."""
    write_json(folder / ENVIRONMENT, {**Run(folder).environment, **inputs(args, plan, source)})


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@contextmanager
def reported(args: Args, plan: SftPlan, machine: Machine, folder: Path) -> Iterator[Callable[[], object]]:
    """Inside, a training: its report is written when it ends, stops or fails, if it came as far as to begin.

    -> what writes it meanwhile, for a run that is killed.
    """
    before = _stamp(folder / ARGS)

    def write(ending: str = UNDER_WAY, whole: bool = False) -> Path | None:
        where_from = origins(args, plan, Run(folder).args)
        lines = list(warnings.lines)
        told = Told(ending=ending, whole=whole, plan=plan.summary(), origins=where_from, warnings=lines)
        return _write(folder, told)

    write_json(folder / ENVIRONMENT, environment(machine))
    warnings = _Warnings()
    log.addHandler(warnings)
    _say_untested()
    ending, whole = "finished", True
    try:
        yield write
    except BaseException as error:
        ending, whole = _words(error), False
        raise
    finally:
        log.removeHandler(warnings)
        if _stamp(folder / ARGS) == before:
            (folder / ENVIRONMENT).unlink(missing_ok=True)
        elif (file := write(ending, whole)) is not None:
            log.info("report:  %s", file)


def _say_untested() -> None:
    """Name packages whose versions nobody has tried here: others of their releases have changed numbers."""
    for one in requirements():
        if one.fit == "outside":
            log.warning("%s %s is outside the tested range %s: %s", one.name, one.version, one.range, one.pip)


def origins(args: Args, plan: SftPlan, values: Mapping[str, Any]) -> dict[str, str]:
    """Where each value comes from; what the plan made another of counts as decided there."""
    plans = {name for name, value in decided(plan).items() if _plain(args.values.get(name)) != _plain(value)}
    known = {name: origin for name, origin in args.origins.items() if name not in plans}
    return {name: known[name] for name in values if name in known}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _write(folder: Path, told: Told) -> Path | None:
    try:
        return write_training_report(folder, told)
    except OSError as error:  # a full disk may not hide how the run ended
        log.warning("no report was written: %s", error)
        return None


def _words(error: BaseException) -> str:
    if isinstance(error, Interrupted):
        return ", ".join(filter(None, (error.what, error.next and f"go on with: {error.next}")))
    if isinstance(error, SwiftError):
        return "failed: " + ", ".join(filter(None, (error.where, error.what, error.why, error.next)))
    return f"failed: {type(error).__name__}: {error}"


class _Warnings(logging.Handler):
    """Keeps what the log warned of, once each."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.lines) < MOST_WARNINGS:
            self.lines[record.getMessage()] = None
