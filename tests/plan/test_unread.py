"""What an engine or a machine does not read is said, or refused where the answers would be another model's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.core.log import another_command
from swift.core.machine import Machine
from swift.params.groups import Generate
from swift.params.parse import parse
from swift.plan.infer import InferPlan, plan_infer, plan_sampling, say_greedy
from swift.plan.sft import plan_sft
from swift.plan.unread import say_unread_by_machine

CPU = Machine()
VLLM = Machine(device="cuda", device_count=1, packages=frozenset({"vllm"}))


def folder(place: Path, **config: object) -> Path:
    place.mkdir()
    facts = {"model_type": "llama", "max_position_embeddings": 2048, **config}
    (place / "config.json").write_text(json.dumps(facts))
    return place


def plan(words: str, machine: Machine = CPU, command: str = "infer") -> InferPlan:
    return plan_infer(parse([command, *words.split()]), load_catalog(), machine, answers_rows=False)


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("infer", "--gpu_memory_utilization 0.5", "the engine pt does not read --gpu_memory_utilization"),
        ("infer", "--infer_backend llamacpp --tp 2", "the engine llamacpp does not read --tp"),
        ("infer", "--infer_backend lmdeploy --enforce_eager true", "the engine lmdeploy does not read --enforce_eager"),
        ("infer", "--max_num_seqs 4", "the engine pt does not read --max_num_seqs"),
        ("infer", "--infer_backend llamacpp --max_num_seqs 4", ""),
        ("deploy", "--max_num_seqs 4", ""),  # bounds the server's queue
        ("infer", "--infer_backend vllm --gpu_memory_utilization 0.5", ""),
    ],
)
def test_of_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, words: str, said: str) -> None:
    plan(f"--model_id_or_path {folder(tmp_path / 'm')} {words}", command=command)
    told = capsys.readouterr().err
    assert (said in told) if said else ("does not read" not in told)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--fsdp full_shard --answer_samples 3 --temperature 0", "does not read --answer_samples, --temperature"),
        ("--fsdp full_shard --predict_with_generate true --temperature 0", ""),
        ("--answer_samples 3", ""),
        ("--fsdp full_shard", ""),
    ],
)
def test_of_weights_that_are_shared_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    model = folder(tmp_path / "m")
    given = f"sft --model_id_or_path {model} --dataset {model / 'config.json'} {words}"
    decided = plan_sft(parse(given.split()), load_catalog(), Machine(world_size=2, local_world_size=2))
    assert (decided.samples is None) == ("--fsdp" in words)
    told = capsys.readouterr().err
    assert (said in told) if said else ("does not read" not in told)


@pytest.mark.parametrize("backend", ["vllm", "lmdeploy"])
def test_stretched_positions_reach_the_engine_or_are_refused(tmp_path: Path, backend: str) -> None:
    words = f"--model_id_or_path {folder(tmp_path / 'm')} --infer_backend {backend} --rope_scaling yarn --max_length "
    with pytest.raises(SwiftError, match="--rope_scaling does not reach"):
        plan(words + "8192", VLLM)
    assert plan(words + "1024", VLLM).engine.backend == backend  # there is nothing to stretch
    merged = folder(tmp_path / "merged", rope_parameters={"rope_type": "yarn", "factor": 4.0})
    assert plan(words.replace(str(tmp_path / "m"), str(merged)) + "8192", VLLM).engine.backend == backend


def test_another_configuration_does_not_reach_lmdeploy(tmp_path: Path) -> None:
    words = f"--model_id_or_path {folder(tmp_path / 'm')} --infer_backend lmdeploy --model_kwargs"
    args = parse(["infer", *words.split(), '{"rms_norm_eps": 0.1}'])
    with pytest.raises(SwiftError, match="--model_kwargs does not reach lmdeploy"):
        plan_infer(args, load_catalog(), VLLM)
    args = parse(["infer", *words.split(), '{"max_pixels": 9999}'])  # pixels are made here
    assert plan_infer(args, load_catalog(), VLLM).engine.backend == "lmdeploy"


def test_auto_takes_an_engine_that_reads_the_positions() -> None:
    model = "--model_type qwen2_5-7b-instruct"
    assert plan(model, VLLM).engine.backend == "vllm"
    assert plan(f"{model} --rope_scaling yarn --max_length 65536", VLLM).engine.backend == "pt"


def test_a_folder_has_no_revisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    another_command()
    words = f"--model_id_or_path {folder(tmp_path / 'm')} --model_revision v2 --check_model_is_latest false"
    plan_infer(parse(["infer", *words.split()]), load_catalog(), Machine())
    told = capsys.readouterr().err
    assert f"a model in a folder ({tmp_path / 'm'}) does not read --model_revision, --check_model_is_latest" in told
    plan_infer(
        parse(["infer", "--model_type", "qwen2-0_5b-instruct", "--model_revision", "v2"]), load_catalog(), Machine()
    )
    assert "does not read" not in capsys.readouterr().err


def test_of_machines(capsys: pytest.CaptureFixture[str]) -> None:
    args = parse(["sft", "--model_type", "m", "--dataset", "d", "--ddp_timeout", "9", "--gpu_memory_fraction", "0.5"])
    say_unread_by_machine(args, Machine())
    told = capsys.readouterr().err
    assert "a run of one process does not read --ddp_timeout" in told and "a CPU does not read --gpu_memory" in told
    say_unread_by_machine(args, Machine(device="cuda", device_count=2, world_size=2))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("flags", "own", "said"),
    [
        (Generate(temperature=0.7, top_p=0.9), {}, "whatever --temperature, --top_p"),
        (Generate(temperature=0.7), {"do_sample": True}, ""),
        (Generate(temperature=0.7, do_sample=True), {}, ""),
        (Generate(temperature=0.0), {}, ""),
    ],
)
def test_a_temperature_beside_the_likeliest_token_is_named(
    capsys: pytest.CaptureFixture[str], flags: Generate, own: dict[str, object], said: str
) -> None:
    say_greedy(flags, plan_sampling(flags, own))
    assert said in (told := capsys.readouterr().err) and bool(told) == bool(said)
