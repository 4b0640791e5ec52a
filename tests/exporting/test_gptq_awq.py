"""GPTQ and AWQ by gptqmodel, which `make test-slow` installs apart. It works in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands.test_quantize import keys_of, rows_file
from tests.exporting.gguf_models import small_model
from tests.exporting.gguf_tokenizers import small_tokenizer
from transformers import PreTrainedTokenizerFast

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gptqmodel") is None, reason="`make test-slow` runs these with gptqmodel"),
]
WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_key_value_heads": 4}


def model(folder: Path, name: str = "llama, tied", **settings: Any) -> Path:
    small_tokenizer("smollm", folder)
    return small_model(name, folder, len(PreTrainedTokenizerFast.from_pretrained(folder)) + 3, **settings)


def words_for(source: Path, rows: Path, target: Path, method: str, bits: int, *more: str) -> list[str]:
    words = ["export", "--model_id_or_path", str(source), "--template_type", "chatml", "--dataset", str(rows)]
    words += ["--quant_method", method, "--quant_bits", str(bits), "--quant_n_samples", "40"]
    return [*words, "--quant_output_dir", str(target), *more]


def swift(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "swift", *words], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("method", "bits", "name", "settings"),
    [
        ("gptq", 4, "llama, tied", {}),
        ("gptq", 4, "qwen2", {}),
        ("gptq", 8, "llama, biases", {}),
        ("gptq", 3, "qwen3", {}),
        ("gptq", 2, "gemma2", {}),
        ("awq", 4, "llama, tied", WIDE),
        ("awq", 4, "qwen2", WIDE),
    ],
)
def test_the_result_answers_and_holds_what_it_needs(
    method: str, bits: int, name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    before = torch.__version__
    source, rows = model(tmp_path / "model", name, **settings), rows_file(tmp_path, 60)
    target = tmp_path / "quantized"
    done = swift(words_for(source, rows, target, method, bits, "--quant_max_perplexity_ratio", "1000"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "quantized layer 2 of 2" in done.stderr and " s left" in done.stderr
    report = json.loads((target / "quantization_report.json").read_text())
    assert report["faults"] == [] and report["calibration_rows"] == 40 and report["group_size"] in (32, 64, 128)
    assert report["perplexity_ratio"] < {2: 100, 3: 2}.get(bits, 1.3)
    keys = keys_of(target)
    assert any(key.endswith("q_proj.qweight") for key in keys)
    assert not any(key.endswith("q_proj.weight") for key in keys)
    config = json.loads((target / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == method
    assert ("lm_head.weight" in keys) is not config["tie_word_embeddings"]
    assert {path.name for path in target.iterdir()} >= {"README.md", "manifest.json", "tokenizer.json"}
    assert not (target / "work").exists() and not (target / "quant_log.csv").exists()
    words = ["infer", "--ckpt_dir", str(target), "--template_type", "chatml", "--val_dataset", str(rows)]
    words += ["--max_new_tokens", "4", "--show_dataset_sample", "2", "--result_dir", str(tmp_path / "answers")]
    answer = swift(words)
    assert answer.returncode == 0, answer.stderr
    assert "GPT-QModel" not in answer.stdout
    assert torch.__version__ == before


def test_what_awq_cannot_take_is_said_before(tmp_path: Path) -> None:
    source, rows = model(tmp_path / "model"), rows_file(tmp_path, 60)
    done = swift(words_for(source, rows, tmp_path / "quantized", "awq", 4))
    assert done.returncode == 2
    assert "awq does not quantize the layers" in done.stderr and "multiples of 64" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "rows.jsonl"]


def test_killed_it_leaves_no_process_and_begins_anew(tmp_path: Path) -> None:
    source, rows, target = model(tmp_path / "model"), rows_file(tmp_path, 60), tmp_path / "quantized"
    words = words_for(source, rows, target, "gptq", 4)
    request = tmp_path / ".tmp-quantized" / "work" / "request.json"
    process = subprocess.Popen([sys.executable, "-m", "swift", *words], stderr=subprocess.DEVNULL)
    while not request.exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert children and not target.exists()
    end = time.monotonic() + 20
    while any(_lives(pid) for pid in children):
        assert time.monotonic() < end
        time.sleep(0.1)
    done = swift(words)
    assert done.returncode == 0, done.stderr
    assert not request.exists() and (target / "manifest.json").is_file()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
