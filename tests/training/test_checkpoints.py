from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from swift.core.errors import CheckFailed, SwiftError
from swift.core.transaction import MANIFEST, fault
from swift.training import checkpoints
from swift.training.loop import train
from swift.tuners.tensor_files import write_tensors
from training.kit import tiny_run


def make(folder: Path, text: str = "weights") -> Path:
    with checkpoints.writing(folder) as scratch:
        (scratch / "adapter_model.safetensors").write_text(text)
        (scratch / "optimizer.pt").write_text(text)
        (scratch / "sft_args.json").write_text("{}")
    return folder


def test_a_failed_write_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    make(tmp_path / "checkpoint-1")
    with (
        pytest.raises(SwiftError, match="could not be written") as raised,
        checkpoints.writing(tmp_path / "checkpoint-2") as scratch,
    ):
        (scratch / "half").write_text("x")
        raise OSError(28, "No space left on device")
    assert "No space left" in str(raised.value)
    assert "checkpoint-1" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_a_torch_writer_that_runs_out_of_space_is_a_full_disk_too(tmp_path: Path) -> None:
    with pytest.raises(SwiftError, match="could not be written"), checkpoints.writing(tmp_path / "checkpoint-2"):
        raise RuntimeError("[enforce fail at inline_container.cc:862] . PytorchStreamWriter failed writing file data/0")
    with pytest.raises(RuntimeError, match="another"), checkpoints.writing(tmp_path / "checkpoint-2"):
        raise RuntimeError("another fault")


def test_room_is_asked_for_before_writing(tmp_path: Path) -> None:
    checkpoints.require_room(tmp_path / "checkpoint-1", 1)
    with pytest.raises(SwiftError, match="could not be written"):
        checkpoints.require_room(tmp_path / "checkpoint-1", 2**60)


def test_a_disk_without_room_for_a_checkpoint_stops_a_run_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path / "run", max_steps=1, save_strategy="steps", optim="adamw_torch")
    trained = sum(weight.numel() * 4 for weight in run.model.parameters() if weight.requires_grad)
    full = SimpleNamespace(free=3 * trained - 1)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: full)
    with pytest.raises(SwiftError, match="no room for a checkpoint") as raised:
        train(run)
    assert str(run.folder) in str(raised.value)
    assert not (run.folder / "logging.jsonl").exists()
    full.free += 1
    assert train(tiny_run(tmp_path / "other", max_steps=1, save_strategy="no")).state.global_step == 1


def test_going_back_replaces_the_later_checkpoint(tmp_path: Path) -> None:
    folder = make(tmp_path / "checkpoint-4", "old")
    make(folder, "new")
    assert (folder / "optimizer.pt").read_text() == "new"
    assert fault(folder) is None


def test_rotation_keeps_best_and_last(tmp_path: Path) -> None:
    for step in (2, 4, 10, 12):
        make(tmp_path / f"checkpoint-{step}")
    best = tmp_path / "checkpoint-2"
    assert [path.name for path in checkpoints.rotate(tmp_path, 2, {best})] == ["checkpoint-4", "checkpoint-10"]
    assert [path.name for path in checkpoints.checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-12"]
    assert checkpoints.rotate(tmp_path, 1, {best}) == []
    assert checkpoints.rotate(tmp_path, None, set()) == []
    assert [path.name for path in checkpoints.rotate(tmp_path, 1, set())] == ["checkpoint-2"]
    written = make(tmp_path / "checkpoint-3")
    assert checkpoints.rotate(tmp_path, 1, {written}) == [], "what was just written stays, whatever its number"


def test_newest_is_of_the_run_written_last_and_whole(tmp_path: Path) -> None:
    make(tmp_path / "v0-20260101-000000" / "checkpoint-30")
    older = make(tmp_path / "v1-20260102-000000" / "checkpoint-5")
    newer = make(tmp_path / "v1-20260102-000000" / "checkpoint-10")
    assert checkpoints.newest(tmp_path) == newer
    (newer / "optimizer.pt").write_text("cut")
    assert checkpoints.newest(tmp_path) == older
    assert checkpoints.newest(tmp_path / "v2") is None
    stranger = lambda path: "of another model" if path.parent == newer.parent else None  # noqa: E731
    assert checkpoints.newest(tmp_path, stranger) == tmp_path / "v0-20260101-000000" / "checkpoint-30"


def test_what_cannot_be_gone_on_from_is_refused_with_the_reason(tmp_path: Path) -> None:
    whole = make(tmp_path / "checkpoint-5")
    checkpoints.require(whole, whole_state=True)

    with pytest.raises(SwiftError, match="is not a checkpoint") as raised:
        checkpoints.require(tmp_path, whole_state=True)
    assert str(whole) in str(raised.value)

    weights_only = tmp_path / "checkpoint-6"
    with checkpoints.writing(weights_only) as scratch:
        (scratch / "adapter_model.safetensors").write_text("x")
    checkpoints.require(weights_only, whole_state=False)
    with pytest.raises(SwiftError, match="holds weights only"):
        checkpoints.require(weights_only, whole_state=True)

    (weights_only / MANIFEST).unlink()  # as 2.5 writes them
    checkpoints.require(weights_only, whole_state=False)
    with pytest.raises(SwiftError, match="is damaged"):
        checkpoints.require(weights_only, whole_state=True)

    damaged = make(tmp_path / "checkpoint-7")
    (damaged / "optimizer.pt").unlink()
    with pytest.raises(SwiftError, match="is damaged") as raised:
        checkpoints.require(damaged, whole_state=True)
    assert "optimizer.pt is missing" in str(raised.value)


def test_an_empty_weight_is_never_sealed(tmp_path: Path) -> None:
    weights = {"of_another_rank": torch.empty(0), "rank_0": torch.empty(0, 8)}
    with (
        pytest.raises(CheckFailed, match="of_another_rank is empty"),
        checkpoints.writing(tmp_path / "checkpoint-1") as scratch,
    ):
        save_file(weights, scratch / "model.safetensors")
    with (
        pytest.raises(CheckFailed, match="of_another_rank is empty"),
        checkpoints.writing(tmp_path / "checkpoint-1") as scratch,
    ):
        write_tensors(weights, scratch, safetensors=False)
    assert not list(tmp_path.iterdir())
