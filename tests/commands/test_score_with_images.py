"""Reward models of rows with images: `/v1/score` gives an answer the score that the evaluation of training gave it."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from tests.commands.test_multimodal import noise
from tests.commands.test_multimodal_answers import address, data_url
from tests.fixtures.tiny_multimodal import write_tiny

from swift.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
KINDS = ("qwen2_vl", "llava", "llava_onevision", "qwen3_vl", "gemma3", "paligemma", "mllama", "idefics3", "internvl")
QUESTION = "Which colour has it, and what else would you say of it if you were asked to say all?"


def judge(model: Path, folder: Path, *, shown: bool) -> tuple[Path, list[float]]:
    """A reward model, and the scores of the answers to QUESTION as its last evaluation logged them."""
    row = {"query": QUESTION, "response": "a red one", "rejected_response": "a dog"}
    row |= {"images": ["one.png"]} if shown else {}
    train = [{**row, "images": ["one.png"]}, {"query": "Just text", "response": "fine", "rejected_response": "no"}]
    for name, rows in (("train", train), ("val", [row])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    words = ["--model_id_or_path", str(model), "--template_type", "qwen2-vl", "--dataset", str(folder / "train.jsonl")]
    words += ["--val_dataset", str(folder / "val.jsonl"), "--output_dir", str(folder / "run"), "--max_steps", "2"]
    words += ["--add_output_dir_suffix", "false", "--batch_size", "1", "--gradient_accumulation_steps", "2"]
    assert main(["rlhf", "--rlhf_type", "rm", *words, "--learning_rate", "0.01", "--warmup_ratio", "0"]) == 0
    lines = [json.loads(line) for line in (folder / "run" / "logging.jsonl").read_text().splitlines()]
    (last,) = [line for line in lines if "eval_rewards/chosen" in line][-1:]
    return folder / "run" / "checkpoint-2", [last["eval_rewards/chosen"], last["eval_rewards/rejected"]]


@pytest.mark.parametrize("shown", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["image", "text"])
@pytest.mark.parametrize("kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
def test_scores_are_those_of_training(kind: str, shown: bool, tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    picture = noise(tmp_path / "one.png", 60, 100)
    model = write_tiny(kind, tmp_path / "tiny", smollm2_tokenizer_dir)
    checkpoint, expected = judge(model, tmp_path, shown=shown)
    assert abs(expected[0] - expected[1]) > 1e-3
    with address(["--ckpt_dir", str(checkpoint)], tmp_path) as (url, adapter):

        def post(link: str, answer: str, part: str = "image_url") -> httpx.Response:
            parts = [{"type": part, part: {"url": link}}] if shown else []
            asked = {"role": "user", "content": [*parts, {"type": "text", "text": QUESTION}]}
            messages = [asked, {"role": "assistant", "content": answer}]
            return httpx.post(f"{url}/score", json={"model": adapter, "messages": messages}, timeout=60)

        answers = [post(data_url(picture), answer) for answer in ("a red one", "a dog")]
        assert [one.json()["data"][0]["score"] for one in answers] == pytest.approx(expected, abs=1e-5)
        if not shown:
            return
        other = post(data_url(noise(tmp_path / "two.png", 112, 56)), "a red one").json()["data"][0]["score"]
        assert other != pytest.approx(expected[0], abs=1e-5)
        broken = "data:image/png;base64,iVBORw0KGgo="
        for link, part in ((broken, "image_url"), ("http://127.0.0.1:9/a.png", "image_url"), (broken, "audio_url")):
            refused = post(link, "a dog", part)
            assert refused.status_code == 400, refused.text
            assert refused.json()["error"]["param"] == f"messages[0].content[0].{part}"
