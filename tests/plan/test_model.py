"""Which model the flags mean. No weights, no torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swift.catalog import Catalog, load_catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.model import ModelPlan, RopePlan, plan_dtype, plan_model

GPU = Machine(device="cuda", device_count=2, packages=frozenset({"flash_attn"}))
OLD_GPU = Machine(device="cuda", device_count=1, bf16=False)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as far as a plan looks."""
    model = tmp_path / "my-model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama", "dtype": "bfloat16"}')
    return model


def plan(catalog: Catalog, words: str, machine: Machine | None = None) -> ModelPlan:
    return plan_model(parse(words.split()), catalog, machine or Machine())


def adapter(folder: Path, base: str | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return folder


def test_a_registered_type_brings_its_id(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("USE_HF", raising=False)
    there = plan(catalog, "sft --model_type qwen2-0_5b-instruct")
    assert (there.hub, there.source, there.revision) == ("modelscope", "qwen/Qwen2-0.5B-Instruct", "master")
    monkeypatch.setenv("USE_HF", "1")
    there = plan(catalog, "sft --model_type qwen2-0_5b-instruct")
    assert (there.hub, there.source, there.revision) == ("huggingface", "Qwen/Qwen2-0.5B-Instruct", None)


def test_a_registered_id_brings_its_type(catalog: Catalog) -> None:
    found = plan(catalog, "sft --model_id_or_path Qwen/Qwen2-0.5B-Instruct")
    assert found.model_type == "qwen2-0_5b-instruct" and found.lora_targets == ("q_proj", "k_proj", "v_proj")


def test_a_folder_needs_no_type(catalog: Catalog, folder: Path) -> None:
    found = plan(catalog, f"sft --model_id_or_path {folder}")
    assert (found.model_type, found.hub, found.source, found.entry) == ("my-model", "local", str(folder), None)
    assert found.lora_targets is None
    typed = plan(catalog, f"sft --model_type qwen2-0_5b-instruct --model_id_or_path {folder}")
    assert typed.model_type == "qwen2-0_5b-instruct" and typed.source == str(folder)


def test_a_hub_id_nobody_registered_works(catalog: Catalog) -> None:
    assert plan(catalog, "sft --model_id_or_path some/model").model_type == "model"


def test_a_cache_snapshot_is_called_by_its_repository(catalog: Catalog, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--Name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert plan(catalog, f"sft --model_id_or_path {snapshot}").model_type == "Name"


@pytest.mark.parametrize(
    ("given", "machine", "stored", "dtype"),
    [
        ("AUTO", Machine(), "bf16", "fp32"),
        ("AUTO", GPU, None, "bf16"),
        ("AUTO", GPU, "fp16", "fp16"),
        ("AUTO", OLD_GPU, "bf16", "fp16"),
        ("bf16", Machine(), None, "bf16"),
        ("fp32", GPU, "bf16", "fp32"),
        ("fp16", GPU, "bf16", "fp16"),
    ],
)
def test_dtype(given: str, machine: Machine, stored, dtype: str) -> None:
    assert plan_dtype(given, machine, stored) == dtype


@pytest.mark.parametrize(("given", "machine"), [("fp16", Machine()), ("bf16", OLD_GPU)])
def test_dtype_the_device_does_not_have(given: str, machine: Machine) -> None:
    with pytest.raises(SwiftError) as error:
        plan_dtype(given, machine, None)
    assert error.value.where == "--dtype" and error.value.next


def test_devices(catalog: Catalog, folder: Path) -> None:
    words = f"sft --model_id_or_path {folder}"
    assert plan(catalog, words).device_map is None
    assert plan(catalog, words, GPU).device_map == "auto"
    one = Machine(device="cuda", device_count=2, world_size=2, rank=1, local_rank=1)
    assert plan(catalog, words, one).device_map == {"": "cuda:1"}
    assert plan(catalog, words + ' --device_map_config {"":"cpu"}').device_map == {"": "cpu"}
    assert plan(catalog, words + " --device_max_memory 1GB 2GB", GPU).max_memory == ("1GB", "2GB")
    layers = words + ' --device_map_config {"model.embed_tokens":0,"model.layers":1,"model.norm":1,"lm_head":0}'
    assert "device 0: model.embed_tokens, lm_head; device 1: model.layers" in plan(catalog, layers, GPU).summary()
    with pytest.raises(SwiftError, match="of each process over several devices"):
        plan(catalog, layers, one)
    assert plan(catalog, words + ' --device_map_config {"":0}', one).device_map == {"": 1}
    for place in ("disk", "meta"):
        where = f' --device_map_config {{"model":0,"lm_head":"{place}"}}'
        with pytest.raises(SwiftError, match="puts lm_head where nothing is trained"):
            plan(catalog, words + where, GPU)
        assert plan(catalog, f"infer --model_id_or_path {folder}" + where, GPU).device_map
    with pytest.raises(SwiftError, match="1 values for 2 devices"):
        plan(catalog, words + " --device_max_memory 1GB", GPU)


@pytest.mark.parametrize(
    ("given", "machine", "message"),
    [
        ('{"":"gpu0"}', GPU, "puts the model on 'gpu0', which is no device"),
        ('{"lm_head":true}', GPU, "puts lm_head on True, which is no device"),
        ('{"lm_head":{"a":1}}', GPU, "puts lm_head on {'a': 1}, which is no device"),
        ('{"lm_head":2}', GPU, "puts lm_head on device 2, which is not here"),
        ('{"lm_head":-1}', GPU, "puts lm_head on device -1, which is not here"),
        ('{"lm_head":"cuda:2"}', GPU, "puts lm_head on device cuda:2, which is not here"),
        ('{"lm_head":"mps"}', GPU, "puts lm_head on device mps, which is not here"),
        ('{"":0}', Machine(), "puts the model on device 0, which is not here"),
        ("{}", GPU, "says nothing"),
        ("[0]", GPU, "takes a JSON object"),
    ],
)
def test_a_device_map_that_cannot_be(
    catalog: Catalog, folder: Path, given: str, machine: Machine, message: str
) -> None:
    words = ["infer", "--model_id_or_path", str(folder), "--device_map_config", given]
    with pytest.raises(SwiftError) as error:
        plan_model(parse(words), catalog, machine)
    assert message in str(error.value) and error.value.where == "--device_map_config"


def test_a_device_map_that_can_be(catalog: Catalog, folder: Path) -> None:
    for given in ({"": "cpu"}, {"": "cpu:0"}, {"a": "cuda", "b": "cuda:1", "c": 1, "d": "disk"}):
        words = ["infer", "--model_id_or_path", str(folder), "--device_map_config", json.dumps(given)]
        assert plan_model(parse(words), catalog, GPU).device_map == given


def test_attention(catalog: Catalog, folder: Path) -> None:
    words = f"sft --model_id_or_path {folder}"
    assert plan(catalog, words, GPU).attn == "sdpa"
    assert plan(catalog, words + " --use_flash_attn true", GPU).attn == "flash_attention_2"
    for machine in (Machine(), OLD_GPU):
        with pytest.raises(SwiftError, match="--use_flash_attn true"):
            plan(catalog, words + " --use_flash_attn true", machine)


def test_rope_takes_the_length_that_must_fit(catalog: Catalog, folder: Path) -> None:
    words = f"sft --model_id_or_path {folder} --rope_scaling dynamic --max_length"
    assert plan(catalog, words + " 9000").rope_scaling == RopePlan(kind="dynamic", length=9000)
    with pytest.raises(SwiftError, match="needs to know the length"):
        plan(catalog, words + " -1")


def test_an_adapter_without_saved_arguments_names_its_base(catalog: Catalog, folder: Path, tmp_path: Path) -> None:
    checkpoint = adapter(tmp_path / "adapter", str(folder))
    found = plan(catalog, f"infer --ckpt_dir {checkpoint}")
    assert (found.source, found.adapter) == (str(folder), str(checkpoint))


def test_a_whole_checkpoint_is_its_own_model(catalog: Catalog, folder: Path) -> None:
    (folder / "sft_args.json").write_text(
        '{"model_type": "qwen2", "model_id_or_path": "some/base", "sft_type": "full"}'
    )
    found = plan(catalog, f"infer --ckpt_dir {folder}")
    assert (found.source, found.hub, found.adapter, found.entry) == (str(folder), "local", None, None)


@pytest.mark.parametrize(
    ("words", "what", "next"),
    [
        ("sft", "no model is given", "smollm2-135m-instruct"),
        ("sft --model_id_or_path {tmp}/nope", "there is no folder", None),
        ("sft --model_id_or_path {tmp}/my-modle", "there is no folder", "my-model"),
        ("sft --model_id_or_path {tmp}", "is not a model", "config.json"),
        (
            "infer --model_id_or_path {tmp}/run/checkpoint-2",
            "is an adapter checkpoint",
            "--ckpt_dir {tmp}/run/checkpoint-2",
        ),
        ("sft --model_id_or_path {tmp}/run/checkpoint-2", "is an adapter checkpoint", "--resume_from_checkpoint"),
        ("infer --model_id_or_path {tmp}/run", "is not a model", "--ckpt_dir {tmp}/run/checkpoint-10"),
        ("infer --model_id_or_path {tmp}/trained", "checkpoint of a training run", "--ckpt_dir {tmp}/trained"),
        ("infer --ckpt_dir {tmp}/run", "is not a checkpoint", "--ckpt_dir {tmp}/run/checkpoint-10"),
        ("sft --model_id_or_path {tmp}/my-model --model_kwargs {tmp}/no.json", "neither JSON", None),
    ],
)
def test_mistakes(words: str, what: str, next: str | None, catalog: Catalog, folder: Path, tmp_path: Path) -> None:
    adapter(tmp_path / "run" / "checkpoint-2")
    adapter(tmp_path / "run" / "checkpoint-10")
    trained = tmp_path / "trained"
    trained.mkdir()
    for name in ("config.json", "sft_args.json"):
        (trained / name).write_text("{}")
    with pytest.raises(SwiftError) as error:
        plan(catalog, words.format(tmp=tmp_path))
    assert what in error.value.what
    assert next is None or next.format(tmp=tmp_path) in str(error.value.next)


def test_an_unknown_type_gets_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(SwiftError) as error:
        plan(catalog, "sft --model_type qwen2-0_5-instruct")
    assert "qwen2-0_5b-instruct" in str(error.value.next)


@pytest.mark.parametrize(
    "config",
    [
        '{"model_type": 3}',
        '{"text_config": []}',
        '{"architectures": "a"}',
        '{"quantization_config": [4]}',
        "[" * 9999,
    ],
)
def test_a_configuration_that_no_model_has(catalog: Catalog, folder: Path, config: str) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(SwiftError, match=r"config\.json"):
        plan(catalog, f"infer --model_id_or_path {folder}")


@pytest.mark.parametrize("config", ["[]", '{"base_model_name_or_path": 5}', "[" * 9999])
def test_an_adapter_configuration_that_none_has(catalog: Catalog, tmp_path: Path, config: str) -> None:
    (adapter(tmp_path / "a") / "adapter_config.json").write_text(config)
    with pytest.raises(SwiftError, match=r"adapter_config\.json"):
        plan(catalog, f"infer --ckpt_dir {tmp_path / 'a'}")
