"""`--infer_backend llamacpp` from the command line: made once, merged, quantized as asked, and refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.commands.test_infer import written
from tests.commands.test_merge_lora import adapter
from tests.exporting.gguf_models import small_model
from tests.exporting.gguf_tokenizers import small_tokenizer
from transformers import PreTrainedTokenizerFast

from swift.catalog import load_catalog
from swift.cli import main
from swift.core.machine import Machine
from swift.models.gguf.architectures import ARCHITECTURES
from swift.params.parse import parse
from swift.plan.gguf import CONVERTED
from swift.plan.infer import plan_infer

pytest.importorskip("xllamacpp")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = small_tokenizer("qwen2", tmp_path / "model")
    return small_model("qwen2", folder, len(PreTrainedTokenizerFast.from_pretrained(folder)) + 3)


def test_an_adapter_answers_as_with_pytorch(
    model: Path, user_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = adapter(model, tmp_path / "checkpoint-1", saved_args=True)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"query": text}) for text in ("What is red?", "你好 🙂", "1 2 3")) + "\n")
    words = ["infer", "--ckpt_dir", str(checkpoint), "--template_type", "chatml", "--val_dataset", str(rows)]
    words += ["--max_new_tokens", "12", "--dtype", "fp32"]

    def answers(*more: str) -> list[str]:
        results = tmp_path / "-".join(("results", *more)).replace("/", "_")
        assert main([*words, "--result_dir", str(results), *more]) == 0
        return [row["response"] for row in written(results)]

    expected = answers("--infer_backend", "pt")
    assert "--infer_backend llamacpp is installed and faster" not in capsys.readouterr().err  # it was named
    assert answers("--infer_backend", "llamacpp") == expected
    first = capsys.readouterr().err
    assert "engine:  llamacpp, GGUF f32, " in first and "converting" in first
    assert answers("--infer_backend", "llamacpp", "--max_length", "500") == expected
    assert "converting" not in capsys.readouterr().err
    files = [path for path in (user_cache / "swift" / "gguf").glob("tiny-llama-*/*") if path.is_file()]
    assert {path.name for path in files} == {"model.gguf", "gguf_report.json", "manifest.json"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--quantization_bit", "3"], "has no 3 bits"),
        (["--quantization_bit", "4", "--quant_method", "bnb"], "quantizes in its own way"),
        (["--num_beams", "2"], "does no beam search"),
        (["--max_model_len", "4000"], "more than the 1024 positions"),
    ],
)
def test_what_it_cannot_do_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "Hi"}\n')
    words = ["infer", "--model_id_or_path", str(model), "--template_type", "chatml", "--infer_backend", "llamacpp"]
    assert main([*words, "--val_dataset", str(rows), "--result_dir", str(tmp_path / "r"), *more]) == 2
    assert message in capsys.readouterr().err


def test_it_is_proposed_by_name_on_a_cpu(model: Path) -> None:
    words = ["infer", "--model_id_or_path", str(model)]
    installed = Machine(packages=frozenset({"xllamacpp"}))
    hint = "--infer_backend llamacpp is installed and faster on a CPU"
    for machine, more, told in (
        (installed, [], True),
        (Machine(), [], False),
        (Machine(device="cuda", device_count=1, packages=installed.packages), [], False),
        (installed, ["--infer_backend", "pt"], False),
        (installed, ["--num_beams", "2"], False),
    ):
        plan = plan_infer(parse([*words, *more]), load_catalog(), machine)
        assert plan.engine.backend == "pt"
        assert (hint in plan.summary()) == told
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["OlmoForCausalLM"]}))
    assert hint not in plan_infer(parse(words), load_catalog(), installed).summary()


def test_a_gguf_file_is_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In llama.cpp itself, and unpacked in PyTorch and for another export; the answers are those of its origin."""
    folder = small_tokenizer("qwen2", tmp_path / "model")
    model = small_model("qwen2", folder, len(PreTrainedTokenizerFast.from_pretrained(folder)) + 3, rope_parameters=None)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "What is red?"}\n{"query": "1 2 3 🙂"}\n')
    chatml = ["--template_type", "chatml"]
    words = ["export", "--model_id_or_path", str(model), *chatml, "--to_gguf", "f32"]
    assert main([*words, "--gguf_output_dir", str(tmp_path / "out")]) == 0
    file = tmp_path / "out" / "model.gguf"

    def answers(name: str, source: Path, *more: str) -> list[str]:
        command = ["infer", "--model_id_or_path", str(source), *chatml, "--val_dataset", str(rows), *more]
        assert main([*command, "--max_new_tokens", "8", "--result_dir", str(tmp_path / name)]) == 0
        return [row["response"] for row in written(tmp_path / name)]

    expected = answers("a", model, "--dtype", "fp32")
    assert answers("b", file, "--infer_backend", "llamacpp") == expected
    assert "converting" not in capsys.readouterr().err
    assert len(answers("c", file)) == 2
    again = ["export", "--gguf_file", str(file), *chatml, "--to_gguf", "bf16", "--gguf_output_dir"]
    assert main([*again, str(tmp_path / "again")]) == 0
    assert main([*again, str(tmp_path / "x"), "--model_id_or_path", str(model)]) == 2
    assert "two places" in capsys.readouterr().err
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(file.read_bytes()[:1000])
    assert main(["infer", "--model_id_or_path", str(broken), "--val_dataset", str(rows)]) == 2
    assert "cannot be read as a model" in capsys.readouterr().err


def test_types_of_the_file(model: Path) -> None:
    words = ["infer", "--model_id_or_path", str(model), "--infer_backend", "llamacpp"]
    types = {"": "f16", "--quantization_bit 8": "q8_0", "--quantization_bit 4": "q4_0", "--dtype bf16": "bf16"}
    for more, type in types.items():
        plan = plan_infer(parse([*words, *more.split()]), load_catalog(), Machine())
        assert (plan.engine.gguf_type, plan.model.quant) == (type, None)


def test_the_names_that_convert() -> None:
    assert tuple(ARCHITECTURES) == CONVERTED
