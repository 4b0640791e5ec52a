"""Rows with and without images, shared out over processes, train as in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.commands.test_multimodal_generated import write_rows as write_questions
from tests.commands.test_ppo_with_images import with_head
from tests.fixtures.tiny_multimodal import write_tiny

from swift.cli import main
from training.parallel_runs import FULL, ROWS, SGD, ZERO_3, Launch, events, furthest, launcher, losses

Make = Any
WHOLE = [*FULL, *SGD, "--freeze_vit", "false", "--weight_decay", "0"]
"""Without decay: DeepSpeed decays weights that no row reads as well, such as the last layer of LLaVA's tower."""
SEQUENCE = ["--sequence_parallel_size", "2"]
CUT_IN_IMAGES = ["--batch_size", "1", "--gradient_accumulation_steps", "12", "--micro_batching", "said"]
"""One row a pass, in the middle of which is what it shows."""


@pytest.fixture
def launch_of(smollm2_tokenizer_dir: Path, tmp_path: Path) -> Make:
    """What launches a kind of model, with a command, on rows of which every fifth shows something."""

    def of(kind: str, command: str) -> Launch:
        Image.effect_noise((60, 100), 90).convert("RGB").save(tmp_path / "one.png")
        rows: list[dict[str, Any]] = [{"query": f"Say {i}", "response": "so " * (i % 7) + f"{i}"} for i in range(ROWS)]
        for row in rows[::5]:
            row |= {"images": ["one.png"], "query": "See <image> there"}
        for number, row in enumerate(rows if command != "sft" else ()):
            row |= {"label": number % 3 > 0} if command == "kto" else {"rejected_response": "no"}
        model = write_tiny(kind, tmp_path / kind, smollm2_tokenizer_dir)
        method = {} if command == "sft" else {"rlhf_type": command}
        name = "rlhf" if method else command
        return launcher(name, model, tmp_path, rows, {"template_type": "qwen2-vl", **method})

    return of


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "command", "engine", "flags"),
    [
        ("qwen2_vl", "sft", ["--deepspeed", "default-zero2"], []),
        ("llava", "sft", ["--deepspeed", ZERO_3], WHOLE),
        ("qwen2_vl", "sft", ["--deepspeed", ZERO_3], []),
        ("qwen2_vl", "sft", ["--fsdp", "full_shard"], WHOLE),
        ("llava", "dpo", ["--deepspeed", "default-zero2"], []),
        ("qwen2_vl", "dpo", ["--deepspeed", ZERO_3], []),
        ("llava", "dpo", ["--fsdp", "full_shard"], []),
        ("llava", "rm", [], SGD),
        ("qwen2_vl", "rm", [], WHOLE),
        ("llava", "rm", ["--deepspeed", ZERO_3], WHOLE),
        ("qwen2_vl", "rm", ["--deepspeed", "default-zero2"], SGD),
        ("qwen2_vl", "rm", ["--fsdp", "full_shard"], SGD),
        ("qwen3_vl", "orpo", ["--deepspeed", ZERO_3], WHOLE),
        ("gemma3", "cpo", ["--fsdp", "full_shard"], WHOLE),
        ("internvl", "simpo", ["--deepspeed", ZERO_3], []),
        ("idefics3", "sft", ["--fsdp", "full_shard"], WHOLE),
        ("llava", "sft", SEQUENCE, WHOLE),
        ("qwen2_vl", "dpo", SEQUENCE, []),
        ("qwen3_vl", "sft", SEQUENCE, [*WHOLE, *CUT_IN_IMAGES]),
        ("gemma3", "orpo", SEQUENCE, WHOLE),
        ("qwen2_vl", "rm", SEQUENCE, SGD),
        ("qwen2_vl", "sft", [*SEQUENCE, "--deepspeed", ZERO_3], []),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else str(value),
)
def test_what_is_shared_out_equals_one_process(
    kind: str, command: str, engine: list[str], flags: list[str], launch_of: Make
) -> None:
    if "--deepspeed" in engine:
        pytest.importorskip("deepspeed")
    launch = launch_of(kind, command)
    one, several = launch("one", 1, *flags), launch("several", 2, *flags, *engine)
    assert losses(several) == pytest.approx(losses(one), rel=1e-5)
    assert furthest(one, several) < 1e-5


REWARD = """
def even(token_ids, **rest):
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in token_ids]
"""
NUMBERS = ("score", "engine_log_probs", "log_probs", "ref_log_probs", "values", "advantages", "returns")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "command", "engine", "flags"),
    [
        ("llava", "ppo", [], []),
        ("qwen2_vl", "ppo", [], ["--target_modules", "lm_head,q_proj"]),
        ("qwen2_vl", "ppo", ["--deepspeed", "default-zero2"], []),
        ("qwen2_vl", "grpo", [], WHOLE),
        ("llava", "grpo", ["--deepspeed", "default-zero2"], WHOLE),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else str(value),
)
def test_own_answers_to_what_is_shown_are_learned_from_as_by_one_process(
    kind: str, command: str, engine: list[str], flags: list[str], tmp_path: Path, smollm2_tokenizer_dir: Path
) -> None:
    """Every third prompt shows nothing, so that a process has passes of text alone."""
    if engine:
        pytest.importorskip("deepspeed")
    Image.effect_noise((60, 100), 90).convert("RGB").save(tmp_path / "one.png")
    rows = [{"query": f"Say {i}", **({"images": ["one.png"]} if i % 3 else {})} for i in range(12)]
    model = write_tiny(kind, tmp_path / kind, smollm2_tokenizer_dir)
    (tmp_path / "rewards.py").write_text(REWARD)
    method: dict[str, Any] = {"rlhf_type": command, "max_new_tokens": 5, "dataset_test_ratio": None, "eval_steps": None}
    method |= {"template_type": "qwen2-vl", "reward_model_id_or_path": with_head(model, tmp_path / "reward")}
    if command == "grpo":
        method |= {"reward_funcs": "even", "external_plugins": tmp_path / "rewards.py", "num_generations": 4}
        method |= {"num_iterations": 2}
    launch = launcher("rlhf", model, tmp_path, rows, method)
    one, several = launch("one", 1, *flags), launch("several", 2, *flags, *engine)
    assert losses(several) == pytest.approx(losses(one), rel=1e-4, abs=1e-5)
    assert furthest(one, several) < 1e-4
    first, second = (list(map(json.loads, (run / "rollouts.jsonl").read_text().splitlines())) for run in (one, several))
    assert len(first) == len(second)
    for mine, theirs in zip(first, second, strict=True):
        assert (mine["row"], mine["answer_ids"]) == (theirs["row"], theirs["answer_ids"])
        for name in NUMBERS:
            assert theirs[name] == pytest.approx(mine[name], rel=1e-3, abs=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("engine", [["--deepspeed", ZERO_3], ["--fsdp", "full_shard"]], ids=["zero3", "fsdp"])
def test_labelled_answers_about_images_too(engine: list[str], launch_of: Make) -> None:
    """The KL is that of a micro-batch, so one process has the same ones; of one row there is none."""
    if "--deepspeed" in engine:
        pytest.importorskip("deepspeed")
    launch = launch_of("llava", "kto")
    alone = ["--batch_size", "3", "--gradient_accumulation_steps", "4"]
    one, several = launch("one", 1, *alone), launch("several", 2, *engine)
    trained = slice(0, 4)
    assert losses(several)[trained] == pytest.approx(losses(one)[trained], rel=1e-5)
    assert furthest(one, several) < 1e-5


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "engine"),
    [
        ("llava", ["--deepspeed", ZERO_3]),
        ("qwen2_vl", ["--fsdp", "full_shard"]),
        ("gemma3", ["--deepspeed", ZERO_3]),
        ("qwen3_vl", ["--deepspeed", ZERO_3]),
        ("got_ocr2", ["--fsdp", "full_shard"]),
    ],
    ids=lambda value: "-".join(value)[:20] if isinstance(value, list) else value,
)
def test_processes_that_share_weights_answer_what_is_shown_as_one_does(
    kind: str, engine: list[str], tmp_path: Path, smollm2_tokenizer_dir: Path
) -> None:
    """Of five rows one process has one less to answer, and every second shows nothing."""
    if "--deepspeed" in engine:
        pytest.importorskip("deepspeed")
    questions = write_questions(tmp_path)
    asked = [json.loads(line) for line in questions.read_text().splitlines()]
    asked += [{**row, "query": f"{row['query']} So?"} for row in asked[:2]]
    write_lines(questions, asked)
    model = write_tiny(kind, tmp_path / kind, smollm2_tokenizer_dir)
    common = {"template_type": "qwen2-vl", "max_new_tokens": 8, "temperature": 0, "val_dataset": questions}
    ask = {**common, "model_id_or_path": model, "result_dir": tmp_path / "results"}
    assert main(["infer", *(word for flag, value in ask.items() for word in (f"--{flag}", str(value)))]) == 0
    (results,) = (tmp_path / "results").glob("*.jsonl")
    told = [json.loads(line) for line in results.read_text().splitlines()]
    rows = [{**row, "response": answer["response"]} for row, answer in zip(asked, told, strict=True)]
    assert len({row["response"] for row in rows}) > 2
    write_lines(questions, rows)
    own = {**common, "predict_with_generate": "true", "dataset_test_ratio": None, "learning_rate": 0, "max_steps": 1}
    own |= {"eval_batch_size": 1, "eval_steps": 1, "save_strategy": "no"}
    launch = launcher("sft", model, tmp_path, rows, own)
    (one, several) = (launch(name, n, *more) for name, n, more in (("one", 1, []), ("several", 2, engine)))
    (theirs, mine) = ([e for e in events(run) if "eval_rouge-l" in e] for run in (one, several))
    assert len(mine) == len(theirs) == 1 and mine[0]["eval_rouge-l"] > 60
    for name in ("eval_loss", "eval_rouge-l", "eval_bleu-4"):
        assert mine[0][name] == pytest.approx(theirs[0][name], rel=1e-5)
