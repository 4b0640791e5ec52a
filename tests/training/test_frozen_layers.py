"""Frozen layers packed for oneDNN: the numbers of plain ones, forward and backward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.kit import LORA, tiny_model

from swift import tuners
from swift.cli import main
from swift.engines.packed_linear import PackedLinear, multiplies_bf16, packed_dtypes
from swift.plan.tuner import TunerPlan
from swift.training.frozen_layers import BothWays, pack_frozen, packing_bytes

NUMBERS = ("loss", "grad_norm", "eval_loss")


@pytest.mark.parametrize("dtype", sorted(packed_dtypes(), key=str))
@pytest.mark.parametrize("bias", [False, True])
def test_logits_and_gradients_are_those_of_plain_layers(bias: bool, dtype: torch.dtype) -> None:
    model = tuners.attach(tiny_model(attention_bias=bias).to(dtype), LORA)
    ids = torch.arange(40)[None] * 7 % 500

    def numbers() -> list[torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", enabled=dtype is torch.bfloat16):
            logits = model(input_ids=ids).logits.float()
        logits.square().mean().backward()
        return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    plain, weights = numbers(), sum(p.nbytes for p in model.parameters() if not p.requires_grad and p.dim() == 2)
    assert 0 < packing_bytes(model) < weights
    pack_frozen(model)
    packed = numbers()
    assert len(packed) == len(plain) > 1
    for mine, theirs in zip(packed, plain, strict=True):
        assert (mine - theirs).norm() <= (1e-5 if dtype is torch.float32 else 0.01) * theirs.norm()


@pytest.mark.parametrize("shape", [(1,), (5,), (1, 1), (1, 5), (2, 3)])
def test_what_a_layer_answers_may_be_added_to_in_place(shape: tuple[int, ...]) -> None:
    plain = torch.nn.Linear(6, 4).requires_grad_(False)
    packed = PackedLinear(plain, BothWays)
    gradients = []
    for layer in (plain, packed):
        states = torch.arange(6.0).repeat(*shape, 1).requires_grad_()
        layer(states).add_(1).square().sum().backward()
        gradients.append(states.grad)
    torch.testing.assert_close(*gradients)


def test_what_is_trained_and_the_head_stay_plain() -> None:
    tuner = TunerPlan(sft_type="lora", modules_to_save=("down_proj",), settings=dict(LORA.settings))
    model = tuners.attach(tiny_model(), tuner)
    pack_frozen(model)
    base: Any = tuners.base_model(model)
    layer = base.model.layers[0]
    assert isinstance(layer.mlp.gate_proj, PackedLinear)
    assert isinstance(layer.self_attn.q_proj.base_layer, PackedLinear)
    assert type(layer.mlp.down_proj.modules_to_save["default"]) is torch.nn.Linear
    assert type(base.lm_head) is torch.nn.Linear


def logged(run: Path) -> list[list[float]]:
    """The numbers that a run has logged."""
    lines = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    return [[line[name] for name in NUMBERS if name in line] for line in lines if {"loss", "eval_loss"} & set(line)]


@pytest.mark.parametrize(
    "sft_type", ["lora", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("ia3", "vera", "adapter", "reft"))]
)
def test_a_run_logs_the_same_and_its_checkpoint_keeps_the_choice(
    sft_type: str, tiny_llama_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"Say {i}", "response": f"it is {i * i}"}) + "\n" for i in range(40)))
    flags = ["sft", "--model_id_or_path", str(tiny_llama_dir), "--dataset", str(rows), "--lora_dropout", "0"]
    flags += ["--add_output_dir_suffix", "false", "--max_steps", "2", "--logging_steps", "1", "--report_to", "none"]
    flags += ["--sft_type", sft_type, "--eval_steps", "2", "--learning_rate", "1e-3"]
    for value in ("true", "false"):
        assert main([*flags, "--output_dir", str(tmp_path / value), "--pack_frozen_layers", value]) == 0
        printed = capfd.readouterr()
        assert ("frozen layers are kept" in printed.out + printed.err) == (value == "true")
        assert (
            json.loads((tmp_path / value / "checkpoint-2" / "sft_args.json").read_text())["pack_frozen_layers"] == value
        )
    packed, plain = logged(tmp_path / "true"), logged(tmp_path / "false")
    assert len(packed) == 3
    for mine, theirs in zip(packed, plain, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize(("steps", "packs"), [(1, False), (9, True)])
def test_a_run_packs_where_it_is_long_enough(
    steps: int, packs: bool, tiny_llama_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"Say {i}", "response": f"it is {i * i}"}) + "\n" for i in range(40)))
    flags = [
        "--dataset",
        str(rows),
        "--max_steps",
        str(steps),
        "--output_dir",
        str(tmp_path / "run"),
        "--report_to",
        "none",
    ]
    assert main(["sft", "--model_id_or_path", str(tiny_llama_dir), *flags]) == 0
    said = capfd.readouterr().err
    assert ("frozen layers are kept" in said) == packs
    assert ("--dtype bf16 may be quicker" in said) == (packs and multiplies_bf16())


@pytest.mark.parametrize("words", ["--sft_type full", "--use_dora true", "--sft_type boft", "--torch_compile true"])
def test_what_cannot_be_packed_is_refused(words: str, tiny_llama_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["sft", "--model_id_or_path", str(tiny_llama_dir), "--dataset", "alpaca-en", *words.split()]
    assert main([*flags, "--pack_frozen_layers", "true"]) == 2
    assert "has nothing to pack" in capfd.readouterr().err
