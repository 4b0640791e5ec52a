"""Own questions that show images through `swift eval`: scored as transformers scores them, and asked of a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands.test_eval import evaluate
from tests.commands.test_multimodal import noise
from tests.commands.test_multimodal_answers import address
from tests.commands.test_multimodal_families import Reference
from tests.fixtures.tiny_multimodal import write_tiny

from swift.cli import main

CHOICE = {"question": "Which colour?", "A": "red", "B": "blue", "answer": "A"}


def write_suites(folder: Path) -> Path:
    """Multiple choice with an image, with one in the text and without, and two open questions -> the config."""
    questions = folder / "own"
    questions.mkdir()
    one, two = noise(questions / "one.png", 60, 100), noise(questions / "two.png", 112, 56)
    rows: list[dict[str, Any]] = [
        {**CHOICE, "images": ["one.png"]},
        {**CHOICE, "question": "See <image>: which colour?", "image": str(two)},
        CHOICE,
    ]
    opened = [
        {"query": "<image>What colour?", "response": "red", "images": ["two.png"]},
        {"query": "<image>What colour?", "response": "red", "images": [f"file://{one}"]},
    ]
    for name, each in (("pick_val.jsonl", rows), ("say.jsonl", opened)):
        (questions / name).write_text("".join(json.dumps(row) + "\n" for row in each))
    suites = [
        {"name": "pick", "pattern": "general_mcq", "dataset": "own", "subset_list": ["pick"]},
        {"name": "say", "pattern": "general_qa", "dataset": "own", "subset_list": ["say"]},
    ]
    (folder / "config.json").write_text(json.dumps(suites))
    return folder / "config.json"


def test_questions_with_images_have_the_scores_of_transformers(
    tmp_path: Path, smollm2_tokenizer_dir: Path, tiny_llama_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, config = write_tiny("qwen2_vl", tmp_path / "tiny", smollm2_tokenizer_dir), write_suites(tmp_path)
    words = ["--model_id_or_path", str(model), "--template_type", "qwen2-vl", "--eval_use_cache", "true"]
    _, questions, report = evaluate(config, *words)
    assert all("error" not in question for question in questions)
    images = [[tmp_path / "own" / name] for name in ("one.png", "two.png")] + [[]]
    reference = Reference("qwen2_vl", model, tmp_path)
    for question, files in zip(questions, images, strict=False):
        (message,) = question["prompt"]
        assert message["content"].count("<image>") == len(files)
        row = {"query": message["content"], "images": [str(file) for file in files]}
        given = reference.inputs(row)
        for letter, option in question["options"].items():
            assert question["answer"]["letter"][letter] == pytest.approx(log_prob(reference, given, letter), abs=1e-3)
            per_byte = question["answer"]["text"][letter] * len(option)
            assert per_byte == pytest.approx(log_prob(reference, given, option), abs=1e-3)
    assert questions[0]["answer"]["letter"] != questions[1]["answer"]["letter"]
    assert {(row["suite"], row["metric"], row["n"]) for row in report["results"] if row["is_score"]} == {
        ("pick", "letter", 3),
        ("say", "exact", 2),
    }

    capsys.readouterr()
    noise(tmp_path / "own" / "two.png", 112, 56)  # other pixels: the questions that show it are asked again
    evaluate(config, *words)
    assert "3 of 5 questions were answered before" in capsys.readouterr().err
    text_only = ["eval", "--custom_eval_config", str(config), "--model_id_or_path", str(tiny_llama_dir)]
    assert main([*text_only, "--template_type", "qwen", "--eval_output_dir", str(tmp_path / "text")]) == 2
    assert "pick_val.jsonl:1: it shows images" in capsys.readouterr().err

    with address(["--model_id_or_path", str(model), "--template_type", "qwen2-vl"], tmp_path) as (url, _):
        there = ["--eval_url", url, "--eval_is_chat_model", "true", "--name", "default"]
        _, remote, _ = evaluate(config, *there, "--choice_scores", "letter", "generated")
    for here, there in zip(questions, remote, strict=True):
        if here["origin"].endswith(("pick_val.jsonl:1", "pick_val.jsonl:3", "say.jsonl:2")):
            assert here["answer"]["generated"] == there["answer"]["generated"], here["origin"]


def log_prob(reference: Reference, given: dict[str, Any], text: str) -> float:
    """Of a text behind a prompt, by transformers alone."""
    tokens = reference.tokenizer.encode(text, add_special_tokens=False)
    prompt = given["input_ids"]
    added = torch.tensor([tokens])
    inputs = {**given, "input_ids": torch.cat([prompt, added], 1)}
    for name in ("attention_mask", "mm_token_type_ids"):
        if name in inputs:
            inputs[name] = torch.cat([inputs[name], torch.full_like(added, int(name == "attention_mask"))], 1)
    with torch.no_grad():
        logits = reference.model(**inputs).logits[0].log_softmax(-1)
    start = prompt.shape[1] - 1
    return sum(logits[start + at, token].item() for at, token in enumerate(tokens))
