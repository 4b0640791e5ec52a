"""Answers are compared by several processes, shared out or over one row, as one process does."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.parallel_runs import FULL, ROWS, SGD, ZERO_3, Launch, furthest, launcher, losses

ENGINES = {
    "zero2": ["--deepspeed", "default-zero2"],
    "zero3": ["--deepspeed", ZERO_3],
    "fsdp": ["--fsdp", "full_shard"],
    "sequence": ["--sequence_parallel_size", "2"],
}


@pytest.fixture
def launch(tiny_llama_dir: Path, tmp_path: Path) -> Launch:
    pairs = [
        {"query": f"Say {i} " * 9, "response": "so " * (i % 7) + f"{i}", "rejected_response": f"no {i} " * (1 + i % 3)}
        for i in range(ROWS)
    ]
    return launcher("rlhf", tiny_llama_dir, tmp_path, pairs)


@pytest.fixture
def launch_labelled(tiny_llama_dir: Path, tmp_path: Path) -> Launch:
    rows = [{"query": f"Say {i}", "response": "so " * (i % 7) + f"{i}", "label": i % 3 > 0} for i in range(ROWS)]
    return launcher("rlhf", tiny_llama_dir, tmp_path, rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "flags", "processes"),
    [
        ("sequence", ["--rlhf_type", "dpo", "--rpo_alpha", "0.5"], 2),
        ("sequence", ["--rlhf_type", "orpo", *FULL, *SGD], 4),
        ("sequence", ["--rlhf_type", "rm", *SGD], 2),
        ("zero2", ["--rlhf_type", "dpo", *FULL, *SGD], 2),
        ("zero3", ["--rlhf_type", "dpo"], 2),
        ("zero3", ["--rlhf_type", "dpo", *FULL, *SGD], 3),
        ("zero3", ["--rlhf_type", "dpo", "--loss_type", "bco_pair"], 2),
        ("fsdp", ["--rlhf_type", "dpo", *FULL, *SGD, "--precompute_ref_log_probs", "true"], 2),
        ("fsdp", ["--rlhf_type", "dpo", *FULL, *SGD], 3),
        ("fsdp", ["--rlhf_type", "orpo"], 2),
        ("zero3", ["--rlhf_type", "rm", *FULL, *SGD], 2),
        ("fsdp", ["--rlhf_type", "rm", *SGD], 3),
    ],
    ids=lambda value: "-".join(value)[12:60] if isinstance(value, list) else str(value),
)
def test_pairs_are_compared_as_by_one_process(engine: str, flags: list[str], processes: int, launch: Launch) -> None:
    if engine.startswith("zero"):
        pytest.importorskip("deepspeed")
    one, several = launch("one", 1, *flags), launch("several", processes, *flags, *ENGINES[engine])
    assert losses(several) == pytest.approx(losses(one), rel=2e-6)
    assert furthest(one, several) < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("flags", [FULL, ["--target_modules", "lm_head,q_proj"]], ids=["full", "lora"])
def test_a_reward_model_may_leave_its_last_layer_out(flags: list[str], tiny_qwen2_dir: Path, tmp_path: Path) -> None:
    """Scores do not need it, and DDP waits for the gradients of every weight that it was not told of."""
    pairs = [{"query": f"Say {i}", "response": f"{i}", "rejected_response": "no " * (i % 3)} for i in range(ROWS)]
    launch = launcher("rlhf", tiny_qwen2_dir, tmp_path, pairs, {"rlhf_type": "rm", "template_type": "chatml"})
    one, two = launch("one", 1, *flags, *SGD), launch("two", 2, *flags, *SGD)
    assert losses(two) == pytest.approx(losses(one), rel=2e-6)
    assert furthest(one, two) < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], FULL], ids=["lora", "full"])
@pytest.mark.parametrize("engine", ENGINES)
def test_labelled_answers_too(engine: str, flags: list[str], launch_labelled: Launch) -> None:
    """The KL is that of a micro-batch, so one process has the same ones; of one row there is none."""
    if engine.startswith("zero"):
        pytest.importorskip("deepspeed")
    flags = ["--rlhf_type", "kto", *flags]
    alone = ["--batch_size", "3", "--gradient_accumulation_steps", "4"]
    if engine == "sequence":
        alone = []
    one, several = launch_labelled("one", 1, *flags, *alone), launch_labelled("several", 2, *flags, *ENGINES[engine])
    trained = slice(0, 4)
    assert losses(several)[trained] == pytest.approx(losses(one)[trained], rel=2e-6)
    assert furthest(one, several) < 5e-6
