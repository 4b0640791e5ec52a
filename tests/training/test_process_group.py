"""What processes of a run talk through, and how they hear of its end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from swift.core.errors import SwiftError
from swift.params.groups import Distributed
from swift.plan.fsdp import FsdpPlan
from swift.training.callbacks.stop import StopOnSignal
from swift.training.process_group import backend_of, joined
from swift.training.training_arguments import training_arguments
from training.kit import tiny_plan


@pytest.mark.parametrize(
    ("device", "offloads", "given", "expected"),
    [
        ("cuda", True, None, "cuda:nccl,cpu:gloo"),
        ("cuda", True, "nccl", "cuda:nccl,cpu:gloo"),
        ("cuda", True, "gloo", "gloo"),
        ("cuda", False, None, None),
        ("cpu", True, None, None),
    ],
)
def test_shares_on_the_host_are_added_up_there(
    device: str, offloads: bool, given: Any, expected: str | None, tmp_path: Path
) -> None:
    fsdp = FsdpPlan(reshards=True, offloads=offloads, layers=())
    plan = tiny_plan(tmp_path, device=device, fsdp=fsdp, distributed=Distributed(ddp_backend=given))
    assert backend_of(plan) == expected


@pytest.mark.parametrize("backend", ["mpi", "ccl", "nccl"])
def test_what_processes_cannot_talk_through_is_refused(backend: Any, tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, device="cpu", world_size=2, distributed=Distributed(ddp_backend=backend))
    with pytest.raises(SwiftError, match=f"--ddp_backend {backend} cannot be used"), joined(plan):
        pass


def test_one_process_talks_to_nobody(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, distributed=Distributed(ddp_backend="mpi"))
    assert training_arguments(plan, tmp_path, steps=1, evaluates=False).ddp_backend is None


def test_a_signal_to_one_of_several_processes_and_to_their_launcher_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As schedulers end a job. Those that end then are not cut short by their launcher, which hears of the first."""
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    before = signal.getsignal(signal.SIGTERM)
    stop = StopOnSignal()
    try:
        with stop.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked and not exits
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        monkeypatch.delenv("LOCAL_RANK")
        with stop.listening():
            os.kill(os.getpid(), signal.SIGTERM)
        assert exits == [128 + signal.SIGTERM], "alone, the second one is another wish"
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, before if number == signal.SIGTERM else signal.default_int_handler)
