"""Answers that a run gives to rows with images: in its evaluation, and before and after training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.commands.test_multimodal import FAMILIES, train
from tests.fixtures.tiny_multimodal import write_tiny

from swift.catalog import load_catalog
from swift.cli import main
from swift.core.machine import Machine
from swift.engines.base import SamplingParams
from swift.models import load_model
from swift.params.parse import parse
from swift.plan.sft import plan_sft
from swift.training.batches import Collate
from swift.training.policy_gradient.sampling import sample
from swift.training.prepare import prepare
from swift.training.rows_with_media import keep_apart
from swift.training.varlen_attention import NAME

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
ANSWERS = ("--max_new_tokens", "8", "--temperature", "0")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(folder: Path) -> Path:
    """Questions about pictures that are the same in each run, for a model of chance may say what is no word."""
    rows: list[dict[str, Any]] = [{"query": "Just text", "response": "-"}]
    for number, size in enumerate(((60, 100), (112, 56))):
        picture = Image.new("RGB", size)
        picture.putdata([(x * 7 % 256, x // 9 % 256, number * 200) for x in range(size[0] * size[1])])
        picture.save(folder / f"{number}.png")
        rows.append({"query": f"<image>What, {number}?", "response": "-", "images": [f"{number}.png"]})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "model_type", ["qwen2-vl-2b-instruct", pytest.param("llava1_5-7b-instruct", marks=pytest.mark.slow)]
)
def test_answers_in_a_run_are_those_of_the_served_model(
    model_type: str, tmp_path: Path, smollm2_tokenizer_dir: Path
) -> None:
    """Rows are to answer what the model answers to them, and nothing is learned: words are right then."""
    model, rows = FAMILIES[model_type][0](tmp_path / "tiny", smollm2_tokenizer_dir), write_rows(tmp_path)
    served = ["--model_type", model_type, "--model_id_or_path", str(model), "--val_dataset", str(rows), *ANSWERS]
    assert main(["infer", *served, "--result_dir", str(tmp_path / "results")]) == 0
    (results,) = (tmp_path / "results").glob("*.jsonl")
    answers = [line["response"] for line in lines(results)]
    assert len(set(answers)) == len(answers) and all(map(str.strip, answers))
    own = tmp_path / "own.jsonl"
    told = zip(lines(rows), answers, strict=True)
    own.write_text("".join(json.dumps({**row, "response": answer}) + "\n" for row, answer in told))
    flags = ("--val_dataset", str(own), "--predict_with_generate", "true", "--answer_samples", "4", *ANSWERS)
    run = train(model_type, model, own, tmp_path / "run", *flags, "--learning_rate", "0", "--max_steps", "1")
    (evaluation,) = (line for line in lines(run / "logging.jsonl") if "eval_rouge-l" in line)
    assert evaluation["eval_rouge-l"] > 85  # tokens of chance are not always written as they are read again
    samples = lines(run / "samples.jsonl")
    assert [sample["after"] for sample in samples] == [sample["before"] for sample in samples]
    assert {sample["after"] for sample in samples} == set(map(str.strip, answers))


def test_answers_in_a_run_see_images_both_ways(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    """As Gemma 3 is served, whatever attention its rows are trained with."""
    folder = write_tiny("gemma3", tmp_path / "tiny", smollm2_tokenizer_dir)
    words = ["sft", "--model_id_or_path", str(folder), "--dataset", str(write_rows(tmp_path))]
    words += ["--template_type", "qwen2-vl", "--dataset_test_ratio", "0"]
    prepared = prepare(plan_sft(parse(words), load_catalog(), Machine()), load_catalog(), None, None)
    assert prepared.images is not None
    rows: Any = prepared.built.train
    prompts = [{"input_ids": row["input_ids"], "media": row["media"]} for row in (rows[at] for at in range(1, 3))]
    how = [SamplingParams(max_tokens=4, temperature=0.0, logprobs=0)] * 2

    def log_probs() -> list[float]:
        answers = sample(model, prepared.tokenizer, prompts, how, 2, prepared.images)
        return [value for answer in answers for value in answer.log_probs]

    model = load_model(prepared.plan.model, prepared.source).eval()
    served = log_probs()
    assert keep_apart(model, Collate(True, 2, prepared.images, model))
    assert log_probs() == pytest.approx(served, abs=1e-5)
    assert model.config.get_text_config()._attn_implementation == NAME
