"""`swift export --to_ollama true` from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.commands.test_merge_lora import adapter
from tests.exporting.gguf_models import small_model
from tests.exporting.gguf_tokenizers import small_tokenizer
from transformers import PreTrainedTokenizerFast

from swift.cli import main

pytest.importorskip("xllamacpp")


def exported(folder: Path) -> list[str]:
    """The lines of the Modelfile in `folder`, without those of its template."""
    return [line for line in (folder / "Modelfile").read_text().splitlines() if line.startswith(("FROM", "PARAMETER"))]


@pytest.fixture
def small_dir(tmp_path: Path) -> Path:
    folder = small_tokenizer("smollm", tmp_path / "small")
    return small_model("llama, biases", folder, len(PreTrainedTokenizerFast.from_pretrained(folder)) + 3)


def test_a_model(small_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.05, "eos_token_id": [2, 3]}
    (small_dir / "generation_config.json").write_text(json.dumps(own))
    words = ["--model_id_or_path", str(small_dir), "--template_type", "chatml", "--to_ollama", "true"]
    words += ["--stop_words", "###", "--top_k", "20"]
    target = tmp_path / "for-ollama"
    assert main(["export", *words, "--ollama_output_dir", str(target), "--to_gguf", "f32"]) == 0
    assert exported(target) == [
        "FROM ./model.gguf",
        *(f'PARAMETER stop "{stop}"' for stop in ("<|im_end|>", "Observation:", "<|im_start|>", "###")),
        *("PARAMETER temperature 0.7", "PARAMETER top_k 20", "PARAMETER top_p 0.8", "PARAMETER repeat_penalty 1.05"),
        "PARAMETER num_ctx 1024",
    ]
    files = {"Modelfile", "README.md", "gguf_report.json", "manifest.json", "model.gguf"}
    assert {path.name for path in target.iterdir()} == files
    assert json.loads((target / "gguf_report.json").read_text())["type"] == "f32"
    assert f"-f {target / 'Modelfile'}" in capsys.readouterr().err

    assert main(["export", *words, "--ollama_output_dir", str(target)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["export", *words, "--gguf_output_dir", str(tmp_path / "x")]) == 2
    assert "lies beside the Modelfile" in capsys.readouterr().err


def test_a_model_that_makes_no_gguf_file_is_left_where_it_is(
    small_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((small_dir / "config.json").read_text())
    (small_dir / "config.json").write_text(json.dumps({**config, "architectures": ["HeliumForCausalLM"]}))
    words = ["--model_id_or_path", str(small_dir), "--template_type", "chatml", "--to_ollama", "true"]
    assert main(["export", *words, "--ollama_output_dir", str(tmp_path / "new")]) == 0
    assert exported(tmp_path / "new")[0] == f"FROM {small_dir}"
    assert "makes no GGUF file here" in capsys.readouterr().err


def test_an_adapter_is_merged_first(
    small_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "My Run").mkdir()
    for name in ("checkpoint-1", "checkpoint-2"):
        checkpoint = adapter(small_dir, tmp_path / "My Run" / name, saved_args=True)
        words = [
            "--ckpt_dir",
            str(checkpoint.relative_to(tmp_path)),
            "--template_type",
            "chatml",
            "--to_ollama",
            "true",
        ]
        assert main(["export", *words]) == 0
        folder = checkpoint.with_name(f"{name}-ollama")
        report = json.loads((folder / "gguf_report.json").read_text())
        assert Path(report["source"]).name == f"{name}-merged"
        assert f"ollama create my-run-{name} -f '{folder}/Modelfile'" in capsys.readouterr().err
    assert main(["export", *words, "--merge_lora", "true"]) == 0  # a folder named by what is merged
    folder = folder.with_name("checkpoint-2-merged-ollama")
    assert f"ollama create my-run-checkpoint-2-merged -f '{folder}/Modelfile'" in capsys.readouterr().err
    assert main(["export", *words, "--merge_lora", "true"]) == 2 and "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--to_ollama", "true", "--template_type", "chatglm2"], "the number of the turn"),
        (["--to_ollama", "true"], "would not cut text as this tokenizer does"),
        (["--to_gguf", "f16"], "would not cut text as this tokenizer does"),
    ],
)
@pytest.mark.parametrize("merge", [[], ["--merge_lora", "true"], ["--merge_lora", "true", "--quant_bits", "8"]])
def test_what_does_not_convert_is_said_before_the_merge(
    small_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], merge: list[str], more: list[str], message: str
) -> None:
    checkpoint = adapter(small_dir, tmp_path / "checkpoint-1", saved_args=True)
    described = json.loads((small_dir / "tokenizer.json").read_text())
    described["pre_tokenizer"]["pretokenizers"][0].update(individual_digits=False)
    (small_dir / "tokenizer.json").write_text(json.dumps(described))
    words = ["export", "--ckpt_dir", str(checkpoint), "--template_type", "chatml", *merge, *more]
    words += ["--quant_method", "bnb"] if "--quant_bits" in words else []
    words += ["--ollama_output_dir", str(tmp_path / "new")] if "--to_ollama" in words else []
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "checkpoint-1-merged").exists() and not (tmp_path / "new").exists()


def test_a_chat_template_of_the_tokenizer(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model_id_or_path", str(tiny_llama_dir), "--ollama_output_dir", str(tmp_path / "new")]
    assert main(["export", *words, "--to_ollama", "true"]) == 2
    assert "next: --template_type chatml writes the same prompts\n" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert main(["export", *words, "--to_ollama", "true", "--template_type", "deepseek2"]) == 2
    assert "writes the token 100000, which this tokenizer has not" in capsys.readouterr().err
    own = tmp_path / "own"
    shutil.copytree(tiny_llama_dir, own)
    (own / "chat_template.jinja").write_text("{% for m in messages %}<{{ m.role }}> {{ m.content }}{% endfor %}")
    words = ["--model_id_or_path", str(own), "--ollama_output_dir", str(tmp_path / "new")]
    assert main(["export", *words, "--to_ollama", "true"]) == 2
    assert "no registered template writes the same prompts; --to_gguf q8_0" in capsys.readouterr().err
