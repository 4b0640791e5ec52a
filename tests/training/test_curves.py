from __future__ import annotations

from pathlib import Path

from swift.training.curves import draw, smooth, tag
from swift.training.line_chart import ticks


def test_every_number_has_an_image(tmp_path: Path) -> None:
    history = [{"loss": 1 / step, "learning_rate": 0.0, "step": step} for step in range(1, 20)]
    history.append({"eval_loss": 0.5, "train_speed(iter/s)": float("nan"), "note": "text", "step": 20})  # type: ignore
    draw(history, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"train_loss.png", "train_learning_rate.png", "eval_loss.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_tags_are_those_of_tensorboard() -> None:
    assert tag("eval_loss") == "eval/loss"
    assert tag("train_speed(iter/s)") == "train/train_speed(iter/s)"


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.03, 1.02) == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-3, 41) == [0, 10, 20, 30, 40]
    assert ticks(1e-5, 1e-4)[0] == 2e-5


def test_a_smoothed_constant_is_the_constant() -> None:
    assert smooth([2.0, 2.0, 2.0]) == [2.0, 2.0, 2.0] or max(abs(v - 2) for v in smooth([2.0] * 3)) < 1e-12
