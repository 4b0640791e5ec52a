"""What is shared out over processes trains like one, and goes on anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from swift.compat.deepspeed_shm_comm import NAME, compile_nothing
from training.process import finished, ranks, start

FLAGS = {
    "add_output_dir_suffix": "false",
    "max_steps": 4,
    "logging_steps": 1,
    "eval_steps": 4,
    "save_steps": 2,
    "lora_dropout": 0,
    "learning_rate": "1e-3",
    "warmup_ratio": 0,
    "dataset_test_ratio": 0.1,
    "gradient_accumulation_steps": 2,
    "report_to": "none",
}
ZERO_1 = '{"zero_optimization": {"stage": 1}}'
# Small weights would stay where they are, and hide what reads them as a whole.
STRICT = {
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": 0,
    "stage3_param_persistence_threshold": 0,
    "stage3_max_live_parameters": 0,
    "stage3_max_reuse_distance": 0,
}
ZERO_3 = json.dumps({"zero_optimization": {"stage": 3, **STRICT}})
Launch = Callable[..., Path]


@pytest.fixture
def launch(tiny_llama_dir: Path, tmp_path: Path) -> Launch:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"query": f"Say {i}", "response": "so " * (i % 7) + f"{i}"}) + "\n" for i in range(60))
    )

    def run(name: str, processes: int, *more: str) -> Path:
        """Train in so many processes with six rows a pass in all. -> the folder of the run."""
        flags = {**FLAGS, "model_id_or_path": tiny_llama_dir, "dataset": rows, "output_dir": tmp_path / name}
        flags |= {flag.lstrip("-"): value for flag, value in zip(more[::2], more[1::2], strict=True)}
        words = ["sft", *(word for flag, value in flags.items() for word in (f"--{flag}", str(value)))]
        different_rows = processes // int(str(flags.get("sequence_parallel_size", 1)))
        words += ["--batch_size", str(6 // different_rows)]
        several = ranks(processes) if processes > 1 else [{"RANK": "0"}]
        started = [start(words, tmp_path / f"{name}.{e['RANK']}.log", e if processes > 1 else None) for e in several]
        codes = [finished(process) for process in started]
        assert codes == [0] * processes, "".join((tmp_path / f"{name}.{i}.log").read_text() for i in range(processes))
        return tmp_path / name

    return run


def events(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [event[name] for event in events(run) for name in ("loss", "eval_loss") if name in event]


def furthest(one: Path, other: Path) -> float:
    """The largest difference between weights of the last checkpoints."""
    (first, second) = (load_file(next((run / "checkpoint-4").glob("*model.safetensors"))) for run in (one, other))
    assert first.keys() == second.keys()
    return max((tensor - second[name]).abs().max().item() for name, tensor in first.items())


FULL = ["--sft_type", "full"]
SGD = ["--optim", "sgd", "--learning_rate", "0.1"]
LORA_PLUS = ["--modules_to_save", "EMBEDDING", "--lora_lr_ratio", "4"]
RECOMPUTED = ["--fsdp_config", '{"activation_checkpointing": true}']


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "flags", "processes"),
    [
        (["--deepspeed", "default-zero2"], LORA_PLUS, 2),
        (["--deepspeed", "default-zero2"], [*FULL, *SGD], 2),
        (["--deepspeed", ZERO_1], FULL, 3),
        (["--deepspeed", "zero2-offload"], FULL, 2),
        (["--deepspeed", ZERO_3], LORA_PLUS, 2),
        (["--deepspeed", ZERO_3], [*FULL, *SGD], 3),
        (["--deepspeed", "zero3-offload"], FULL, 2),
        (["--fsdp", "full_shard"], LORA_PLUS, 3),
        (["--fsdp", "full_shard auto_wrap", *RECOMPUTED], [*FULL, *SGD], 2),
        (["--fsdp", "shard_grad_op offload"], FULL, 2),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else str(value),
)
def test_what_is_shared_out_equals_one_process_and_goes_on_anywhere(
    engine: list[str], flags: list[str], processes: int, launch: Launch
) -> None:
    if "--deepspeed" in engine:
        pytest.importorskip("deepspeed")
    one, several = launch("one", 1, *flags), launch("several", processes, *flags, *engine)
    assert losses(several) == pytest.approx(losses(one), rel=2e-6)
    assert furthest(one, several) < 5e-6
    half = "--resume_from_checkpoint", str(several / "checkpoint-2")
    assert furthest(launch("same", processes, *flags, *engine, *half), several) == 0
    assert furthest(launch("alone", 1, *flags, *half), one) < 5e-6
    half = "--resume_from_checkpoint", str(one / "checkpoint-2")
    assert furthest(launch("shared", processes, *flags, *engine, *half), one) < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "flags"),
    [
        (2, ["--packing", "true", "--gradient_checkpointing", "true"]),
        (3, [*FULL, *SGD]),
        (4, [*FULL, "--fsdp", "full_shard"]),
    ],
    ids=["lora-packed", "full-sgd-uneven-heads", "full-fsdp"],
)
def test_a_row_that_is_computed_together_trains_the_same(processes: int, flags: list[str], launch: Launch) -> None:
    size = "3" if processes == 3 else "2"
    alone = flags[: flags.index("--fsdp")] if "--fsdp" in flags else flags
    one = launch("one", 1, *alone)
    together = launch("together", processes, *flags, "--sequence_parallel_size", size)
    assert losses(together) == pytest.approx(losses(one), rel=2e-6)
    assert furthest(one, together) < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("engine", [["--deepspeed", ZERO_3], ["--fsdp", "full_shard"]], ids=["zero3", "fsdp"])
def test_processes_with_fewer_rows_to_answer_wait_for_the_others(engine: list[str], launch: Launch) -> None:
    if "--deepspeed" in engine:
        pytest.importorskip("deepspeed")
    flags = ["--predict_with_generate", "true", "--max_new_tokens", "4", "--eval_batch_size", "1"]
    one, several = (launch(name, n, *flags, *more) for name, n, more in (("one", 1, []), ("three", 3, engine)))
    (mine, theirs) = ([e for e in events(run) if "eval_rouge-l" in e] for run in (several, one))
    assert len(mine) == len(theirs) == 1
    for name in ("eval_loss", "eval_rouge-l", "eval_bleu-4"):
        assert mine[0][name] == pytest.approx(theirs[0][name], rel=2e-6)


def test_deepspeed_still_looks_where_it_is_told_that_nothing_can_be_compiled() -> None:
    package = find_spec("deepspeed")
    if package is None or package.origin is None:
        pytest.skip("deepspeed is not installed")
    source = Path(package.origin).parent
    assert "deepspeed.ops.__compatible_ops__.get(builder.NAME, False)" in (source / "comm" / "torch.py").read_text()
    assert f'NAME = "{NAME}"' in (source / "ops" / "op_builder" / "cpu" / "comm.py").read_text()
    ops = SimpleNamespace()
    compile_nothing(ops)
    assert ops.__compatible_ops__ == {NAME: False}
