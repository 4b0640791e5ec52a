"""What only works on a GPU, by the command line: kernels and quantized bases give the losses of a plain run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swift.cli import main
from swift.core.optional_imports import installed

CASES = {
    "bf16": ("", "torch", 0.02),
    "flash attention": ("--use_flash_attn true", "flash_attn", 0.02),
    "Liger": ("--use_liger true", "liger_kernel", 0.02),
    "compiled layers": ("--torch_compile true", "torch", 0.02),
    "recomputed activations": ("--gradient_checkpointing true", "torch", 0.02),
    "padded batches": ("--micro_batching said", "torch", 0.02),
    "4 bit, bitsandbytes": ("--quantization_bit 4 --quant_method bnb", "bitsandbytes", 0.1),
    "8 bit, bitsandbytes": ("--quantization_bit 8 --quant_method bnb", "bitsandbytes", 0.1),
    "4 bit, HQQ": ("--quantization_bit 4 --quant_method hqq", "hqq", 0.1),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text(
        "".join(json.dumps({"query": f"Say {i}", "response": "so " * (i % 7) + f"{i}"}) + "\n" for i in range(64))
    )
    return file


def losses(model: Path, rows: Path, run: Path, *more: str) -> list[float]:
    words = ["--model_id_or_path", str(model), "--dataset", str(rows), "--output_dir", str(run)]
    words += ["--add_output_dir_suffix", "false", "--max_steps", "6", "--logging_steps", "1", "--learning_rate", "1e-3"]
    words += ["--dataset_test_ratio", "0", "--lora_dropout", "0", "--report_to", "none", "--batch_size", "8"]
    assert main(["sft", *words, *more]) == 0
    events = map(json.loads, (run / "logging.jsonl").read_text().splitlines())
    return [event["loss"] for event in events if "loss" in event]


@pytest.fixture(scope="module")
def plain(tiny_llama_dir: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return losses(tiny_llama_dir, rows, tmp_path_factory.mktemp("plain") / "run", "--dtype", "fp32")


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_a_plain_run(
    case: str, plain: list[float], tiny_llama_dir: Path, rows: Path, tmp_path: Path
) -> None:
    flags, package, tolerance = CASES[case]
    if not installed(package):
        pytest.skip(f"{package} is not installed")
    found = losses(tiny_llama_dir, rows, tmp_path / "run", "--dtype", "bf16", *flags.split())
    assert found == pytest.approx(plain, rel=tolerance)
    assert found[-1] < found[0], "it learns"
