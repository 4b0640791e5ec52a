"""Tiny models learn the colours of squares, and name those of squares they have not seen, whichever way they answer."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from tests.commands.test_multimodal import train
from tests.commands.test_multimodal_answers import data_url, served
from tests.fixtures.tiny_multimodal import write_tiny

from swift.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
COLOURS = {
    "red": (220, 20, 20),
    "green": (20, 200, 20),
    "blue": (20, 20, 220),
    "yellow": (230, 220, 20),
    "black": (10, 10, 10),
    "white": (240, 240, 240),
}


MODEL_TYPES = {
    "llava": "llava1_5-7b-instruct",
    "qwen2_vl": "qwen2-vl-2b-instruct",
    "smolvlm": "smolvlm-256m-instruct",
    "gemma3": "gemma3-4b-instruct",
}


def write_squares(folder: Path, name: str, count: int, seed: int) -> Path:
    """Rows that ask for the colour of a square in a place of its own on grey."""
    random.seed(seed)
    path = folder / f"{name}.jsonl"
    rows = []
    for number in range(count):
        colour = list(COLOURS)[number % len(COLOURS)]
        image = Image.new("RGB", (56, 56), (128, 128, 128))
        left, top, size = random.randint(0, 12), random.randint(0, 12), random.randint(36, 44)
        shade = tuple(min(255, max(0, value + random.randint(-10, 10))) for value in COLOURS[colour])
        ImageDraw.Draw(image).rectangle((left, top, left + size, top + size), fill=shade)
        file = folder / f"{name}-{number}.png"
        image.save(file)
        rows.append({"query": "<image>What colour?", "response": colour, "images": [str(file)]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def share_right(checkpoint: Path, rows: Path, folder: Path, *more: str) -> float:
    """How many of the rows `swift infer` answers rightly, from 0 to 1."""
    words = ["--ckpt_dir", str(checkpoint), "--max_new_tokens", "10", "--temperature", "0", *more]
    words += ["--val_dataset", str(rows), "--result_dir", str(folder), "--load_dataset_config", "false"]
    assert main(["infer", *words]) == 0
    (path,) = folder.glob("*.jsonl")
    answers = [json.loads(line) for line in path.read_text().splitlines()]
    return sum(row["response"].strip() == row["label"] for row in answers) / len(answers)


def share_served(checkpoint: Path, rows: Path, folder: Path) -> float:
    """How many of the rows `swift deploy` answers rightly, each of them as `swift infer` does."""
    answers = [json.loads(line) for line in next((folder / "answers").glob("*.jsonl")).read_text().splitlines()]
    right = 0
    with served(["--ckpt_dir", str(checkpoint)], folder) as ask:
        for row in answers:
            url = data_url(Path(row["images"][0]))
            shown = {"type": "image_url", "image_url": {"url": url}}
            response = ask([{"role": "user", "content": [shown, {"type": "text", "text": "What colour?"}]}])
            assert response.status_code == 200, response.text
            answer = response.json()["choices"][0]["message"]["content"]
            assert answer == row["response"]
            right += answer.strip() == row["label"]
    return right / len(answers)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "smolvlm", "gemma3"])
def test_colours_are_learned_and_named_on_squares_not_seen(
    kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path
) -> None:
    model_type = MODEL_TYPES[kind]
    model = write_tiny(kind, tmp_path / "tiny", smollm2_tokenizer_dir)
    seen, unseen = write_squares(tmp_path, "seen", 30, 0), write_squares(tmp_path, "unseen", 18, 1)
    template = () if kind in ("llava", "qwen2_vl") else ("--template_type", "qwen2-vl")  # others have their tokenizer's
    flags = (*template, "--sft_type", "full", "--learning_rate", "0.003", "--batch_size", "6", "--save_steps", "75")
    flags = (*flags, "--save_total_limit", "2", "--freeze_vit", "false")
    output = train(model_type, model, seen, tmp_path / "output", "--max_steps", "150", *flags)
    assert share_right(output / "checkpoint-150", unseen, tmp_path / "answers") >= 0.9
    again = ("--max_steps", "150", "--resume_from_checkpoint", str(output / "checkpoint-75"))
    resumed = train(model_type, model, seen, tmp_path / "resumed", *again, *flags)
    assert share_right(resumed / "checkpoint-150", unseen, tmp_path / "resumed-answers") >= 0.9

    learned = output / "checkpoint-150"
    assert share_served(learned, unseen, tmp_path) >= 0.9
    base = (*template, "--max_steps", "10", "--learning_rate", "0.0001", "--batch_size", "6", "--quantization_bit", "4")
    on_quantized = train(model_type, learned, seen, tmp_path / "quantized", *base) / "checkpoint-10"
    assert share_right(on_quantized, unseen, tmp_path / "quantized-answers") >= 0.9
    assert share_right(on_quantized, unseen, tmp_path / "merged-answers", "--merge_lora", "true") >= 0.9
