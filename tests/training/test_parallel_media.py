"""Rows with and without images, shared out over processes, train as in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.commands.test_ppo_with_images import with_head
from tests.fixtures.tiny_multimodal import write_tiny

from training.parallel_runs import FULL, ROWS, SGD, ZERO_3, Launch, furthest, launcher, losses

Make = Any
WHOLE = [*FULL, *SGD, "--freeze_vit", "false", "--weight_decay", "0"]
"""Without decay: DeepSpeed decays weights that no row reads as well, such as the last layer of LLaVA's tower."""


@pytest.fixture
def launch_of(smollm2_tokenizer_dir: Path, tmp_path: Path) -> Make:
    """What launches a kind of model, with a command, on rows of which every fifth shows something."""

    def of(kind: str, command: str) -> Launch:
        Image.effect_noise((60, 100), 90).convert("RGB").save(tmp_path / "one.png")
        rows: list[dict[str, Any]] = [{"query": f"Say {i}", "response": "so " * (i % 7) + f"{i}"} for i in range(ROWS)]
        for row in rows[::5]:
            row |= {"images": ["one.png"], "query": "See <image> there"}
        for row in rows if command != "sft" else ():
            row["rejected_response"] = "no"
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
