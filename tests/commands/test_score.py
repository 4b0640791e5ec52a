"""`swift deploy` of reward models: the same row has the score that the evaluation of its training gave it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from commands.test_deploy import Deployed
from swift.catalog import load_catalog
from swift.cli import main
from swift.core.machine import Machine
from swift.engines.factory import prepare, start
from swift.params.parse import parse
from swift.plan.infer import plan_infer
from swift.prompts.types import Encoded

ROW = {
    "system": "Judge.",
    "history": [["Hi", "Hello"]],
    "query": "What is three?",
    "response": "It is three.",
    "rejected_response": "No.",
}
MESSAGES = [
    {"role": "system", "content": "Judge."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "What is three?"},
]


@pytest.fixture(scope="module")
def run(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model by LoRA, whose only validation row is ROW."""
    folder = tmp_path_factory.mktemp("rm")
    for name, rows in (("train", [ROW, {**ROW, "query": "What is four?"}]), ("val", [ROW])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = {
        "model_id_or_path": tiny_llama_dir,
        "template_type": "smollm2",
        "dataset": folder / "train.jsonl",
        "val_dataset": folder / "val.jsonl",
        "output_dir": folder / "run",
        "add_output_dir_suffix": "false",
        "max_steps": 3,
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 0.05,
        "report_to": "none",
        "no_cache": "true",
    }
    assert main(["rlhf", "--rlhf_type", "rm", *(str(w) for f, v in flags.items() for w in (f"--{f}", v))]) == 0
    return folder / "run"


def evaluated(run: Path) -> list[float]:
    """The scores of ROW's answers as the last evaluation logged them."""
    events = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    (last,) = [event for event in events if "eval_rewards/chosen" in event][-1:]
    return [last["eval_rewards/chosen"], last["eval_rewards/rejected"]]


@pytest.mark.slow
def test_over_http(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run / "checkpoint-3"
    assert main(["infer", "--ckpt_dir", str(checkpoint)]) == 2
    assert f"swift deploy --ckpt_dir {checkpoint}" in capsys.readouterr().err
    deployed = Deployed(tmp_path, "--ckpt_dir", str(checkpoint))
    deployed.wait_ready()
    try:
        scores = []
        for answer in (ROW["response"], ROW["rejected_response"]):
            messages = [*MESSAGES, {"role": "assistant", "content": answer}]
            body = {"model": "default-lora", "messages": messages}
            scores.append(httpx.post(f"{deployed.url}/v1/score", json=body, timeout=60).json()["data"][0]["score"])
        assert scores == pytest.approx(evaluated(run), abs=2e-6) and scores[0] != scores[1]
        chat = {"model": "default-lora", "messages": MESSAGES}
        assert httpx.post(f"{deployed.url}/v1/chat/completions", json=chat, timeout=60).status_code == 400
        program = tmp_path / "client.py"
        program.write_text(deployed.out[deployed.out.index("import httpx") :])
        done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
        assert "'object': 'score'" in done.stdout, done.stderr
    finally:
        assert deployed.end() == 0


def test_merged(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge-lora", "--ckpt_dir", str(run / "checkpoint-3")]) == 0
    assert f"try it: swift deploy --ckpt_dir {run / 'checkpoint-3-merged'}" in capsys.readouterr().err
    argv = ["deploy", "--ckpt_dir", str(run / "checkpoint-3-merged")]
    # A machine on which vLLM is installed, and bf16 pays: scores are the engine's that has the head, in fp32.
    machine = Machine(packages=frozenset({"vllm"}))
    catalog = load_catalog()
    plan = plan_infer(parse(argv), catalog, machine, answers_rows=False, bf16_speedup=lambda inputs, outputs: 9.0)
    prepared = prepare(plan, catalog, scores=True)
    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in MESSAGES)
    text = f"{turns}<|im_start|>assistant\n{ROW['response']}<|im_end|>"

    ids = prepared.tokenizer(text)["input_ids"]

    async def score() -> list[float]:
        engine = await start(plan, prepared)
        try:
            return await engine.reader.score([Encoded(ids, ids)])
        finally:
            await engine.close()

    assert asyncio.run(score()) == pytest.approx(evaluated(run)[:1], abs=2e-5)
