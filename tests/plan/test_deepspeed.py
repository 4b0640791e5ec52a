"""`--deepspeed` as a plan: what a configuration may say, and that it says the same as the flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.core.log import another_command
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.deepspeed import ZeroPlan
from swift.plan.sft import plan_sft

TWO = Machine(world_size=2, local_world_size=2, packages=frozenset({"deepspeed", "bitsandbytes"}))


@pytest.fixture
def zero(tmp_path: Path) -> Any:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "rows.jsonl").write_text("")

    def make(config: Any, *words: str, machine: Machine = TWO) -> ZeroPlan:
        text = config if isinstance(config, str) else json.dumps(config)
        given = ["sft", "--model_id_or_path", str(model), "--dataset", str(tmp_path / "rows.jsonl"), *words]
        plan = plan_sft(parse([*given, "--deepspeed", text]), load_catalog(), machine).train.zero
        assert plan is not None
        return plan

    return make


def test_flags_fill_what_a_configuration_leaves_open(zero: Any, tmp_path: Path) -> None:
    given = {
        "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"},
        "train_batch_size": "auto",
        "bf16": {"enabled": "auto"},
        "gradient_clipping": 1,
        "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "weight_decay": 0.1}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": "auto"}},
    }
    inline = zero(given, "--batch_size", "3", "--dtype", "bf16")
    (tmp_path / "zero.json").write_text(json.dumps(given))
    assert zero(str(tmp_path / "zero.json"), "--batch_size", "3", "--dtype", "bf16") == inline
    config = inline.config
    assert inline.stage == 2 and not inline.offloads
    assert "optimizer" not in config and "scheduler" not in config
    assert (config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]) == (3, 3)
    assert config["train_batch_size"] == 18
    assert config["torch_autocast"]["dtype"] == "bfloat16"
    assert config["zero_optimization"] == given["zero_optimization"]


def test_what_flags_say_instead_is_named_with_its_values(zero: Any, capsys: pytest.CaptureFixture[str]) -> None:
    another_command()
    given = {
        "zero_optimization": {"stage": 2},
        "optimizer": {"type": "AdamW", "params": {"lr": "auto"}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": "auto", "warmup_num_steps": 9}},
        "activation_checkpointing": {"partition_activations": True, "cpu_checkpointing": False},
    }
    assert not {"optimizer", "scheduler", "activation_checkpointing"} & zero(given).config.keys()
    said = [line.partition("`")[2] for line in capsys.readouterr().err.splitlines() if "is left out" in line]
    assert said == [
        "optimizer` is left out; what counts: --optim and --learning_rate",
        'scheduler` is left out, whatever its type "WarmupLR", warmup_num_steps 9; '
        "what counts: --lr_scheduler_type, --warmup_ratio and --warmup_steps",
        "activation_checkpointing` is left out, whatever its partition_activations true; "
        "what counts: --gradient_checkpointing",
    ]


@pytest.mark.parametrize(
    ("name", "stage", "offloads"),
    [("default-zero2", 2, False), ("zero2-offload", 2, True), ("default-zero3", 3, False), ("zero3-offload", 3, True)],
)
def test_presets(name: str, stage: int, offloads: bool, zero: Any) -> None:
    plan = zero(name)
    assert (plan.stage, plan.offloads) == (stage, offloads)
    assert plan.config["zero_force_ds_cpu_optimizer"] is False, "on a CPU nothing is compiled"
    on_gpu = zero(name, machine=Machine(device="cuda", device_count=2, world_size=2, packages=TWO.packages))
    assert on_gpu.config["zero_force_ds_cpu_optimizer"] is True


STAGE_2 = {"zero_optimization": {"stage": 2}}


@pytest.mark.parametrize(
    ("config", "words", "message"),
    [
        ({}, "", "stage is missing"),
        ({"zero_optimization": {"stage": 0}}, "", "stage is 0"),
        ({"zero_optimization": {"stage": True}}, "", "stage is true"),
        ({"zero_optimization": {"stage": "2"}}, "", 'stage is "2"'),
        ({"zero_optimization": 2}, "", "`zero_optimization` is 2 and no object"),
        ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, "", "does nothing at stage 2"),
        ({**STAGE_2, "zero_optimisation": {}}, "", "did you mean `zero_optimization`?"),
        ({**STAGE_2, "gradient_allreduce_op": "sum"}, "", "`gradient_allreduce_op` is nothing that a run goes by"),
        ({**STAGE_2, "bf16": True}, "", "`bf16` is true and no object"),
        ({**STAGE_2, "bf16": {"enabled": True}}, "--dtype fp32", "bf16.enabled is true, and --dtype says otherwise"),
        ({**STAGE_2, "train_micro_batch_size_per_gpu": 4}, "--batch_size 2", "is 4, and --batch_size says 2"),
        ({**STAGE_2, "train_batch_size": 64}, "", "train_batch_size is 64"),
        ({**STAGE_2, "gradient_accumulation_steps": 3}, "", "is 3, and --gradient_accumulation_steps says 8"),
        ({**STAGE_2, "gradient_clipping": 5}, "", "is 5, and --max_grad_norm says 1.0"),
        ({**STAGE_2, "optimizer": {"type": "Lamb"}}, "", 'is "Lamb", and --optim says "Adam or AdamW"'),
        ({**STAGE_2, "optimizer": {"params": {"lr": 3e-5}}}, "", "is 3e-05, and --learning_rate says 0.0001"),
        ({**STAGE_2, "optimizer": {"params": {"betas": [0.9, 0.9]}}}, "", "--adam_beta1 and --adam_beta2 say"),
        (STAGE_2, "--optim adafactor", "--optim adafactor does not go together with --deepspeed"),
        (STAGE_2, "--sft_type adalora", "--sft_type adalora does not go together with --deepspeed"),
        (STAGE_2, "--auto_find_batch_size true", "--auto_find_batch_size does not go together with --deepspeed"),
        (STAGE_2, '--device_map_config {"":"cpu"}', "--device_map_config does not go together with --deepspeed"),
        ("default-zero3", "--quantization_bit 4", "--quantization_bit is not built yet with --deepspeed at stage 3"),
        ("default-zero3", "--torch_compile true", "--torch_compile is not built yet with --deepspeed at stage 3"),
        (STAGE_2, "--fsdp full_shard", "--fsdp does not go together with --deepspeed"),
    ],
)
def test_what_cannot_be_is_refused_by_name(config: Any, words: str, message: str, zero: Any) -> None:
    with pytest.raises(SwiftError) as error:
        zero(config, *words.split())
    assert message in str(error.value)


def test_alone_there_is_nobody_to_share_with(zero: Any) -> None:
    with pytest.raises(SwiftError, match="one process does not go together"):
        zero(STAGE_2, machine=Machine(packages=TWO.packages))
    with pytest.raises(SwiftError, match="needs the package deepspeed"):
        zero(STAGE_2, machine=Machine(world_size=2))
