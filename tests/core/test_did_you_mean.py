"""What a path that is not there was probably meant to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from swift.core.did_you_mean import nearby


def test_a_missing_folder_is_like_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "v2.output").touch()
    assert nearby("row.jsonl") == "did you mean rows.jsonl?"
    assert nearby("output/run/checkpoint-1") == f"{tmp_path} holds rows.jsonl, v2.output"
    (tmp_path / "outputs").mkdir()
    assert nearby("output/run/checkpoint-1") == "did you mean outputs?"


def test_one_of_the_other_kind_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").touch()
    assert nearby(tmp_path / "adapter_model.safetensors") == f"it is a file: its folder is {tmp_path}"
    assert nearby(tmp_path) == "it is a folder, which holds adapter_model.safetensors"
