"""Reward models by their two parts, whatever kind of folder they come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig

from swift.cli import main
from swift.core.errors import SwiftError
from swift.models.load import load_model
from swift.models.value_head import KEYS, ValueHead, load_head, read_head, save_head
from swift.plan.model import ModelPlan
from swift.plan.reward_model import require_head


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, smollm2_tokenizer_dir: Path) -> Path:
    """A sequence classifier of one label, whose embeddings are not tied to anything."""
    return write_classifier(tmp_path_factory.mktemp("classifier"), smollm2_tokenizer_dir, labels=1)


def write_classifier(folder: Path, tokenizer_dir: Path, *, labels: int) -> Path:
    torch.manual_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,  # transformers scores the last token that is not this one: never the end token
    )
    config.num_labels = labels
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def plan_of(folder: Path) -> ModelPlan:
    return ModelPlan(model_type="tiny", source=str(folder), hub="local", dtype="fp32")


def pairs_file(folder: Path) -> Path:
    rows = [{"query": f"What is {n}?", "response": f"It is {n}.", "rejected_response": "No."} for n in range(4)]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_classifier_of_one_label_scores_as_transformers_has_it(classifier: Path) -> None:
    ids = torch.tensor([[5, 9, 200, 31, 7]])
    theirs = AutoModelForSequenceClassification.from_pretrained(classifier)(input_ids=ids).logits[0, 0]
    decoder = load_model(plan_of(classifier), classifier).eval()
    head = load_head(decoder, classifier)
    ours = head(decoder.base_model(input_ids=ids).last_hidden_state[0, -1])
    torch.testing.assert_close(ours, theirs)


def test_a_value_head_goes_before_and_what_has_none_is_refused(
    classifier: Path, tiny_llama_dir: Path, smollm2_tokenizer_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(SwiftError, match="is not a reward model"):
        require_head(tiny_llama_dir)
    several = write_classifier(tmp_path / "several", smollm2_tokenizer_dir, labels=3)
    with pytest.raises(SwiftError, match="classifier of 3 labels"):
        require_head(several)
    head, copy = ValueHead(32), ValueHead(32)
    save_head(head, several)
    assert read_head(copy, several)
    assert torch.equal(copy.summary.weight, head.summary.weight)
    torch.save({KEYS[0]: torch.ones(1, 32), KEYS[1]: torch.ones(1)}, several / "value_head.bin")
    (several / "value_head.safetensors").unlink()
    assert read_head(copy, several) and copy.summary.weight.sum() == 32


def test_rm_goes_on_from_a_classifier_and_nothing_else_takes_one(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, rows = tmp_path / "run", pairs_file(tmp_path)
    common = [
        "--no_cache",
        "true",
        "--model_id_or_path",
        str(classifier),
        "--template_type",
        "smollm2",
        "--dataset",
        str(rows),
    ]
    steps = ["--max_steps", "1", "--batch_size", "4", "--gradient_accumulation_steps", "1", "--report_to", "none"]
    where = ["--output_dir", str(run), "--add_output_dir_suffix", "false", "--dataset_test_ratio", "0"]
    for tuning in ("lora", "full"):
        assert (
            main(["rlhf", "--rlhf_type", "rm", *common, *steps, *where, "--sft_type", tuning, "--no_cache", "true"])
            == 0
        )
        event = next(
            event for event in map(json.loads, (run / "logging.jsonl").read_text().splitlines()) if "loss" in event
        )
        chosen, rejected = scores_by_transformers(classifier, rows)
        assert event["loss"] == pytest.approx(
            -torch.nn.functional.logsigmoid(chosen - rejected).mean().item(), abs=1e-5
        )
        assert (run / "checkpoint-1" / "value_head.safetensors").is_file()
        run = tmp_path / "full"
        where[1] = str(run)
    where[1] = str(tmp_path / "dpo")
    assert main(["dpo", *common, *steps, *where]) == 2
    assert main(["infer", "--model_id_or_path", str(classifier), "--template_type", "smollm2"]) == 2
    err = capsys.readouterr().err
    assert "is a sequence classifier" in err and "scores answers" in err


def scores_by_transformers(folder: Path, rows: Path) -> tuple[torch.Tensor, torch.Tensor]:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    scores: dict[str, list[torch.Tensor]] = {"response": [], "rejected_response": []}
    for row in map(json.loads, rows.read_text().splitlines()):
        for end, column in scores.items():
            text = f"{system}<|im_start|>user\n{row['query']}<|im_end|>\n<|im_start|>assistant\n{row[end]}<|im_end|>"
            column.append(model(**tokenizer(text, return_tensors="pt")).logits[0, 0].detach())
    return torch.stack(scores["response"]), torch.stack(scores["rejected_response"])
