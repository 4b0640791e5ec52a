"""Which tuner the flags mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from swift.catalog import load_catalog
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.model import plan_model
from swift.plan.tuner import TunerPlan, plan_tuner


def plan(words: str) -> TunerPlan:
    args = parse(["sft", "--model_type", "qwen2-0_5b-instruct", *words.split()])
    return plan_tuner(args, plan_model(args, load_catalog(), Machine()))


def test_lora_by_default() -> None:
    tuner = plan("")
    assert (tuner.sft_type, tuner.target_modules, tuner.dtype) == ("lora", ("DEFAULT",), None)
    assert tuner.default_targets == ("q_proj", "k_proj", "v_proj")
    assert tuner.settings == {
        "r": 8,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "bias": "none",
        "init_lora_weights": True,
        "use_dora": False,
        "use_rslora": False,
    }


def test_every_lora_flag_arrives() -> None:
    words = "--lora_rank 4 --lora_alpha 8 --lora_dropout 0.1 --lora_bias_trainable all --init_lora_weights guassian"
    tuner = plan(words + " --use_dora true --use_rslora true --lora_dtype bf16 --lora_lr_ratio 16 --modules_to_save LN")
    assert (tuner.dtype, tuner.lora_lr_ratio, tuner.modules_to_save) == ("bf16", 16.0, ("LN",))
    assert tuner.settings["init_lora_weights"] == "gaussian" and tuner.settings["bias"] == "all"
    assert (tuner.settings["r"], tuner.settings["lora_alpha"], tuner.settings["lora_dropout"]) == (4, 8, 0.1)
    assert tuner.settings["use_dora"] and tuner.settings["use_rslora"]


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (
            "--sft_type adalora",
            {
                "init_r": 12,
                "target_r": 8,
                "deltaT": 1,
                "beta1": 0.85,
                "beta2": 0.85,
                "orth_reg_weight": 0.5,
                "tinit": 0,
            },
        ),
        ("--sft_type vera", {"r": 256, "d_initial": 0.1, "vera_dropout": 0.0}),
        ("--sft_type boft", {"boft_block_size": 4, "boft_block_num": 0, "boft_n_butterfly_factor": 1}),
        ("--sft_type fourierft", {"n_frequency": 2000, "scaling": 300.0}),
        ("--sft_type ia3 --ia3_feedforward_modules a", {"feedforward_modules": ["a"]}),
    ],
)
def test_other_methods(words: str, settings: dict[str, object]) -> None:
    assert plan(words).settings.items() >= settings.items()


def test_full() -> None:
    words = "--sft_type full --freeze_parameters_ratio 0.5 --freeze_parameters a --additional_trainable_parameters b"
    tuner = plan(words)
    assert (tuner.freeze_parameters_ratio, tuner.freeze_parameters) == (0.5, ("a",))
    assert tuner.additional_trainable_parameters == ("b",)
    assert tuner.summary() == "full, freeze 50%, freeze a, train b"


def test_a_folder_leaves_the_targets_to_the_architecture(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    args = parse(["sft", "--model_id_or_path", str(tmp_path)])
    assert plan_tuner(args, plan_model(args, load_catalog(), Machine())).default_targets is None
