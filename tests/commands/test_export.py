"""`swift export --to_ollama true` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.commands.test_merge_lora import adapter

from swift.cli import main


def exported(folder: Path) -> dict[str, str]:
    """First word -> rest of the line, of the Modelfile in `folder`."""
    lines = (folder / "Modelfile").read_text().splitlines()
    return {word: rest for word, _, rest in (line.partition(" ") for line in lines)}


def test_a_model(tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model_id_or_path", str(tiny_llama_dir), "--template_type", "chatml", "--to_ollama", "true"]
    target = tmp_path / "for-ollama"
    assert main(["export", *words, "--ollama_output_dir", str(target)]) == 0
    assert exported(target)["FROM"] == str(tiny_llama_dir)
    assert exported(target)["PARAMETER"] == 'stop "<|im_end|>"'
    assert f"-f {target / 'Modelfile'}" in capsys.readouterr().err

    assert main(["export", *words, "--ollama_output_dir", str(target)]) == 2
    assert "exists" in capsys.readouterr().err


def test_an_adapter_is_merged_first(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = adapter(tiny_llama_dir, tmp_path / "checkpoint-1", saved_args=True)
    assert main(["export", "--ckpt_dir", str(checkpoint), "--template_type", "chatml", "--to_ollama", "true"]) == 0
    weights = Path(exported(tmp_path / "tiny-llama-ollama")["FROM"])
    assert weights == tmp_path / "checkpoint-1-merged"
    assert (weights / "merge_report.json").is_file()


def test_a_template_that_does_not_go_is_said_before_the_merge(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = adapter(tiny_llama_dir, tmp_path / "checkpoint-1", saved_args=True)
    words = ["--ckpt_dir", str(checkpoint), "--ollama_output_dir", str(tmp_path / "new")]
    assert main(["export", *words, "--template_type", "chatglm2", "--to_ollama", "true"]) == 2
    assert "the number of the turn" in capsys.readouterr().err
    assert not (tmp_path / "checkpoint-1-merged").exists()


def test_a_chat_template_of_the_tokenizer(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model_id_or_path", str(tiny_llama_dir), "--ollama_output_dir", str(tmp_path / "new")]
    assert main(["export", *words, "--to_ollama", "true"]) == 2
    assert "--template_type" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
