"""`--fsdp` as a plan: transformers' words, those for FSDP1 included, and what does not go together with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.fsdp import FsdpPlan
from swift.plan.sft import plan_sft
from swift.plan.train import TrainPlan

TWO = Machine(world_size=2, local_world_size=2, packages=frozenset({"bitsandbytes"}))


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "rows.jsonl").write_text("")

    def make(*words: str, machine: Machine = TWO) -> TrainPlan:
        given = ["sft", "--model_id_or_path", str(model), "--dataset", str(tmp_path / "rows.jsonl"), *words]
        return plan_sft(parse(given), load_catalog(), machine).train

    return make


@pytest.mark.parametrize(
    ("words", "engine", "first"),
    [
        ("--sft_type full", "", True),
        ("--sft_type full", "--fsdp full_shard", False),
        ("--sft_type full --precompute_ref_log_probs true", "--fsdp full_shard", True),
        ("--num_train_epochs 5", "", True),
        ("--num_train_epochs 5", "--fsdp full_shard", False),
        ("--init_lora_weights pissa", "--fsdp full_shard", True),
    ],
)
def test_a_reference_is_shared_out_and_asked_while_training(
    words: str, engine: str, first: bool, tmp_path: Path
) -> None:
    """One that is the start of the trained weights is asked before, as they are not shared out then."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    given = ["rlhf", "--model_id_or_path", str(tmp_path), "--dataset", str(tmp_path / "config.json")]
    whole = plan_sft(parse([*given, *words.split(), *engine.split()]), load_catalog(), TWO)
    assert whole.alignment is not None and whole.alignment.reference is not None
    assert whole.alignment.reference.asked_first(steps=50, per_epoch=10) is first


@pytest.mark.parametrize(
    ("fsdp", "config", "reshards", "offloads", "layers"),
    [
        ("full_shard", None, True, False, ()),
        ("true", None, True, False, ()),
        ("full_shard auto_wrap", None, True, False, ()),
        ("shard_grad_op,offload", None, False, True, ()),
        ("full_shard", {"reshard_after_forward": False}, False, False, ()),
        ("full_shard", {"fsdp_reshard_after_forward": "SHARD_GRAD_OP"}, False, False, ()),
        (
            "full_shard",
            {"fsdp_version": 1, "fsdp_use_orig_params": True, "sync_module_states": 1},
            True,
            False,
            (),
        ),
        ("full_shard", {"fsdp_offload_params": "true"}, True, True, ()),
        ("full_shard", {"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}, True, False, ("LlamaDecoderLayer",)),
        ("full_shard", {"fsdp_transformer_layer_cls_to_wrap": "A, B"}, True, False, ("A", "B")),
    ],
)
def test_words_of_both_generations(
    fsdp: str, config: Any, reshards: bool, offloads: bool, layers: tuple[str, ...], plan: Any, tmp_path: Path
) -> None:
    (tmp_path / "fsdp.json").write_text(json.dumps(config))
    given = [[], ["--fsdp_config", json.dumps(config)], ["--fsdp_config", str(tmp_path / "fsdp.json")]]
    for words in given[1:] if config else given[:1]:
        train = plan("--fsdp", fsdp, *words)
        assert train.fsdp == FsdpPlan(reshards=reshards, offloads=offloads, layers=layers)
        assert train.shards_weights and train.pack_frozen is False


def test_without_the_flag_nothing_is_shared_out(plan: Any) -> None:
    assert plan().fsdp is None and not plan().shards_weights
    assert plan("--fsdp", "false").fsdp is None


def test_activations_are_computed_again_where_the_configuration_says_so(plan: Any) -> None:
    config = ["--fsdp", "full_shard", "--fsdp_config", '{"activation_checkpointing": true}']
    assert plan(*config).recompute is True
    with pytest.raises(SwiftError, match="--gradient_checkpointing says false"):
        plan(*config, "--gradient_checkpointing", "false")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--fsdp full_shards", "did you mean full_shard?"),
        ("--fsdp no_shard", "every process has all weights then"),
        ("--fsdp hybrid_shard", "use --fsdp full_shard"),
        ("--fsdp full_shard,shard_grad_op", "says two things"),
        ('--fsdp full_shard --fsdp_config {"reshard_after_froward":true}', "did you mean `reshard_after_forward`?"),
        ('--fsdp full_shard --fsdp_config {"xla":true}', "`xla` is nothing that a run goes by"),
        ('--fsdp full_shard --fsdp_config {"cpu_offload":"much"}', "neither true nor false"),
        ('--fsdp full_shard --fsdp_config {"reshard_after_forward":"often"}', "neither true nor false"),
        ('--fsdp_config {"cpu_offload":true}', "add --fsdp full_shard"),
        ("--fsdp full_shard --sft_type adalora", "--sft_type adalora does not go together with --fsdp"),
        ("--fsdp full_shard --quantization_bit 4", "--quantization_bit is not built yet with --fsdp"),
        ("--fsdp full_shard --torch_compile true", "--torch_compile is not built yet with --fsdp"),
        ('--fsdp full_shard --device_map_config {"":"cpu"}', "--device_map_config does not go together with --fsdp"),
    ],
)
def test_what_cannot_be_is_refused_by_name(words: str, message: str, plan: Any) -> None:
    with pytest.raises(SwiftError) as error:
        plan(*words.split())
    assert message in str(error.value)


def test_alone_there_is_nobody_to_share_with(plan: Any) -> None:
    with pytest.raises(SwiftError, match="one process does not go together"):
        plan("--fsdp", "full_shard", machine=Machine())
