"""Large passes and kept activations where there is room: decided once, said, in the checkpoint, no number changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from swift.cli import main
from swift.models.free_memory import room_in_cgroups

NUMBERS = ("loss", "acc", "grad_norm", "eval_loss", "eval_acc")
KEPT, AGAIN = "activations are kept", "activations are computed again"


def train_words(model: Path, rows: Path, *words: str, steps: int = 2) -> list[str]:
    """A command line that trains with dropout on, so that the random state counts."""
    given = [
        "--model_id_or_path",
        str(model),
        "--dataset",
        str(rows),
        "--max_steps",
        str(steps),
        "--logging_steps",
        "1",
    ]
    given += ["--add_output_dir_suffix", "false", "--report_to", "none", "--dataset_test_ratio", "0.2"]
    return [*given, "--lora_dropout", "0.2", "--eval_steps", "2", "--disable_tqdm", "true", *words]


def rows_file(path: Path, **changes: object) -> Path:
    """Ten rows of one to four words."""
    rows = [{"query": f"Say {i}", "response": "so " * (i % 4) + "it", **changes} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_numbers(run: Path) -> list[list[float]]:
    """What was logged."""
    lines = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    return [[value for name, value in line.items() if name in NUMBERS] for line in lines]


def recorded(folder: Path) -> bool | None:
    """What a run or checkpoint says of itself."""
    return json.loads((folder / "sft_args.json").read_text())["gradient_checkpointing"]


@pytest.mark.slow
def test_it_is_decided_once_and_changes_no_bit(
    tiny_llama_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = rows_file(tmp_path / "rows.jsonl")
    words = train_words(tiny_llama_dir, rows)
    asked = {
        "unsaid": ([], KEPT),
        "without room": (["--batch_size", "100000000", "--gradient_accumulation_steps", "1"], AGAIN),
        "true": (["--gradient_checkpointing", "true"], None),
        "false": (["--gradient_checkpointing", "false"], None),
    }
    for name, (more, line) in asked.items():
        assert main(["sft", *words, *more, "--output_dir", str(tmp_path / name)]) == 0
        printed = capfd.readouterr().err
        assert [said for said in (KEPT, AGAIN) if said in printed] == ([line] if line else []), name
        assert (
            recorded(tmp_path / name)
            is recorded(tmp_path / name / "checkpoint-2")
            is (name in ("true", "without room"))
        )
    for name in ("true", "false"):
        assert run_numbers(tmp_path / name) == run_numbers(tmp_path / "unsaid")
        one, other = (
            load_file(tmp_path / run / "checkpoint-2" / "adapter_model.safetensors") for run in (name, "unsaid")
        )
        assert one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)

    for name, more, outcome in (
        ("true", [], True),
        ("unsaid", [], False),
        ("unsaid", ["--gradient_checkpointing", "true"], True),
    ):
        again = tmp_path / f"{name} again {len(more)}"
        more = [*more, "--resume_from_checkpoint", str(tmp_path / name / "checkpoint-2"), "--output_dir", str(again)]
        assert main(["sft", *train_words(tiny_llama_dir, rows, *more, steps=3)]) == 0
        printed = capfd.readouterr().err
        assert KEPT not in printed and AGAIN not in printed
        assert recorded(again) is outcome


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["sft", "--dry_run"], KEPT),
        (["sft", "--dry_run", "--streaming", "true"], KEPT),
        (["rlhf", "--rlhf_type", "dpo", "--dry_run"], KEPT),
        (["rlhf", "--rlhf_type", "dpo", "--dry_run", "--batch_size", "100000000"], AGAIN),
        (["rlhf", "--rlhf_type", "kto", "--dry_run", "--sft_type", "full"], KEPT),
        (["pt", "--dry_run", "--packing", "true", "--max_length", "64"], KEPT),
    ],
)
def test_every_way_to_train_comes_to_a_decision(
    words: list[str], line: str, tiny_llama_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = rows_file(tmp_path / "rows.jsonl", rejected_response="no", label=True)
    assert main([words[0], *train_words(tiny_llama_dir, rows, *words[1:]), "--output_dir", str(tmp_path / "run")]) == 0
    assert line in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "passes"),
    [
        ([], "1 pass"),
        (["--gradient_checkpointing", "false"], "1 pass"),
        (["--batch_size", "1"], "8 passes"),
        (["--gradient_checkpointing", "true"], "1 pass"),
        (["without room"], "8 passes"),
    ],
)
def test_a_pass_is_larger_than_a_row_where_nobody_bounds_it(
    words: list[str],
    passes: str,
    tiny_llama_dir: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"Say {i}", "response": "so it"}) + "\n" for i in range(8)))
    if words == ["without room"]:
        words = []
        monkeypatch.setattr("swift.training.room.free_memory", lambda _: 2**20)
    words = train_words(tiny_llama_dir, rows, *words, "--dataset_test_ratio", "0", "--lora_dropout", "0", steps=1)
    words = [*words, "--gradient_accumulation_steps", "8"]
    assert main(["sft", *words, "--output_dir", str(tmp_path / "run")]) == 0
    assert f"8 rows a step, {passes} of up to" in capfd.readouterr().err
    given = ["--micro_batching", "said", "--output_dir", str(tmp_path / "given")]
    assert main(["sft", *words, *given]) == 0
    for mine, theirs in zip(run_numbers(tmp_path / "run"), run_numbers(tmp_path / "given"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    capfd.readouterr()
    again = [
        "--resume_from_checkpoint",
        str(tmp_path / "run" / "checkpoint-1"),
        "--output_dir",
        str(tmp_path / "again"),
    ]
    assert main(["sft", *words, *again, "--max_steps", "2"]) == 0
    assert f"8 rows a step, {passes} of up to" in capfd.readouterr().err


def cgroup(folder: Path, **files: object) -> None:
    """A control group's files; `_` in their names stands for a dot."""
    folder.mkdir(parents=True)
    for name, value in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{value}\n")


def test_room_in_containers(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/pod/box\n")
    cgroup(tmp_path / "two" / "pod", memory_max=1000, memory_current=300, memory_stat="anon 200\ninactive_file 100")
    cgroup(tmp_path / "two" / "pod" / "box", memory_max="max", memory_current=300, memory_stat="inactive_file 100")
    assert list(room_in_cgroups(own, tmp_path / "two")) == [800]

    own.write_text("9:name=systemd:/\n4:cpu,memory:/docker/1\n")
    files = {"memory_limit_in_bytes": 500, "memory_usage_in_bytes": 200, "memory_stat": "total_inactive_file 50"}
    cgroup(tmp_path / "one" / "memory", **files)
    assert list(room_in_cgroups(own, tmp_path / "one")) == [350]
    assert list(room_in_cgroups(tmp_path / "nowhere", tmp_path)) == []
