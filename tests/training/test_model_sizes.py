"""Sizes that are computed without torch are those that the model itself shows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from swift.catalog import load_catalog
from swift.core.machine import Machine
from swift.models.context_window import context_length
from swift.models.known_decoders import FAMILIES, from_config
from swift.params.parse import parse
from swift.plan.sft import SftPlan, plan_sft
from swift.training.meta_model import measured
from swift.training.model_sizes import known_sizes
from swift.training.row_order import row_order
from swift.training.varlen_attention import keep_inside_sequences

TOKENS = 50
SIZES = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TUNERS = [
    ["--lora_dropout", "0.05"],
    ["--target_modules", "ALL", "--lora_dropout", "0.05", "--lora_rank", "5"],
    ["--target_modules", "ALL", "--lora_dropout", "0", "--use_rslora", "true"],
    ["--target_modules", "down_proj", "--lora_dropout", "0"],
    ["--sft_type", "full"],
]


def saved_config(folder: Path, kind: str, **fields: Any) -> Path:
    """A model folder with a configuration of this type."""
    architecture = FAMILIES[kind].architecture
    CONFIG_MAPPING[kind](architectures=[architecture], **{**SIZES, **fields}).save_pretrained(folder)
    return folder


def training_plan(folder: Path, *words: str) -> SftPlan:
    """The plan of a run on the model in `folder`."""
    rows = folder / "rows.jsonl"
    rows.touch()
    given = ["--model_id_or_path", str(folder), "--template_type", "chatml", "--dataset", str(rows), *words]
    return plan_sft(parse(["sft", *given]), load_catalog(), Machine())


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("grouped", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["grouped", "plain"])
def test_they_are_those_of_the_model(kind: str, grouped: bool, tmp_path: Path) -> None:
    fields: dict[str, Any] = {} if grouped else {"num_key_value_heads": 6}
    fields["tie_word_embeddings"] = FAMILIES[kind].tied if grouped else not FAMILIES[kind].tied
    if "attention_bias" in FAMILIES[kind].may_have_bias:
        fields["attention_bias"] = not grouped
    if kind == "gemma":
        fields["head_dim"] = 24
    folder = saved_config(tmp_path, kind, **fields)
    ways = [("fp32", "false"), ("bf16", "true")] if grouped else [("fp32", "true"), ("bf16", "false")]
    for (dtype, recompute), tuner in product(ways, TUNERS):
        plan = training_plan(folder, "--dtype", dtype, "--gradient_checkpointing", recompute, *tuner)
        sizes = known_sizes(plan, folder, TOKENS)
        assert sizes is not None
        assert sizes == measured(plan, folder, TOKENS, 10), (dtype, recompute, tuner)


def test_they_are_those_of_a_pass_with_numbers(tmp_path: Path) -> None:
    folder = saved_config(tmp_path, "llama")
    plan = training_plan(folder, "--sft_type", "full", "--gradient_checkpointing", "false")
    sizes = known_sizes(plan, folder, TOKENS)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["llama"].from_pretrained(folder))
    assert sizes is not None and keep_inside_sequences(model)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept.setdefault(place, tensor)
        return tensor

    ids = torch.zeros((1, TOKENS), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.train()(
            input_ids=ids, position_ids=ids, use_cache=False, sequence_lengths=(TOKENS,), logits_to_keep=1
        )
    everything = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert output.logits.requires_grad
    assert everything + everything // 3 == pytest.approx(sizes.activations, rel=0.01)


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_is_unsaid_is_what_the_configuration_class_takes(kind: str) -> None:
    left_out = ("num_key_value_heads", "pad_token_id", "bos_token_id", "eos_token_id")
    said: dict[str, Any] = {name: size for name, size in SIZES.items() if name not in left_out}
    said |= {"hidden_size": 128, "num_attention_heads": 32, "max_position_embeddings": 64, "sliding_window": None}
    config = CONFIG_MAPPING[kind](**said)
    decoder = from_config({**said, "model_type": kind, "architectures": [FAMILIES[kind].architecture]})
    assert decoder is not None
    assert decoder.kv_heads == config.num_key_value_heads
    assert decoder.head_dim == (getattr(config, "head_dim", None) or 4)
    assert decoder.tied == config.tie_word_embeddings
    assert decoder.context_length == context_length(config)


UNKNOWN: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("another class", lambda c: c.update(architectures=["LlamaForSequenceClassification"])),
    ("another model", lambda c: c.update(model_type="llama4")),
    ("another activation", lambda c: c.update(hidden_act="relu")),
    ("dropout", lambda c: c.update(attention_dropout=0.1)),
    ("quantized", lambda c: c.update(quantization_config={"quant_method": "gptq"})),
    ("no size", lambda c: c.pop("intermediate_size")),
    ("a size of another kind", lambda c: c.update(intermediate_size="160")),
    ("heads that do not fit", lambda c: c.update(num_key_value_heads=4)),
    ("stretched positions", lambda c: c.update(rope_parameters={"rope_type": "yarn", "factor": 4.0})),
    ("half of the positions", lambda c: c.update(partial_rotary_factor=0.5)),
    ("layers of two kinds", lambda c: c.update(layer_types=["full_attention", "sliding_attention"])),
]


@pytest.mark.parametrize(("name", "change"), UNKNOWN, ids=[name for name, _ in UNKNOWN])
def test_what_is_not_known_is_not_guessed(name: str, change: Callable[[dict[str, Any]], None]) -> None:
    config = {**SIZES, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64}
    assert from_config(config) is not None
    change(config)
    assert from_config(config) is None


@pytest.mark.parametrize(
    "words",
    [
        ["--use_dora", "true"],
        ["--lora_bias_trainable", "all"],
        ["--lora_modules_to_save", "EMBEDDING"],
        ["--target_modules", "EMBEDDING"],
        ["--target_modules", "no_such_layer"],
        ["--target_regex", r".*q_proj"],
        ["--lora_dtype", "bf16"],
        ["--sft_type", "adalora"],
        ["--sft_type", "full", "--freeze_parameters_ratio", "0.5"],
        ["--sft_type", "full", "--use_galore", "true"],
        ["--model_kwargs", '{"rms_norm_eps": 1e-5}'],
    ],
    ids=" ".join,
)
def test_other_tuners_are_measured(words: list[str], tmp_path: Path) -> None:
    folder = saved_config(tmp_path, "llama")
    assert known_sizes(training_plan(folder), folder, TOKENS) is not None
    assert known_sizes(training_plan(folder, *words), folder, TOKENS) is None


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1, 2**32 + 5])
@pytest.mark.parametrize("rows", [0, 1, 2, 1000])
def test_rows_come_in_the_order_of_torch(rows: int, seed: int) -> None:
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist()
    assert row_order(rows, seed) == order
