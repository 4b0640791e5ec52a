"""Which quantization the flags mean, and what is refused before torch is imported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from swift.catalog import Catalog, load_catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.infer import plan_infer
from swift.plan.merge import plan_merge
from swift.plan.model import ModelPlan, plan_model
from swift.plan.quantization import QuantPlan
from swift.plan.sft import plan_sft

CPU = Machine(packages=frozenset({"bitsandbytes", "hqq"}))
GPU = Machine(device="cuda", device_count=1, packages=frozenset({"bitsandbytes", "hqq", "kernels", "vllm"}))
BARE = Machine()


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def folder(place: Path, quantization: dict[str, object] | None = None) -> Path:
    """A model folder as far as a plan looks."""
    place.mkdir(parents=True)
    config = {"model_type": "llama", "dtype": "bfloat16"}
    (place / "config.json").write_text(
        json.dumps(config | ({"quantization_config": quantization} if quantization else {}))
    )
    return place


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return folder(tmp_path / "model")


def plan(catalog: Catalog, words: str, machine: Machine = CPU) -> ModelPlan:
    return plan_model(parse(words.split()), catalog, machine)


BNB = QuantPlan(method="bnb", bits=4, compute_dtype="fp32")


@pytest.mark.parametrize(
    ("words", "machine", "expected"),
    [
        ("", CPU, None),
        ("--quantization_bit 4", CPU, BNB),
        ("--quantization_bit 8", CPU, replace(BNB, bits=8)),
        ("--quantization_bit 4", GPU, replace(BNB, compute_dtype="bf16")),
        ("--quantization_bit 4 --dtype bf16 --bnb_4bit_comp_dtype fp32", CPU, BNB),
        ("--quantization_bit 4 --bnb_4bit_quant_type fp4", CPU, replace(BNB, quant_type="fp4")),
        ("--quantization_bit 4 --bnb_4bit_use_double_quant false", CPU, replace(BNB, double_quant=False)),
        ("--quantization_bit 4 --bnb_4bit_quant_storage bfloat16", CPU, replace(BNB, storage="bfloat16")),
        ("--quantization_bit 3 --quant_method hqq --hqq_axis 1", CPU, replace(BNB, method="hqq", bits=3, axis=1)),
        ("--quant_method hqq", CPU, replace(BNB, method="hqq", bits=8)),
        ("--quant_method hqq --quantization_bit 0", CPU, None),
        ("--quant_method eetq", GPU, QuantPlan(method="eetq", bits=8)),
    ],
)
@pytest.mark.parametrize("command", ["sft", "infer"])
def test_flags(
    catalog: Catalog, model: Path, command: str, words: str, machine: Machine, expected: QuantPlan | None
) -> None:
    found = plan(catalog, f"{command} --model_id_or_path {model} {words}", machine).quant
    kernels_for_answers = found is not None and found.method == "torch"
    assert kernels_for_answers or found == expected
    assert kernels_for_answers == (
        command == "infer" and words in ("--quantization_bit 4", "--quantization_bit 8") and machine is CPU
    )


@pytest.mark.parametrize("command", ["infer", "deploy", "app-ui"])
@pytest.mark.parametrize("bits", [4, 8])
def test_answers_on_a_cpu_have_kernels_of_their_own(catalog: Catalog, model: Path, command: str, bits: int) -> None:
    words = f"{command} --model_id_or_path {model} --quantization_bit {bits}"
    found = plan(catalog, words, BARE)  # they need no package
    assert (found.quant, found.dtype) == (QuantPlan(method="torch", bits=bits), "bf16")
    assert f"{bits} bit by PyTorch's kernels" in found.summary()
    for more in ("--quant_method bnb", "--dtype fp32", "--bnb_4bit_quant_type fp4"):
        other = plan(catalog, f"{words} {more}").quant
        assert other is not None and other.method == "bnb", more
    assert plan(catalog, words, GPU).quant == QuantPlan(method="bnb", bits=bits)


def test_an_adapter_answers_on_the_base_it_was_trained_on(catalog: Catalog, model: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-2"
    checkpoint.mkdir()
    (checkpoint / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    saved = {"model_id_or_path": str(model), "quantization_bit": 4, "quant_method": "bnb", "dtype": "fp32"}
    (checkpoint / "sft_args.json").write_text(json.dumps(saved))
    assert plan(catalog, f"infer --ckpt_dir {checkpoint}").quant == BNB


@pytest.mark.parametrize(
    ("words", "machine", "what", "next"),
    [
        ("--quantization_bit 3", CPU, "bnb has no 3 bit", "--quant_method hqq has it"),
        ("--quantization_bit 4 --quant_method eetq", GPU, "eetq has no 4 bit", "--quant_method bnb"),
        ("--quantization_bit 8 --quant_method eetq", CPU, "needs an NVIDIA GPU", "--quant_method bnb"),
        (
            "--quantization_bit 4 --quant_method bnb",
            BARE,
            "`bitsandbytes`, which is not installed",
            "swift-llm[quant-bnb]",
        ),
        ("--quant_method hqq", BARE, "`hqq`, which is not installed", "swift-llm[quant-hqq]"),
        ("--quantization_bit 4 --quant_method awq", CPU, "awq does not quantize while it loads", "published"),
        ("--quant_method bnb", CPU, "needs to know the bits", "--quantization_bit 4 or 8"),
        ("--quant_method gptq", CPU, "is not quantized", "published in gptq"),
        ("--quantization_bit 4 --bnb_4bit_comp_dtype fp16", CPU, "fp16 does not work on a CPU", "bf16 or fp32"),
        ("--quantization_bit 4 --bnb_4bit_quant_storage uint3", CPU, "uint3 is no dtype", None),
    ],
)
def test_what_cannot_work(
    catalog: Catalog, model: Path, words: str, machine: Machine, what: str, next: str | None
) -> None:
    with pytest.raises(SwiftError) as error:
        plan(catalog, f"infer --model_id_or_path {model} {words}", machine)
    assert what in error.value.what
    assert next is None or next in str(error.value.next)


def test_a_method_that_is_stored_may_be_said(catalog: Catalog, tmp_path: Path) -> None:
    stored = folder(tmp_path / "quantized", {"quant_method": "gptq", "bits": 4})
    assert plan(catalog, f"infer --model_id_or_path {stored} --quant_method gptq").quant is None
    with pytest.raises(SwiftError, match="is quantized with gptq"):
        plan(catalog, f"sft --model_id_or_path {stored} --quant_method awq")


def test_layers_of_hqq(catalog: Catalog, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "layers.json"
    file.write_text(json.dumps({"q_proj": {"nbits": 4}, "mlp.up_proj": {"nbits": 2, "group_size": 32, "axis": 1}}))
    words = f"infer --model_id_or_path {model} --quant_method hqq --hqq_dynamic_config_path {file}"
    found = plan(catalog, words).quant
    assert found is not None and found.bits == 4
    assert found.layers == {
        "q_proj": {"nbits": 4, "group_size": 64, "axis": 0},
        "mlp.up_proj": {"nbits": 2, "group_size": 32, "axis": 1},
    }
    for text, given in (('{"a": {"bits": 4}}', "bits is not known"), ('{"a": {"nbits": 7}}', "nbits is 7"), ("[]", "")):
        file.write_text(text)
        with pytest.raises(SwiftError) as error:
            plan(catalog, words)
        assert given in str(error.value.why or "")


@pytest.mark.parametrize(
    ("config", "machine", "what"),
    [
        ({"quant_method": "gptq", "bits": 4}, CPU, "`gptqmodel`"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, BARE, "`bitsandbytes`"),
        ({"quant_method": "eetq"}, CPU, "NVIDIA GPU"),
        ({"quant_method": "hqq"}, CPU, "HQQ"),
    ],
)
def test_folders_that_are_quantized(
    catalog: Catalog, tmp_path: Path, config: dict[str, object], machine: Machine, what: str
) -> None:
    place = folder(tmp_path / "stored", config)
    for words in (f"infer --model_id_or_path {place}", f"sft --model_id_or_path {place} --dataset {tmp_path}/x.jsonl"):
        args = parse(words.split())
        with pytest.raises(SwiftError) as error:
            plan_infer(args, catalog, machine) if args.command == "infer" else plan_sft(args, catalog, machine)
        assert what in error.value.what
    if machine is CPU:
        with pytest.raises(SwiftError, match="quantized already"):
            plan(catalog, f"infer --model_id_or_path {place} --quantization_bit 4", machine)


def test_models_of_the_catalog_that_are_quantized(catalog: Catalog) -> None:
    words = "infer --model_type qwen2_5-7b-instruct-gptq-int4"
    assert str(plan(catalog, words).stored_quant) == "gptq 4 bit"
    with pytest.raises(SwiftError) as error:
        plan_infer(parse(words.split()), catalog, CPU)
    assert "`gptqmodel`" in error.value.what and "quant-gptq" in str(error.value.next)
    # vLLM reads such weights by itself.
    assert plan_infer(parse([*words.split(), "--infer_backend", "vllm"]), catalog, GPU).engine.backend == "vllm"


def test_vllm_does_not_quantize_while_it_loads(catalog: Catalog, model: Path) -> None:
    words = f"infer --model_id_or_path {model} --quantization_bit 4 --infer_backend"
    with pytest.raises(SwiftError, match="vllm does not quantize"):
        plan_infer(parse([*words.split(), "vllm"]), catalog, GPU)
    assert plan_infer(parse([*words.split(), "AUTO"]), catalog, GPU).engine.backend == "pt"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("--sft_type full", "full"),
        ("--sft_type boft", "boft does not work on weights quantized with bnb"),
        ("--init_lora_weights pissa", "pissa does not work on a quantized base"),
        ("--init_lora_weights olora", "olora does not work on a quantized base"),
        ("--quant_method hqq --sft_type ia3", "ia3 does not work on weights quantized with hqq"),
        ("--quant_method hqq --lora_bias_trainable all", "biases of HQQ layers"),
    ],
)
def test_tuners_that_need_the_weights(catalog: Catalog, model: Path, words: str, what: str) -> None:
    args = parse(f"sft --model_id_or_path {model} --dataset x.jsonl --quantization_bit 4 {words}".split())
    with pytest.raises(SwiftError) as error:
        plan_sft(args, catalog, CPU)
    assert what in str(error.value)


def test_full_tuning_of_a_quantized_folder(catalog: Catalog, tmp_path: Path) -> None:
    place = folder(tmp_path / "stored", {"quant_method": "bitsandbytes", "load_in_8bit": True})
    args = parse(f"sft --model_id_or_path {place} --dataset x.jsonl --sft_type full".split())
    with pytest.raises(SwiftError, match=r"cannot train a quantized model .bitsandbytes 8 bit"):
        plan_sft(args, catalog, CPU)


def checkpoint(place: Path, base: Path, **saved: object) -> Path:
    place.mkdir()
    (place / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    (place / "sft_args.json").write_text(json.dumps({"model_id_or_path": str(base), "sft_type": "lora", **saved}))
    return place


def test_a_checkpoint_brings_its_quantization(catalog: Catalog, model: Path, tmp_path: Path) -> None:
    place = checkpoint(tmp_path / "adapter", model, quantization_bit=4, quant_method="hqq", hqq_axis=1, dtype="fp32")
    found = plan(catalog, f"infer --ckpt_dir {place}").quant
    assert found == replace(BNB, method="hqq", axis=1)
    assert plan(catalog, f"infer --ckpt_dir {place} --quantization_bit 0").quant is None
    assert plan(catalog, f"infer --ckpt_dir {place} --quantization_bit 8 --quant_method bnb").quant == replace(
        BNB, bits=8, axis=1
    )


def test_a_merge_takes_the_base_itself(catalog: Catalog, model: Path, tmp_path: Path) -> None:
    place = checkpoint(tmp_path / "adapter", model, quantization_bit=4, quant_method="bnb", dtype="fp32")
    merge = plan_merge(parse(["merge-lora", "--ckpt_dir", str(place)]), catalog, BARE)
    assert merge.model.quant is None and "in 4 bit" in merge.summary()
    whole = checkpoint(tmp_path / "of-whole", model, dtype="fp32")
    merge = plan_merge(parse(["merge-lora", "--ckpt_dir", str(whole), "--quantization_bit", "4"]), catalog, BARE)
    for place, wrong in (("cuda:7", "device cuda:7, which is not here"), ("gpu", "'gpu', which is no device")):
        with pytest.raises(SwiftError, match=f"--merge_device_map puts the model on {wrong}"):
            plan_merge(parse(["merge-lora", "--ckpt_dir", str(whole), "--merge_device_map", place]), catalog, BARE)
    assert "--quantization_bit 4 is not followed" in merge.summary() and "trained" not in merge.summary()


def test_nothing_is_merged_into_quantized_weights(catalog: Catalog, tmp_path: Path) -> None:
    stored = folder(tmp_path / "stored", {"quant_method": "gptq", "bits": 4})
    place = checkpoint(tmp_path / "adapter", stored)
    with pytest.raises(SwiftError) as error:
        plan_merge(parse(["merge-lora", "--ckpt_dir", str(place)]), catalog, CPU)
    assert "gptq 4 bit" in error.value.what and f"swift infer --ckpt_dir {place}" in str(error.value.next)
