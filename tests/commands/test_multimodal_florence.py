"""Florence-2, whose encoder reads the picture and the question and whose decoder answers: as transformers has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.commands.test_multimodal import noise, train
from tests.commands.test_multimodal_answers import data_url, served
from tests.commands.test_multimodal_learning import share_right, write_squares
from tests.fixtures.tiny_multimodal import write_tiny

from swift.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
KIND = "florence2"
MODEL_TYPE = "florence-2-base-ft-hf"
PIECES = 17
"""Of an image of the tiny model: one for all of it, and 16 places."""
TOKENS = 8
ASKED = {
    "<OD>": "Locate the objects with category name in the image.",
    "<OPEN_VOCABULARY_DETECTION>a green car": "Locate a green car in the image.",
    "What is <image> here?": "What is  here?",
    "Where is <ref-object>?": "Where is cat?",
}
"""What rows ask, and what stands in their prompts."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, smollm2_tokenizer_dir: Path) -> Path:
    return write_tiny(KIND, tmp_path_factory.mktemp("models") / "tiny", smollm2_tokenizer_dir)


def write_rows(folder: Path) -> Path:
    responses = ["cat<loc_1><loc_2><loc_30><loc_999>", "car <loc_5>", "a thing", "<bbox>"]
    sizes = [(60, 100), (112, 56), (32, 32), (200, 100)]
    rows: list[dict[str, Any]] = []
    for number, (query, response, size) in enumerate(zip(ASKED, responses, sizes, strict=True)):
        image = noise(folder / f"{number}.png", *size)
        rows.append({"query": query, "response": response, "images": [str(image)]})
    rows[-1]["objects"] = [{"caption": "cat", "bbox": [20, 10, 100, 50], "bbox_type": "real", "image": 0}]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Reference:
    """transformers and PEFT on the rows of a file, one at a time."""

    def __init__(self, folder: Path, rows: Path, adapter: Path | None = None):
        from peft import PeftModel
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        base: Any = AutoModelForImageTextToText.from_pretrained(folder)
        self.text = base.config.text_config
        self.model: Any = (base if adapter is None else PeftModel.from_pretrained(base, adapter)).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.images: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.rows = [json.loads(line) for line in rows.read_text().splitlines()]

    def inputs(self, row: dict[str, Any]) -> dict[str, Any]:
        text = "<image>" * PIECES + f"<s>{ASKED[row['query']]}</s>"
        given = self.tokenizer([text], return_tensors="pt", add_special_tokens=False)
        pixels = self.images([Image.open(row["images"][0])], return_tensors="pt")["pixel_values"]
        return {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"], "pixel_values": pixels}

    def loss(self) -> float:
        """The mean over all tokens of the answers, the bos before them included."""
        total, count = 0.0, 0
        for row in self.rows:
            answer = row["response"].replace("<bbox>", "<loc_99><loc_99><loc_499><loc_499>")
            given = self.tokenizer([f"<s>{answer}</s>"], return_tensors="pt", add_special_tokens=False)
            labels = given["input_ids"]
            with torch.no_grad():
                total += float(self.model(**self.inputs(row), labels=labels).loss) * labels.shape[1]
            count += labels.shape[1]
        return total / count

    def answers(self, **given: Any) -> list[str]:
        """What `generate` says to each row, with the places in the picture."""
        texts = []
        for row in self.rows:
            output = self.model.generate(
                **self.inputs(row),
                max_new_tokens=TOKENS + 1,
                do_sample=False,
                forced_bos_token_id=self.text.bos_token_id,
                eos_token_id=self.text.eos_token_id,
                pad_token_id=2,
                **given,
            )
            hidden = {self.text.bos_token_id, self.text.eos_token_id, self.tokenizer.eos_token_id, 2}
            texts.append(self.tokenizer.decode([each for each in output[0].tolist() if each not in hidden]))
        return texts


def infer(checkpoint: Path, rows: Path, results: Path, *more: str) -> list[dict[str, Any]]:
    words = ["--ckpt_dir", str(checkpoint), "--max_new_tokens", str(TOKENS), "--temperature", "0", *more]
    words += ["--val_dataset", str(rows), "--result_dir", str(results), "--load_dataset_config", "false"]
    assert main(["infer", *words]) == 0
    (path,) = results.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


BAD = (
    {"query": "Who?", "response": "none"},
    {"query": "Who?", "response": "two", "images": ["0.png", "0.png"]},
    {"query": "<OD> of cars", "response": "more", "images": ["0.png"]},
    {"query": "And?", "response": "turns", "history": [["Who?", "I."]], "images": ["0.png"]},
)
"""Rows that it cannot read."""


def test_its_loss_is_that_of_transformers_and_other_rows_are_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, more = write_rows(tmp_path), tmp_path / "more.jsonl"
    more.write_text(rows.read_text() + "".join(json.dumps(row) + "\n" for row in BAD))
    output = train(MODEL_TYPE, model, more, tmp_path / "output", "--max_steps", "1")
    told = capsys.readouterr().err
    assert "trained modules: 0 of the tower, 1 of the projector, 32 of the decoder" in told
    assert "<image: 60x100, 17 tokens><s>Locate the objects with category name in the image.</s>⟦cat<loc_1>" in told
    losses = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
    assert losses[0]["loss"] == pytest.approx(Reference(model, rows).loss(), abs=1e-4)
    ledger = [json.loads(line) for line in (output / "data_ledger.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in ledger if entry.get("status") == "dropped"] == [5, 6, 7, 8]


@pytest.mark.slow
def test_its_answers_are_those_of_transformers(model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path)
    flags = ("--max_steps", "2", "--learning_rate", "0.02", "--lora_rank", "4", "--lora_dropout", "0")
    output = train(MODEL_TYPE, model, rows, tmp_path / "output", *flags, "--save_only_model", "true")
    checkpoint = output / "checkpoint-2"
    reference = Reference(model, rows, checkpoint)
    expected = reference.answers()
    assert len(set(expected)) > 1
    found = infer(checkpoint, rows, tmp_path / "answers")
    assert [row["response"] for row in found] == expected
    merged = infer(checkpoint, rows, tmp_path / "merged", "--merge_lora", "true")
    assert [row["response"] for row in merged] == expected
    beams = infer(checkpoint, rows, tmp_path / "beams", "--num_beams", "3")
    assert [row["response"] for row in beams] == reference.answers(num_beams=3)
    with served(
        ["--ckpt_dir", str(checkpoint), "--max_new_tokens", str(TOKENS), "--temperature", "0"], tmp_path
    ) as ask:
        shown = {"type": "image_url", "image_url": {"url": data_url(tmp_path / "0.png")}}
        response = ask([{"role": "user", "content": [shown, {"type": "text", "text": "<OD>"}]}])
        assert response.json()["choices"][0]["message"]["content"] == expected[0]


def test_what_is_not_built_for_it_is_refused(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model_type", MODEL_TYPE, "--model_id_or_path", str(model), "--dataset", str(write_rows(tmp_path))]
    assert main(["sft", *words, "--output_dir", str(tmp_path / "o"), "--use_loss_scale", "true"]) == 2
    assert "whose encoder reads the prompt" in capsys.readouterr().err


@pytest.mark.slow
def test_it_learns_colours(model: Path, tmp_path: Path) -> None:
    seen, unseen = write_squares(tmp_path, "seen", 30, 0), write_squares(tmp_path, "unseen", 18, 1)
    flags = ("--sft_type", "full", "--learning_rate", "0.003", "--batch_size", "6", "--save_steps", "75")
    flags = (*flags, "--save_total_limit", "2", "--freeze_vit", "false")
    output = train(MODEL_TYPE, model, seen, tmp_path / "output", "--max_steps", "150", *flags)
    assert share_right(output / "checkpoint-150", unseen, tmp_path / "answers") >= 0.9
    again = ("--max_steps", "150", "--resume_from_checkpoint", str(output / "checkpoint-75"))
    resumed = train(MODEL_TYPE, model, seen, tmp_path / "resumed", *again, *flags)
    assert share_right(resumed / "checkpoint-150", unseen, tmp_path / "resumed-answers") >= 0.9
