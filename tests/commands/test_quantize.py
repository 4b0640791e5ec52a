"""`swift export --quant_bits` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open
from tests.commands.test_merge_lora import adapter
from tests.exporting.gguf_models import small_model
from tests.exporting.gguf_tokenizers import small_tokenizer
from tests.hub.conftest import small_hub  # noqa: F401  # a fixture
from tests.hub.small_hub import TOKEN, SmallHub
from transformers import PreTrainedTokenizerFast

from swift import models
from swift.cli import main
from swift.core.optional_imports import installed
from swift.plan.model import ModelPlan

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's way with httpx2


def rows_file(folder: Path, count: int) -> Path:
    path = folder / "rows.jsonl"
    rows = ({"query": f"What is {n} and {n + 1}?", "response": f"It is {2 * n + 1}. " * 6} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def words_for(model: Path, rows: Path, target: Path, *more: str) -> list[str]:
    words = ["export", "--model_id_or_path", str(model), "--quant_output_dir", str(target)]
    return [*words, "--dataset", str(rows), "--quant_method", "bnb", "--quant_bits", "4", *more]


def keys_of(folder: Path) -> set[str]:
    keys: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            keys |= set(file.keys())
    return keys


def test_the_result_is_compared_before_it_has_its_name(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, target = rows_file(tmp_path, 60), tmp_path / "quantized"
    words = words_for(tiny_llama_dir, rows, target)
    assert main(words) == 0
    shown = capsys.readouterr().err
    assert all(name in shown for name in ("size ", "perplexity ", "divergence ", "agreement ", "speed "))
    report = json.loads((target / "quantization_report.json").read_text())
    assert report["faults"] == [] and report["kl_divergence"] > 0 and report["held_tokens"] >= 64
    assert report["perplexity"] > 1 and len(report["answers"]) == 4
    assert not any(key.startswith("lm_head") for key in keys_of(target))  # it is tied
    plan = ModelPlan(model_type="tiny", source=str(target), hub="local", dtype="fp32")
    assert models.load_model(plan).config.quantization_config.load_in_4bit

    assert main(words) == 2
    assert f"{target} exists" in capsys.readouterr().err
    assert main(words_for(target, rows, tmp_path / "again")) == 2
    assert "is quantized already (bitsandbytes 4 bit)" in capsys.readouterr().err

    strict = tmp_path / "strict"
    assert main(words_for(tiny_llama_dir, rows, strict, "--quant_max_perplexity_ratio", "1.0")) == 1
    assert "perplexity is 1.0" in capsys.readouterr().err
    assert json.loads((tmp_path / "strict.quantization_report.json").read_text())["faults"]
    assert not strict.exists() and not (tmp_path / ".tmp-strict").exists()


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--quant_bits", "3"), "has no 3 bit"),
        (("--quant_method", "awq", "--quant_bits", "8"), "--quant_method gptq or bnb"),
        (("--quant_method", "awq"), "gptqmodel"),
    ],
)
def test_bits_and_packages_are_known_before_any_work(
    tmp_path: Path, tiny_llama_dir: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], part: str
) -> None:
    if part == "gptqmodel" and installed("gptqmodel"):
        pytest.skip("it is installed")
    words = words_for(tiny_llama_dir, rows_file(tmp_path, 2), tmp_path / "new")
    assert main([*words, *more]) == 2
    assert part in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_too_few_rows_and_an_adapter_are_refused(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_for(tiny_llama_dir, rows_file(tmp_path, 2), tmp_path / "new")) == 2
    assert "too few rows to compare" in capsys.readouterr().err
    checkpoint = adapter(tiny_llama_dir, tmp_path / "checkpoint-1", saved_args=True)
    assert main(["export", "--ckpt_dir", str(checkpoint), "--quant_bits", "4", "--quant_method", "bnb"]) == 2
    assert "--merge_lora true" in capsys.readouterr().err
    words = ["export", "--ckpt_dir", str(checkpoint), "--quant_bits", "4", "--quant_method", "bnb", "--merge_lora"]
    assert main([*words, "true", "--dataset", str(rows_file(tmp_path, 2))]) == 2
    assert "too few rows to compare" in capsys.readouterr().err
    assert not (tmp_path / "checkpoint-1-merged").exists()  # known before the merge


def test_merged_quantized_converted_and_pushed_in_one_command(
    tmp_path: Path,
    small_hub: SmallHub,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("xllamacpp")
    monkeypatch.setenv("USE_HF", "1")
    base = small_tokenizer("smollm", tmp_path / "base")
    small_model("llama, tied", base, len(PreTrainedTokenizerFast.from_pretrained(base)) + 3)
    (base / "README.md").write_text(
        "---\nlicense: other\nlicense_name: my-terms\nlicense_link: LICENSE\n---\nA base.\n"
    )
    (base / "LICENSE").write_text("My terms.\n")
    checkpoint = adapter(base, tmp_path / "checkpoint-1", saved_args=True)
    rows = rows_file(tmp_path, 60)
    words = ["export", "--ckpt_dir", str(checkpoint), "--merge_lora", "true", "--dataset", str(rows)]
    words += ["--quant_bits", "8", "--quant_method", "bnb", "--to_gguf", "f16", "--template_type", "chatml"]
    push = [
        "--push_to_hub",
        "true",
        "--hub_model_id",
        "alice/small",
        "--hub_token",
        TOKEN,
        "--hub_private_repo",
        "true",
    ]
    assert main([*words, *push]) == 0
    quantized, converted = tmp_path / "checkpoint-1-merged-bnb-int8", tmp_path / "checkpoint-1-merged-gguf-f16"
    assert (tmp_path / "checkpoint-1-merged").is_dir()
    repo = small_hub.repos["model", "alice/small"]
    assert repo.private
    assert repo.files["model.gguf"] == (converted / "model.gguf").read_bytes()
    assert repo.files["config.json"] == (quantized / "config.json").read_bytes()
    card = repo.files["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["license_name"] == "my-terms"
    for part in ("## Training", "| method | lora |", "## Quantization", "perplexity", "--quant_bits 8", "my-terms"):
        assert part in card, card
    sent = [*repo.files.values(), capsys.readouterr().err.encode()]
    assert not any(TOKEN.encode() in data for data in sent) and repo.files["LICENSE"] == b"My terms.\n"
    assert "answers" not in json.loads(repo.files["quantization_report.json"])

    # The same command goes on with what is there; other rows are another quantization.
    small_hub.repos.clear()
    assert main([*words, *push]) == 0
    assert capsys.readouterr().err.count("is there already and complete") == 3
    assert small_hub.repos["model", "alice/small"].files.keys() == repo.files.keys()
    rows_file(tmp_path, 70)
    assert main([*words, *push]) == 2
    assert "it is another quantization" in capsys.readouterr().err
    assert main(words) == 2
    assert f"{converted} exists" in capsys.readouterr().err  # known before rows are read
