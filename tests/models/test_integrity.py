"""Damaged model folders are found out before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from swift import models
from swift.core.errors import SwiftError
from swift.models.integrity import check_folder, weight_files
from swift.plan.model import ModelPlan


@pytest.fixture
def folder(tiny_llama_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama_dir, tmp_path / "model"))


def test_a_whole_folder_passes(folder: Path) -> None:
    check_folder(folder)
    assert weight_files(folder) == [folder / "model.safetensors"]


@pytest.mark.parametrize("keep", [4, 40, -8])
def test_a_cut_weight_file(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SwiftError, match="cut short"):
        check_folder(folder)


def test_missing_files(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SwiftError, match=r"00002-of-00002\.safetensors is missing"):
        check_folder(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(SwiftError, match="has no weights"):
        check_folder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(SwiftError, match="cannot be read"):
        check_folder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(SwiftError, match="is not a model"):
        check_folder(folder)


def test_identity_tells_bases_apart(folder: Path, tiny_llama_dir: Path) -> None:
    recorded = models.identity(tiny_llama_dir)
    assert json.loads(json.dumps(recorded)) == recorded
    assert models.same_base(recorded, folder)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert not models.same_base(recorded, folder)


def test_a_copy_in_other_pieces_is_the_same_base(folder: Path, tiny_llama_dir: Path) -> None:
    recorded = json.loads(json.dumps(models.identity(tiny_llama_dir)))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(tensors)}

    def write() -> None:
        for place in set(places.values()):
            save_file({name: tensors[name] for name in tensors if places[name] == place}, folder / place)

    write()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert models.same_base(recorded, folder)
    tensors["model.norm.weight"] += 1e-3
    write()
    assert not models.same_base(recorded, folder)


def test_a_folder_whose_files_are_not_those_that_are_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    with pytest.raises(SwiftError, match="not under the names") as error:
        check_folder(folder)
    assert "model-00001-of-00001.safetensors" in str(error.value.why)
    for text, wrong in (("{", "not JSON"), ("{}", "no index"), ('{"weight_map": []}', "no index"), ("[]", "no index")):
        (folder / "model.safetensors.index.json").write_text(text)
        with pytest.raises(SwiftError, match=wrong):
            check_folder(folder)


def test_damaged_files_of_pytorch(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save({"weight": torch.zeros(1000)}, path)
    check_folder(folder)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:-1], b"", b"<html>not found</html>"):
        path.write_bytes(data)
        with pytest.raises(SwiftError, match="cut short"):
            check_folder(folder)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(SwiftError, match="Git LFS"):
        check_folder(folder)
    torch.save({"weight": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])
    check_folder(folder)  # the old format has no end that could be looked at
    plan = ModelPlan(model_type="tiny", source=str(folder), hub="local", dtype="fp32")
    with pytest.raises(SwiftError, match="cannot be loaded"):
        models.load_model(plan)
