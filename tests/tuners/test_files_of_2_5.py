"""Folders as the 2.5 release writes them, made here by its formulas, and ours beside them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tuners.conftest import Plans
from tests.tuners.test_behaviour import logits, train
from torch import Tensor, nn

from swift import models, tuners
from swift.tuners.adapter_saving import Card

KINDS = ("Loreft", "Noreft", "Consreft", "Lobireft", "Direft", "Nodireft")
WIDTH, RANK = 32, 4


def orthogonal() -> nn.Module:
    return nn.utils.parametrizations.orthogonal(nn.Linear(RANK, WIDTH, bias=False))


def file_of_pyreft(kind: str) -> dict[str, Tensor]:
    """What pyreft 0.1 saves of one intervention, at random."""
    source = {"weight": torch.randn(RANK, WIDTH), "bias": torch.randn(RANK)}
    rotation = orthogonal()
    if kind == "Loreft":
        return {**source, "rotate_layer": rotation.weight.detach().clone()}
    buffers = {"embed_dim": torch.tensor(WIDTH), "interchange_dim": torch.tensor(WIDTH)}
    if kind in ("Consreft", "Lobireft"):
        learned = {"learned_source": torch.randn(RANK)}
    else:
        learned = {f"learned_source.{name}": tensor for name, tensor in source.items()}
    if kind in ("Noreft", "Nodireft"):
        return {**buffers, **learned, "proj_layer.weight": torch.randn(RANK, WIDTH)}
    rotated = {f"rotate_layer.{name}": tensor.clone() for name, tensor in rotation.state_dict().items()}
    return {**buffers, **learned, **rotated}


def intervened(hidden: Tensor, kind: str, file: Mapping[str, Tensor]) -> Tensor:
    """The formulas of pyreft's interventions."""
    if "proj_layer.weight" in file:
        inward = file["proj_layer.weight"]
    elif kind == "Loreft":
        inward = file["rotate_layer"].T
    else:
        rotation = orthogonal()
        own = {n.removeprefix("rotate_layer."): t for n, t in file.items() if n.startswith("rotate_layer.")}
        rotation.load_state_dict(own)
        inward = rotation.weight.T
    prefix = "" if kind == "Loreft" else "learned_source."
    constant = file.get("learned_source")
    change = hidden @ file[f"{prefix}weight"].T + file[f"{prefix}bias"] if constant is None else constant
    return hidden + (change - hidden @ inward.T if kind in ("Loreft", "Noreft", "Consreft") else change) @ inward


def write_folder(folder: Path, kind: str, names: str) -> dict[int, dict[str, Tensor]]:
    """A checkpoint of two layers; `names` is how its files are called. -> what is in them."""
    (folder / "reft").mkdir(parents=True)
    fields = {"swift_type": "REFT", "model_type": "llama", "layer_key": None, "layers": None, "r": RANK}
    fields |= {"intervention_type": f"{kind}Intervention", "args": {"add_bias": False} if "N" in kind else {}}
    (folder / "reft" / "adapter_config.json").write_text(json.dumps({**fields, "model_key_mapping": None}))
    files = {number: file_of_pyreft(kind) for number in range(2)}
    for number, file in files.items():
        torch.save(file, folder / "reft" / names.format(number))
    return files


NAMES = {
    "Loreft": "intkey_layer.{0}.comp.model.layers[{0}].output.unit.pos.nunit.1#0.bin",
    "Noreft": "intkey_comp.model.layers[{0}].output.unit.pos.nunit.1#0.bin",
    "Consreft": "intkey_comp_model_layers[{0}]_output_unit_pos_nunit_1#0.bin",
    "Lobireft": "intkey_layer_{0}_comp_block_output_unit_pos_nunit_1#0.bin",
    "Direft": "intkey_layer.{0}.repr.block_output.unit.pos.nunit.1#0.bin",
    "Nodireft": "intkey_comp_model_layers[{0}]_output_unit_pos_nunit_1#0.bin",
}


@pytest.mark.parametrize("kind", KINDS)
def test_reft(kind: str, small_llama: Path, plans: Plans, tmp_path: Path) -> None:
    torch.manual_seed(0)
    files = write_folder(tmp_path / "theirs", kind, NAMES[kind])
    plan, tuner = plans(small_llama, "--sft_type", "reft", "--tuner_backend", "swift")
    base: Any = models.load_model(plan)
    for number, layer in enumerate(base.model.layers):
        layer.register_forward_hook(lambda _, __, output, file=files[number]: intervened(output, kind, file))
    expected = logits(base)
    again = tuners.load(models.load_model(plan), tmp_path / "theirs")
    torch.testing.assert_close(logits(again), expected, atol=1e-5, rtol=0)

    tuned = tuners.load(models.load_model(plan), tmp_path / "theirs", trainable=True)
    train(tuned)
    (tmp_path / "ours").mkdir()
    tuners.save(tuned, tmp_path / "ours", Card(model=plan, tuner=tuner))
    ours = tmp_path / "ours" / "reft"
    written = {n: ours / f"intkey_comp_model_layers[{n}]_output_unit_pos_nunit_1#0.bin" for n in range(2)}
    (ours / "adapter_model.safetensors").unlink()
    assert {*ours.iterdir()} == {ours / "adapter_config.json", *written.values()}
    base = models.load_model(plan)
    for number, layer in enumerate(base.model.layers):
        file = torch.load(written[number])
        assert file.keys() == files[number].keys()
        layer.register_forward_hook(lambda _, __, output, file=file: intervened(output, kind, file))
    torch.testing.assert_close(logits(base), logits(tuned), atol=1e-5, rtol=0)
    again = tuners.load(models.load_model(plan), tmp_path / "ours")
    torch.testing.assert_close(logits(again), logits(tuned), atol=1e-5, rtol=0)


def test_a_rotation_of_zeros(small_llama: Path, plans: Plans, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """2.5 leaves such after a step with weight decay. It answers as the base; nothing could learn from it."""
    write_folder(tmp_path, "Loreft", NAMES["Loreft"])
    for path in (tmp_path / "reft").glob("*.bin"):
        file = torch.load(path)
        learned = {name: tensor.bfloat16() for name, tensor in file.items()}
        torch.save({**learned, "rotate_layer": torch.zeros(WIDTH, RANK)}, path)
    plan, _ = plans(small_llama)
    torch.testing.assert_close(logits(tuners.load(models.load_model(plan), tmp_path)), logits(models.load_model(plan)))
    with caplog.at_level(logging.WARNING, "swift"):
        tuned = tuners.load(models.load_model(plan), tmp_path, trainable=True)
    assert "its rotation is zero" in caplog.text
    train(tuned)
    assert all(parameter.isfinite().all() for parameter in tuned.parameters())
    assert not torch.equal(logits(tuned), logits(models.load_model(plan)))


def test_adapters_lie_where_2_5_has_them(small_llama: Path, plans: Plans, tmp_path: Path) -> None:
    for sft_type, folder in (("adapter", "default"), ("reft", "reft")):
        plan, tuner = plans(small_llama, "--sft_type", sft_type)
        (tmp_path / sft_type).mkdir()
        tuners.save(tuners.attach(models.load_model(plan), tuner), tmp_path / sft_type, Card(model=plan, tuner=tuner))
        assert {path.name for path in (tmp_path / sft_type / folder).iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
        }
        assert not (tmp_path / sft_type / "additional_config.json").exists()
    config = json.loads((tmp_path / "adapter" / "default" / "adapter_config.json").read_text())
    theirs = {"dim": WIDTH, "hidden_pos": 0, "method_name": "forward", "target_modules": ["mlp"], "act_layer": "gelu"}
    assert config.items() >= {**theirs, "adapter_length": 128, "swift_type": "ADAPTER"}.items()
    tensors = load_file(tmp_path / "adapter" / "default" / "adapter_model.safetensors")
    assert {name for name in tensors if ".0." in name} == {
        f"model.layers.0.mlp.adapter_default.linear{number}.{part}" for number in (1, 2) for part in ("weight", "bias")
    }


def test_boft_with_its_permutations(small_llama: Path, plans: Plans, tmp_path: Path) -> None:
    plan, tuner = plans(small_llama, "--sft_type", "boft")
    tuned = tuners.attach(models.load_model(plan), tuner)
    train(tuned)
    tuners.save(tuned, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    permutations = {name.replace("boft_R", "boft_P"): torch.eye(WIDTH)[None] for name in tensors if "boft_R" in name}
    save_file({**tensors, **permutations}, path)
    torch.testing.assert_close(logits(tuners.load(models.load_model(plan), tmp_path)), logits(tuned))


def test_vera_takes_what_is_shaped_as_the_values(
    small_llama: Path, plans: Plans, caplog: pytest.LogCaptureFixture
) -> None:
    def trained(*flags: str) -> set[str]:
        plan, tuner = plans(small_llama, "--sft_type", "vera", *flags)
        with caplog.at_level(logging.INFO, "swift"):
            tuned = tuners.attach(models.load_model(plan), tuner)
        names = [name for name, parameter in tuned.named_parameters() if parameter.requires_grad]
        return {name.partition(".vera_lambda")[0].rpartition(".")[2] for name in names}

    assert trained() == {"k_proj", "v_proj"}
    assert "leaves q_proj out" in caplog.text
    assert trained("--target_modules", "q_proj", "v_proj") == {"q_proj", "v_proj"}
