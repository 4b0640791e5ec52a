"""Rows with media that are tokens before training (`--lazy_tokenize false`) train as those encoded one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.commands.test_multimodal import FAMILIES, noise, train, write_rows
from tests.data.test_image_files import png
from tests.fixtures.tiny_multimodal import write_tiny

from swift.catalog import load_catalog
from swift.cli import main
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.sft import plan_sft
from swift.training.prepare import prepare

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
MODEL = "qwen2-vl-2b-instruct"
FLAGS = (
    "--lora_dropout",
    "0",
    "--batch_size",
    "2",
    "--max_steps",
    "6",
    "--logging_steps",
    "1",
    "--learning_rate",
    "0.01",
)
AHEAD = ("--lazy_tokenize", "false")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, smollm2_tokenizer_dir: Path) -> Path:
    return FAMILIES[MODEL][0](tmp_path_factory.mktemp("models") / "tiny", smollm2_tokenizer_dir)


def logged(run: Path) -> list[tuple[float, float]]:
    events = map(json.loads, (run / "logging.jsonl").read_text().splitlines())
    return [(event["loss"], event["grad_norm"]) for event in events if "loss" in event]


@pytest.mark.parametrize("more", [(), ("--packing", "true", "--max_length", "300")])
def test_the_run_is_the_same(more: tuple[str, ...], tiny: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path)
    (tmp_path / "hollow.png").write_bytes(png(60, 60))  # breaks when it is decoded
    with rows.open("a") as file:
        file.write(json.dumps({"query": "<image>?", "response": "x", "images": ["hollow.png"]}) + "\n")
        file.write(json.dumps({"query": "<video>?", "response": "y", "videos": [["one.png", "two.png"]]}) + "\n")
    runs = [train(MODEL, tiny, rows, tmp_path / f"{len(way)}", *FLAGS, *more, *way) for way in ((), AHEAD)]
    lazy, ahead = map(logged, runs)
    assert lazy == ahead and len(set(lazy)) == len(lazy) > 0
    ledgers = [(run / "data_ledger.jsonl").read_text() for run in runs]
    assert ledgers[0] == ledgers[1] and "broken image" in ledgers[0]


def test_pairs_too(tiny: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path)
    pairs = [{**json.loads(line), "rejected_response": "worse"} for line in rows.read_text().splitlines()]
    rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    seen: list[Any] = []
    for way in ((), AHEAD):
        words = ["dpo", "--model_type", MODEL, "--model_id_or_path", str(tiny), "--dataset", str(rows)]
        words += ["--output_dir", str(tmp_path / f"{len(way)}"), "--add_output_dir_suffix", "false", *FLAGS, *way]
        assert main([*words, "--dataset_test_ratio", "0", "--gradient_accumulation_steps", "1"]) == 0
        seen.append(logged(tmp_path / f"{len(way)}"))
    assert seen[0] == seen[1] and len(set(seen[0])) > 3


def test_a_picture_of_another_size_that_came_in_its_place_is_named(tiny: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path)
    words = ["sft", "--model_type", MODEL, "--model_id_or_path", str(tiny), "--dataset", str(rows), *AHEAD]
    plan = plan_sft(parse([*words, "--dataset_test_ratio", "0"]), load_catalog(), Machine())
    train_rows = prepare(plan, load_catalog(), None, None).built.train
    assert "one.png" in str(train_rows[0]["media"])
    noise(tmp_path / "one.png", 112, 112)
    with pytest.raises(SwiftError, match="not what it was when the run began"):
        train_rows[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["llava", "llava_next", "qwen3_vl", "internvl", "smolvlm", "gemma3", "paligemma", "mllama", "florence2"]
)
def test_of_every_kind(kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    model, rows = write_tiny(kind, tmp_path / "tiny", smollm2_tokenizer_dir), tmp_path / "rows.jsonl"
    noise(tmp_path / "one.png", 60, 100)
    rows.write_text(
        "".join(json.dumps({"query": "<image>?", "response": f"{i}", "images": ["one.png"]}) + "\n" for i in range(4))
    )
    words = ["sft", "--model_id_or_path", str(model), "--template_type", "qwen2-vl", "--dataset", str(rows), *FLAGS]
    words += ["--add_output_dir_suffix", "false", "--dataset_test_ratio", "0", "--gradient_accumulation_steps", "1"]
    for way in ((), AHEAD):
        assert main([*words, "--output_dir", str(tmp_path / f"{len(way)}"), *way]) == 0
    assert logged(tmp_path / "0") == logged(tmp_path / "2")
