"""What the machine offers, as a value. `swift.core.probe.probe` fills it; plans read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Device = Literal["cpu", "cuda", "npu", "mps"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Devices of this process, its place among the ranks, and the optional packages that are installed."""

    device: Device = "cpu"
    device_count: int = 0
    """Visible accelerators; 0 on a CPU."""
    bf16: bool = True
    """Whether the device computes in bfloat16."""
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    packages: frozenset[str] = frozenset()
    """Installed optional modules, of those `swift.core.probe.OPTIONAL` lists."""

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0
