"""`swift doctor`: versions, devices, what is missing for which command, and the line that mends it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from swift.core.broken_imports import broken
from swift.core.environment import cache_home
from swift.core.installation import DISTRIBUTION, extras, requirements
from swift.core.own_parser import OwnParser

USAGE = """usage: swift doctor [--json] [--quick]

Shows versions and their tested ranges, devices, memory and disk, what is missing for which command, and the pip line
that brings it. Packages of optional parts are imported, to see that they can be; --quick takes them by their names, and
loads torch only where there is a GPU to ask about. Exit code 1 when something that every command needs
is missing or outside its tested range, or a GPU is out of reach."""
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "MODELSCOPE_CACHE",
    "NPROC_PER_NODE",
    "OMP_NUM_THREADS",
    "USE_HF",
    "XDG_CACHE_HOME",
)
"""Environment variables that change what commands do."""
ELSEWHERE = {"vllm": "vLLM", "lmdeploy": "LMDeploy"}
"""Engines that live in environments of their own."""


def run(words: Sequence[str]) -> int:
    """Look, and say what was seen. -> exit code."""
    parser = OwnParser("doctor")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("-h", "--help", "--help-all", action="store_true")
    given = parser.parse_args(list(words))
    if given.help:
        print(USAGE)
        return 0
    facts = look(imports=not given.quick)
    print(json.dumps(facts, indent=2, ensure_ascii=False) if given.json else "\n".join(_lines(facts)))
    return 1 if facts["problems"] else 0


def look(*, imports: bool) -> dict[str, Any]:
    """Everything, as plain values. `problems` are lists of what is wrong and the line that mends it.

    With `imports`, the packages of optional parts that are here are imported in a process of their own.
    """
    packages = [
        {"name": one.name, "version": one.version, "tested": one.range, "fit": one.fit, "pip": one.pip}
        for one in requirements()
    ]
    devices, troubles = _devices()
    here = [module for one in extras().values() for module in one.imported]
    faults = broken(here) if imports and _version("torch") else {}  # many need torch, whose lack is named
    parts = [
        {
            "name": one.name,
            "what": one.what,
            "commands": list(one.commands),
            "missing": one.missing,
            "broken": [
                {"name": module, "why": faults[module], "pip": one.again(module)}
                for module in one.imported
                if module in faults
            ],
            "outside": [{"name": each.name, "version": each.version, "tested": each.range} for each in one.outside],
            "pip": one.pip,
        }
        for one in extras().values()
    ]
    words = {"missing": "is not installed", "outside": "is outside the tested range"}
    problems = [
        {"what": f"{one['name']} {one['version'] or ''}".rstrip() + f" {words[one['fit']]}", "next": one["pip"]}
        for one in packages
        if one["fit"] != "ok"
    ]
    return {
        "swift": _version(DISTRIBUTION),
        "python": platform.python_version(),
        "system": platform.platform(),
        "installed in": str(Path(__file__).parents[1]),
        "packages": packages,
        "devices": devices,
        "machine": _machine(),
        "disk": {str(path): _free(path) for path in (Path.cwd(), cache_home())},
        "variables": {name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
        "extras": parts,
        "engines": {name: _version(module) for module, name in ELSEWHERE.items()},
        "problems": [*problems, *troubles],
    }


def _devices() -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The accelerators, and what keeps torch from using them."""
    from swift.core.probe import may_have_accelerator

    if not may_have_accelerator() or _version("torch") is None:
        return [], []
    import torch

    if torch.cuda.is_available():
        properties = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        return [
            {
                "name": one.name,
                "memory": one.total_memory,
                "capability": f"{one.major}.{one.minor}",
                "cuda": torch.version.cuda,
                "bf16": one.major >= 8,
            }
            for one in properties
        ], []
    if torch.backends.mps.is_available():
        return [{"name": "Apple GPU (mps)"}], []
    if sys.platform != "linux":
        return [], []
    if torch.version.cuda is None and torch.version.hip is None:
        what, cure = "a GPU is here, and this torch is built for CPUs", "pip install --force-reinstall torch"
    elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        what, cure = "a GPU is here, and CUDA_VISIBLE_DEVICES hides it", "unset CUDA_VISIBLE_DEVICES"
    else:
        what, cure = "a GPU is here, and torch cannot reach it", "nvidia-smi shows whether the driver answers"
    return [], [{"what": what, "next": cure}]


def _machine() -> dict[str, Any]:
    facts: dict[str, Any] = {"cores": os.cpu_count()}
    if _version("psutil") is not None:
        import psutil

        memory = psutil.virtual_memory()
        facts |= {"memory": memory.total, "free memory": memory.available}
    return facts


def _free(path: Path) -> int | None:
    """Free bytes where the path is, or will be."""
    there = next((parent for parent in (path, *path.parents) if parent.exists()), None)
    return None if there is None else shutil.disk_usage(there).free


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"swift {facts['swift']}, Python {facts['python']}, {facts['system']}"
    yield f"in {facts['installed in']}"
    yield ""
    yield "Packages"
    marks = {"ok": "ok", "missing": "MISSING", "outside": "OUTSIDE"}
    for one in facts["packages"]:
        yield f"  {marks[one['fit']]:<9}{one['name']:<18}{one['version'] or '-':<14}{one['tested'] or 'any version'}"
    yield ""
    yield "Machine"
    machine = facts["machine"]
    memory = f", {_size(machine['memory'])} memory, {_size(machine['free memory'])} free" if "memory" in machine else ""
    yield f"  {machine['cores']} cores{memory}"
    for device in facts["devices"]:
        more = f", {_size(device['memory'])}, capability {device['capability']}" if "memory" in device else ""
        yield f"  {device['name']}{more}"
    if not facts["devices"]:
        yield "  no accelerator: commands run on the CPU"
    for path, free in facts["disk"].items():
        yield f"  {_size(free) if free is not None else 'nothing known'} free in {path}"
    for name, value in facts["variables"].items():
        yield f"  {name}={value}"
    yield ""
    yield "Optional parts"
    for part in facts["extras"]:
        yield from _lines_of_part(part)
    for name, found in facts["engines"].items():
        yield f"  {'ok' if found else '-':<4}{name:<12}{found or 'an environment of its own: docs/install.md'}"
    yield ""
    if not facts["problems"]:
        yield "all that every command needs is here"
    for problem in facts["problems"]:
        yield f"{problem['what']}: {problem['next']}"


def _lines_of_part(part: Mapping[str, Any]) -> Iterator[str]:
    state = "-" if part["missing"] else "!" if part["outside"] or part["broken"] else "ok"
    yield f"  {state:<4}{part['name']:<12}{part['what']}"
    if part["missing"]:
        yield f"      {', '.join(part['commands'])}: {part['pip']}"
    for one in part["broken"]:
        yield f"      {one['name']} cannot be imported ({one['why']}): {one['pip']}"
    for one in part["outside"]:
        tested = f"outside the tested range {one['tested']}"
        yield f"      {one['name']} {one['version']} is {tested}: {part['pip']}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
