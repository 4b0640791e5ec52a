"""Rows with images from a stream: as they come, without those that break, and entered again where a run stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.commands.test_multimodal import FAMILIES, noise, train

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
MODEL = "qwen2-vl-2b-instruct"
FLAGS = ("--streaming", "true", "--streaming_buffer_size", "3", "--batch_size", "2", "--max_steps", "4")
FLAGS += ("--eval_steps", "2", "--save_steps", "2", "--logging_steps", "1", "--learning_rate", "0.01")
FLAGS += ("--lora_dropout", "0", "--lora_rank", "4")


def write_rows(folder: Path) -> Path:
    """Twelve rows, one of whose images is whole in its head only, and one without images."""
    rows: list[dict[str, Any]] = []
    for number in range(12):
        path = noise(folder / f"{number}.png", 40 + 9 * number, 50)
        rows.append({"query": f"<image>What is it, {number}?", "response": f"It is {number}", "images": [str(path)]})
    whole = (folder / "7.png").read_bytes()
    (folder / "7.png").write_bytes(whole[: len(whole) // 2])
    rows[5] = {"query": "Just text", "response": "Fine"}
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def losses(run: Path) -> dict[int, float]:
    events = map(json.loads, (run / "logging.jsonl").read_text().splitlines())
    return {int(event["global_step/max_steps"].split("/")[0]): event["loss"] for event in events if "loss" in event}


def test_a_stream_of_rows_with_images(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    model, rows = FAMILIES[MODEL][0](tmp_path / "tiny", smollm2_tokenizer_dir), write_rows(tmp_path)
    val = tmp_path / "val.jsonl"
    val.write_text("".join(f"{line}\n" for line in rows.read_text().splitlines()[:2]))
    whole = train(MODEL, model, rows, tmp_path / "whole", *FLAGS, "--val_dataset", str(val))
    seen = losses(whole)
    assert sorted(seen) == [1, 2, 3, 4] and len(set(seen.values())) == 4
    ledger = [json.loads(line) for line in (whole / "data_ledger.jsonl").read_text().splitlines()]
    assert [(one["line"], one["reason"]) for one in ledger if one.get("status") == "dropped"] == [(8, "broken image")]
    resumed = train(
        MODEL,
        model,
        rows,
        tmp_path / "resumed",
        *FLAGS,
        *("--val_dataset", str(val), "--resume_from_checkpoint", str(whole / "checkpoint-2")),
    )
    again = losses(resumed)
    assert {step: loss for step, loss in again.items() if step > 2} == {3: seen[3], 4: seen[4]}
