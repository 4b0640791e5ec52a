"""How much memory is free on this machine: what the kernel has left, within what a container may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def free_memory(device: str) -> int | None:
    """Bytes that are free: of an NVIDIA or AMD GPU (the fullest that is visible), of the host for a CPU or Apple's GPU.

    None for devices that do not tell.
    """
    if device == "cuda":
        import torch

        return min(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
    return free_host_memory() if device in ("cpu", "mps") else None


def free_host_memory() -> int:
    """Bytes of the host that this process may still take, caches of files counted as free."""
    return max(0, min([psutil.virtual_memory().available, *room_in_cgroups(OWN, CGROUPS)]))


def room_in_cgroups(own: Path, root: Path) -> Iterator[int]:
    """Bytes left below each limit on the memory of this process's control groups, which `own` names; version 1 or 2."""
    if not own.is_file():  # no Linux
        return
    for line in own.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, limit, usage, cache = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):  # inside of a container the path may be that of the host
            if folder.is_relative_to(base) and (folder / limit).is_file():
                most = (folder / limit).read_text(encoding="utf-8").strip()
                if most != "max":
                    yield int(most) - int((folder / usage).read_text(encoding="utf-8")) + _of(folder, cache)


def _of(group: Path, name: str) -> int:
    """A number of the group's `memory.stat`."""
    lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    return next((int(value) for key, value in (line.split() for line in lines) if key == name), 0)
