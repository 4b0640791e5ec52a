"""Two processes train like one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.commands.test_multimodal import noise
from tests.fixtures.tiny_multimodal import write_tiny

from swift.core.transaction import fault
from swift.training.checkpoints import checkpoints
from training.process import finished, ranks, start

FLAGS = {
    "add_output_dir_suffix": "false",
    "max_steps": 3,
    "logging_steps": 1,
    "eval_steps": 3,
    "save_steps": 2,
    "lora_dropout": 0,
    "learning_rate": "1e-2",
    "dataset_test_ratio": 0.1,
    "gradient_accumulation_steps": 2,
    "report_to": "none",
}


def events(run: Path) -> list[dict[str, float]]:
    numbers = ("loss", "acc", "grad_norm", "eval_loss", "eval_acc")
    lines = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    return [found for line in lines if (found := {name: line[name] for name in numbers if name in line})]


def test_two_processes_equal_one_with_the_same_effective_batch(tiny_llama_dir: Path, tmp_path: Path) -> None:
    """The last step of the first pass has 2 of 8 rows: one process has none, and the fourth step is of another pass."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"query": f"Say {i}", "response": "so " * (i % 7) + f"{i}"}) + "\n" for i in range(20))
    )

    def words(run: str, batch: int) -> list[str]:
        flags = {**FLAGS, "model_id_or_path": tiny_llama_dir, "dataset": rows, "output_dir": tmp_path / run}
        flags |= {"max_steps": 4, "eval_steps": 4}
        given = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        return ["sft", *given, "--batch_size", str(batch)]

    together = [start(words("two", 2), tmp_path / f"{e['RANK']}.log", e) for e in ranks(2)]
    assert [finished(process) for process in together] == [0, 0], (tmp_path / "0.log").read_text()
    assert finished(start(words("one", 4), tmp_path / "one.log")) == 0

    one, two = events(tmp_path / "one"), events(tmp_path / "two")
    assert len(one) == len(two) == 5
    for mine, theirs in zip(two, one, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    name = "checkpoint-4/adapter_model.safetensors"
    first, second = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
    for key, tensor in first.items():
        assert (tensor - second[key]).abs().max() < 1e-5, key
    samples = [
        json.loads((tmp_path / run / "logging.jsonl").read_text().splitlines()[-1])["train_time"]["n_train_samples"]
        for run in ("one", "two")
    ]
    assert samples == [26, 26]
    words_of_rest = [*words("rest", 4), "--resume_from_checkpoint", str(tmp_path / "two" / "checkpoint-2")]
    assert finished(start(words_of_rest, tmp_path / "rest.log")) == 0, "one process goes on from two"
    rest = load_file(tmp_path / "rest" / name)
    for key, tensor in first.items():
        assert (tensor - rest[key]).abs().max() < 1e-5, key
    assert "step 1/4" not in (tmp_path / "1.log").read_text(), "only the first process speaks"
    assert len((tmp_path / "two" / "data_ledger.jsonl").read_text().splitlines()) == 21


REWARD = "def even(token_ids):\n    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in token_ids]\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ppo", "grpo"])
def test_two_processes_learn_from_their_answers_like_one(command: str, tiny_llama_dir: Path, tmp_path: Path) -> None:
    rows, plugin = tmp_path / "rows.jsonl", tmp_path / "plugin.py"
    rows.write_text("".join(json.dumps({"query": f"Say word {i}"}) + "\n" for i in range(7)))
    plugin.write_text(REWARD)
    reward = shutil.copytree(tiny_llama_dir, tmp_path / "reward")
    weight = torch.randn(1, 64, generator=torch.Generator().manual_seed(1))
    save_file(
        {"v_head.summary.weight": weight, "v_head.summary.bias": torch.zeros(1)}, reward / "value_head.safetensors"
    )
    own: dict[str, dict[str, object]] = {
        "ppo": {"whiten_rewards": "true", "num_ppo_epochs": 2},
        # A group has answers of both processes.
        "grpo": {"reward_funcs": "even", "external_plugins": plugin, "num_generations": 8, "num_iterations": 2},
    }

    def words(run: str, batch: int) -> list[str]:
        flags = {**FLAGS, "model_id_or_path": tiny_llama_dir, "dataset": rows, "output_dir": tmp_path / run}
        flags = {**flags, **own[command], "reward_model_id_or_path": reward, "max_new_tokens": 5, "max_steps": 4}
        del flags["eval_steps"], flags["dataset_test_ratio"]
        given = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        return [command, *given, "--batch_size", str(batch)]

    together = [start(words("two", 2), tmp_path / f"{e['RANK']}.log", e) for e in ranks(2)]
    assert [finished(process) for process in together] == [0, 0], (tmp_path / "0.log").read_text()
    assert finished(start(words("one", 4), tmp_path / "one.log")) == 0
    records = [
        [json.loads(line) for line in (tmp_path / run / "rollouts.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    assert len(records[0]) == len(records[1]) == 2 * 8
    for one, two in zip(*records, strict=True):
        assert (one["place"], one["answer_ids"], one["text"]) == (two["place"], two["answer_ids"], two["text"])
        for name in ("score", "log_probs", "ref_log_probs", "values", "advantages", "returns"):
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-4)
    for mine, theirs in zip(events(tmp_path / "two"), events(tmp_path / "one"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-5)
    name = "checkpoint-4/adapter_model.safetensors"
    first, second = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
    for key, tensor in first.items():
        assert (tensor - second[key]).abs().max() < 1e-3, key


@pytest.mark.slow
def test_rows_with_images_and_without_are_trained_by_two_processes_as_by_one(
    tmp_path: Path, smollm2_tokenizer_dir: Path
) -> None:
    """A process whose rows have no images computes no gradient for the projector, which waits for nobody then."""
    model, rows = write_tiny("llava", tmp_path / "tiny", smollm2_tokenizer_dir), tmp_path / "rows.jsonl"
    noise(tmp_path / "one.png", 60, 100)
    shown = [{"query": f"See {i}", "response": f"{i}", "images": ["one.png"] * (i % 3)} for i in range(24)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in shown))

    def words(run: str, batch: int) -> list[str]:
        flags = {**FLAGS, "model_id_or_path": model, "dataset": rows, "output_dir": tmp_path / run}
        given = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        return ["sft", *given, "--batch_size", str(batch), "--model_type", "llava1_5-7b-instruct"]

    together = [start(words("two", 1), tmp_path / f"{e['RANK']}.log", e) for e in ranks(2)]
    assert [finished(process) for process in together] == [0, 0], (tmp_path / "0.log").read_text()
    assert finished(start(words("one", 2), tmp_path / "one.log")) == 0
    for mine, theirs in zip(events(tmp_path / "two"), events(tmp_path / "one"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    name = "checkpoint-3/adapter_model.safetensors"
    first, second = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
    assert any("projector" in key and tensor.any() for key, tensor in first.items())
    for key, tensor in first.items():
        assert (tensor - second[key]).abs().max() < 1e-5, key


@contextmanager
def launched(model: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The launcher of two processes that train, and where it writes."""
    rows, log = tmp_path / "rows.jsonl", tmp_path / "log"
    rows.write_text("".join(json.dumps({"query": f"Say {i}", "response": f"{i} it is"}) + "\n" for i in range(50)))
    flags = {**FLAGS, "model_id_or_path": model, "dataset": rows, "output_dir": tmp_path / "run", "max_steps": 5000}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "NPROC_PER_NODE": "2", "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "swift", "sft", *words], env=environment, stdout=output, stderr=output
        )
    try:
        until = time.monotonic() + 120
        while "step 3/5000" not in log.read_text():
            assert launcher.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield launcher, log
    finally:
        launcher.terminate()


def children(process: int) -> list[int]:
    """The numbers of the processes that a process has started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    return [int(number) for number in listed.stdout.split()]


def running(process: int) -> bool:
    """Whether it is there, and no mere entry of a process that has ended."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def test_a_signal_to_the_launcher_ends_all_processes_with_a_checkpoint(tiny_llama_dir: Path, tmp_path: Path) -> None:
    with launched(tiny_llama_dir, tmp_path) as (launcher, log):
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(60) == 75, log.read_text()
    last = checkpoints(tmp_path / "run")[-1]
    assert fault(last) is None
    assert f"--resume_from_checkpoint {last}" in log.read_text()
    assert log.read_text().count("error:") == 1


@pytest.mark.slow
def test_a_killed_launcher_takes_its_processes_along(tiny_llama_dir: Path, tmp_path: Path) -> None:
    with launched(tiny_llama_dir, tmp_path) as (launcher, _):
        (torchrun,) = children(launcher.pid)
        ranks_of_run = children(torchrun)
        assert len(ranks_of_run) == 2
        launcher.kill()
        until = time.monotonic() + 10
        while any(map(running, (torchrun, *ranks_of_run))):
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_process_ends_the_run_with_one_message_that_names_it(
    number: int, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    with launched(tiny_llama_dir, tmp_path) as (launcher, log):
        (torchrun,) = children(launcher.pid)
        os.kill(sorted(children(torchrun))[number], signal.SIGKILL)
        assert launcher.wait(60) == 137
    assert log.read_text().count("error") == 1, log.read_text()
    assert f"error: process {number} was ended by SIGKILL" in log.read_text()


@pytest.mark.slow
def test_processes_that_would_take_another_number_of_steps_do_not_start(tiny_llama_dir: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"Say {i}", "response": f"{i}"}) + "\n" for i in range(50)))
    flags = {**FLAGS, "model_id_or_path": tiny_llama_dir, "dataset": rows, "output_dir": tmp_path / "run"}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    together = [
        start(["sft", *words, "--max_steps", str(3 + int(e["RANK"]))], tmp_path / f"{e['RANK']}.log", e)
        for e in ranks(2)
    ]
    assert [finished(process) for process in together] == [2, 2]
    told = (tmp_path / "0.log").read_text()
    assert "do not agree on the number of optimizer steps: rank 0 has 3, rank 1 4" in told


@pytest.mark.slow
@pytest.mark.parametrize("engine", [[], ["--fsdp", "full_shard"]], ids=["ddp", "fsdp"])
def test_machines_with_disks_of_their_own_save_each_and_go_on(
    engine: list[str], tiny_llama_dir: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"Say {i}", "response": f"{i}"}) + "\n" for i in range(30)))
    flags = {**FLAGS, "model_id_or_path": tiny_llama_dir, "dataset": rows, "sft_type": "full", "lora_dropout": 0.1}

    def launched(name: str, *more: str) -> list[Path]:
        """The run's folder on each of two machines."""
        words = ["sft", *(word for flag, value in flags.items() for word in (f"--{flag}", str(value)))]
        disks = [tmp_path / f"disk {number}" for number in range(2)]
        for disk in disks:
            disk.mkdir(exist_ok=True)
        together = [
            start([*words, "--output_dir", name, *engine, *more], tmp_path / f"{name}.{number}", place, folder=disk)
            for number, (place, disk) in enumerate(zip(ranks(2, machines=True), disks, strict=True))
        ]
        assert [finished(process) for process in together] == [0, 0], (tmp_path / f"{name}.0").read_text()
        return [disk / name for disk in disks]

    each = "--save_on_each_node", "true"
    whole = launched("whole", *each)
    for mine in whole:
        assert [path.name for path in checkpoints(mine)] == ["checkpoint-2", "checkpoint-3"]
        assert all(fault(path) is None for path in checkpoints(mine))
    name = "checkpoint-3/model.safetensors"
    assert (whole[0] / name).read_bytes() == (whole[1] / name).read_bytes()
    again = launched("again", *each, "--resume_from_checkpoint", "whole/checkpoint-2")
    assert (again[1] / name).read_bytes() == (whole[0] / name).read_bytes()
    once = launched("once")
    assert checkpoints(once[0]) and not checkpoints(once[1])
    assert "only the first has checkpoints" in (tmp_path / "once.0").read_text()
