"""Rows with sounds through `swift sft` and `swift infer`: the losses and answers of transformers' own processor."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from tests.commands.test_multimodal_answers import served
from tests.commands.test_multimodal_families import PROMPT, TOKENS
from tests.commands.test_multimodal_videos import answers
from tests.fixtures.sounds import write_sound
from tests.fixtures.tiny_multimodal import write_tiny

from swift.cli import main

soundfile = pytest.importorskip("soundfile")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


KIND = "qwen2_audio"


class SoundReference:
    """transformers with its own processor, on the rows of a file."""

    def __init__(self, folder: Path, rows: Path, adapter: Path | None = None):
        from peft import PeftModel
        from transformers import AutoFeatureExtractor, AutoModelForMultimodalLM, AutoTokenizer, Qwen2AudioProcessor

        base: Any = AutoModelForMultimodalLM.from_pretrained(folder)
        self.model: Any = (base if adapter is None else PeftModel.from_pretrained(base, adapter)).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.processor: Any = Qwen2AudioProcessor(AutoFeatureExtractor.from_pretrained(folder), self.tokenizer)
        self.rows = [json.loads(line) for line in rows.read_text().splitlines()]

    def inputs(self, row: dict[str, Any]) -> dict[str, Any]:
        query, files = row["query"], row.get("audios", [])
        if "<audio>" not in query:
            query = "<audio>" * len(files) + query
        for number in range(1, len(files) + 1):
            query = query.replace("<audio>", f"Audio {number}: <|audio_bos|><|AUDIO|><|audio_eos|>\n", 1)
        text = PROMPT.format(query)
        if not files:
            return dict(self.tokenizer([text], return_tensors="pt", add_special_tokens=False))
        waves = [_heard(Path(file)) for file in files]
        given = self.processor(
            text=[text], audio=waves, sampling_rate=16000, return_tensors="pt", add_special_tokens=False
        )
        return dict(given)

    def loss(self) -> float:
        """The mean over all trained tokens."""
        total, count = 0.0, 0
        for row in self.rows:
            given = self.inputs(row)
            answer = self.tokenizer([f"{row['response']}<|im_end|>"], return_tensors="pt", add_special_tokens=False)
            ids, prompt = torch.cat([given["input_ids"], answer["input_ids"]], 1), given["input_ids"].shape[1]
            with torch.no_grad():
                logits = self.model(**{**given, "input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits
            logits = logits[0, prompt - 1 : -1]
            total += float(torch.nn.functional.cross_entropy(logits, answer["input_ids"][0], reduction="sum"))
            count += answer["input_ids"].shape[1]
        return total / count

    def answers(self) -> list[str]:
        """What `generate` says to each row."""
        end = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        answers = []
        for row in self.rows:
            given = self.inputs(row)
            output = self.model.generate(
                **given, max_new_tokens=TOKENS, do_sample=False, eos_token_id=end, pad_token_id=2
            )
            answers.append(self.tokenizer.decode(output[0, given["input_ids"].shape[1] :], skip_special_tokens=True))
        return answers


def _heard(path: Path) -> np.ndarray[Any, Any]:
    import soxr

    samples, rate = soundfile.read(path, dtype="float32")
    samples = samples.mean(axis=1) if samples.ndim > 1 else samples
    return samples if rate == 16000 else soxr.resample(samples, rate, 16000, "HQ")


def write_rows(folder: Path) -> Path:
    """A sound as it is, one of another rate and two channels, one that is too long, two, and none."""
    one = str(write_sound(folder / "one.wav"))
    two = str(write_sound(folder / "two.flac", 0.9, 44100, 2, 300.0))
    long = str(write_sound(folder / "long.mp3", 2.7, 48000, 1, 150.0))
    rows: list[dict[str, Any]] = [
        {"query": "Hear <audio> there", "response": "red", "audios": [one]},
        {"query": "What?", "response": "blue", "audios": [two]},
        {"query": "<audio>or<audio>?", "response": "both", "audios": [two, one]},
        {"query": "<audio> long", "response": "five", "audios": [long]},
        {"query": "Just text", "response": "fine"},
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_losses_and_answers_are_those_of_transformers(
    tmp_path: Path, smollm2_tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_tiny(KIND, tmp_path / "tiny", smollm2_tokenizer_dir), write_rows(tmp_path)
    good = rows.read_text()
    (tmp_path / "text.wav").write_text("no sound")
    bad = [{"query": "<audio>?", "response": "x", "audios": [name]} for name in ("text.wav", "gone.wav")]
    bad.append({"query": "<audio><audio>", "response": "x", "audios": ["one.wav"]})
    write_sound(tmp_path / "short.wav", 0.03)
    bad.append({"query": "<audio>", "response": "x", "audios": ["short.wav"]})
    rows.write_text(good + "".join(json.dumps(row) + "\n" for row in bad))
    words = ["--model_id_or_path", str(model), "--model_type", "qwen2-audio-7b-instruct", "--dataset", str(rows)]
    words += ["--output_dir", str(tmp_path / "output"), "--add_output_dir_suffix", "false", "--max_steps", "1"]
    words += ["--gradient_accumulation_steps", "1", "--batch_size", "8", "--warmup_ratio", "0", "--lora_rank", "4"]
    words += ["--dataset_test_ratio", "0", "--learning_rate", "0.0005", "--save_only_model", "true"]
    assert main(["sft", *words]) == 0
    shown = capsys.readouterr().err
    assert "9 rows: 5 kept, 0 truncated, 4 dropped" in shown and "2 s of a sound: longer ones are cut off" in shown
    assert "<audio: 0.6 s, 15 tokens>" in shown and "0 of the tower, 1 of the projector" in shown
    ledger = (tmp_path / "output" / "data_ledger.jsonl").read_text()
    for reason in ("broken audio", "missing file", "2 <audio> and the row 1 audios", "too short"):
        assert reason in ledger
    rows.write_text(good)
    losses = [json.loads(line) for line in (tmp_path / "output" / "logging.jsonl").read_text().splitlines()]
    assert losses[0]["loss"] == pytest.approx(SoundReference(model, rows).loss(), abs=1e-4)
    checkpoint = tmp_path / "output" / "checkpoint-1"
    expected = SoundReference(model, rows, checkpoint).answers()
    assert len(set(expected)) > 1
    assert answers(checkpoint, rows, tmp_path / "results") == expected
    assert answers(checkpoint, rows, tmp_path / "merged", "--merge_lora", "true") == expected
    words = ["--ckpt_dir", str(checkpoint), "--max_new_tokens", str(TOKENS), "--temperature", "0"]
    with served(words, tmp_path) as ask:
        check_server(ask, tmp_path, expected[0])


def check_server(ask: Callable[..., httpx.Response], folder: Path, expected: str) -> None:
    """It answers as `infer`, whichever way a sound comes, and refuses what is none by the name of the field."""
    data = base64.b64encode((folder / "one.wav").read_bytes()).decode()
    link = f"data:audio/wav;base64,{data}"
    plain = [{"role": "user", "content": "Hear <audio> there"}]
    parts = [
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": link}},
    ]
    texts = [{"type": "text", "text": "Hear "}, {"type": "text", "text": " there"}]
    ways = [ask([{"role": "user", "content": [texts[0], part, texts[1]]}]) for part in parts]
    ways += [ask(plain, audios=[source]) for source in (link, data, "one.wav", f"file://{folder / 'one.wav'}")]
    for response in ways:
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["message"]["content"] == expected
    refused = {
        "text.wav": "broken audio",
        "gone.wav": "no such file",
        "data:audio/wav;base64,%%": "broken audio",
        "http://localhost:9/a.wav": "not a public address",
        link[:200]: "broken audio",
    }
    for source, reason in refused.items():
        response = ask(plain, audios=[source])
        error = response.json()["error"]
        assert response.status_code == 400 and error["param"] == "audios[0]", error
        assert reason in error["message"].lower(), error
    wrong = {"type": "image_url", "image_url": {"url": link}}
    error = ask([{"role": "user", "content": [wrong]}]).json()["error"]
    assert error["param"] == "messages[0].content[0].image_url" and "no images" in error["message"]
