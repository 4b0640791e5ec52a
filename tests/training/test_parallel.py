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
Launch = Callable[..., Path]


@pytest.fixture
def launch(tiny_llama_dir: Path, tmp_path: Path) -> Launch:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"query": f"Say {i}", "response": "so " * (i % 7) + f"{i}"}) + "\n" for i in range(50))
    )

    def run(name: str, processes: int, *more: str) -> Path:
        """Train in so many processes with four rows a pass in all. -> the folder of the run."""
        flags = {**FLAGS, "model_id_or_path": tiny_llama_dir, "dataset": rows, "output_dir": tmp_path / name}
        flags |= {flag.lstrip("-"): value for flag, value in zip(more[::2], more[1::2], strict=True)}
        words = ["sft", *(word for flag, value in flags.items() for word in (f"--{flag}", str(value)))]
        words += ["--batch_size", str(4 // processes)]
        several = ranks(processes) if processes > 1 else [{"RANK": "0"}]
        started = [start(words, tmp_path / f"{name}.{e['RANK']}.log", e if processes > 1 else None) for e in several]
        codes = [finished(process) for process in started]
        assert codes == [0] * processes, "".join((tmp_path / f"{name}.{i}.log").read_text() for i in range(processes))
        return tmp_path / name

    return run


def losses(run: Path) -> list[float]:
    events = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    return [event[name] for event in events for name in ("loss", "eval_loss") if name in event]


def furthest(one: Path, other: Path) -> float:
    """The largest difference between weights of the last checkpoints."""
    (first, second) = (load_file(next((run / "checkpoint-4").glob("*model.safetensors"))) for run in (one, other))
    assert first.keys() == second.keys()
    return max((tensor - second[name]).abs().max().item() for name, tensor in first.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "flags"),
    [
        ("default-zero2", ["--modules_to_save", "EMBEDDING", "--lora_lr_ratio", "4"]),
        ("default-zero2", ["--sft_type", "full", "--optim", "sgd", "--learning_rate", "0.1"]),
        (ZERO_1, ["--sft_type", "full"]),
        ("zero2-offload", ["--sft_type", "full"]),
    ],
    ids=["lora+", "full-sgd", "full-zero1", "full-offload"],
)
def test_a_shared_optimizer_equals_one_process_and_goes_on_anywhere(
    config: str, flags: list[str], launch: Launch
) -> None:
    pytest.importorskip("deepspeed")
    one, two = launch("one", 1, *flags), launch("two", 2, *flags, "--deepspeed", config)
    assert losses(two) == pytest.approx(losses(one), rel=2e-6)
    assert furthest(one, two) < 5e-6
    half = "--resume_from_checkpoint", str(two / "checkpoint-2")
    assert furthest(launch("same", 2, *flags, "--deepspeed", config, *half), two) == 0
    assert furthest(launch("alone", 1, *flags, *half), one) < 5e-6
    half = "--resume_from_checkpoint", str(one / "checkpoint-2")
    assert furthest(launch("shared", 2, *flags, "--deepspeed", config, *half), one) < 5e-6


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
