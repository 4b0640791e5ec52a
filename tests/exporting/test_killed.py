"""An export that is killed leaves nothing half-made under a final name, and the same command goes on from there."""

from __future__ import annotations

import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.commands.test_merge_lora import adapter
from tests.commands.test_quantize import rows_file
from tests.exporting.gguf_models import small_model
from tests.exporting.gguf_tokenizers import small_tokenizer
from transformers import PreTrainedTokenizerFast

from swift.core.transaction import fault

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow
MERGED, QUANTIZED, CONVERTED = "checkpoint-1-merged", "checkpoint-1-merged-bnb-int8", "checkpoint-1-merged-gguf-f16"
MOMENTS = {
    "the merge begins": f".tmp-{MERGED}",
    "its weights are read again": f".tmp-{MERGED}/model.safetensors",
    "it is about to have its name": f".tmp-{MERGED}/manifest.json",
    "it has it": MERGED,
    "quantized weights are compared": f".tmp-{QUANTIZED}/model.safetensors",
    "they are about to have their name": f".tmp-{QUANTIZED}/manifest.json",
    "they have it": QUANTIZED,
    "the file is written": f".tmp-{CONVERTED}/model.gguf",
    "llama.cpp has answered": f".tmp-{CONVERTED}/gguf_report.json",
    "the file has its name": CONVERTED,
}
"""What is seen when the kill comes."""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Merge, quantize and convert an adapter of a small model, all in `tmp_path`."""
    base = small_tokenizer("smollm", tmp_path / "base")
    small_model("llama, tied", base, len(PreTrainedTokenizerFast.from_pretrained(base)) + 3, hidden_size=256)
    checkpoint = adapter(base, tmp_path / "checkpoint-1", saved_args=True)
    words = ["export", "--ckpt_dir", str(checkpoint), "--merge_lora", "true", "--template_type", "chatml"]
    words += ["--quant_bits", "8", "--quant_method", "bnb", "--dataset", str(rows_file(tmp_path, 60))]
    return [sys.executable, "-m", "swift", *words, "--to_gguf", "f16"]


def killed(command: list[str], when: Callable[[], bool]) -> bool:
    """Run the command and kill it as soon as `when` holds. -> whether it still ran."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not when():
        time.sleep(0.001)
    process.kill()
    return process.wait() == -9


def whole(folder: Path) -> list[str]:
    """The results in `folder`, each of which must be whole."""
    results = [name for name in (MERGED, QUANTIZED, CONVERTED) if (folder / name).exists()]
    assert [fault(folder / name) for name in results] == [None] * len(results)
    return results


def remove(folder: Path) -> None:
    """The results."""
    for name in (MERGED, QUANTIZED, CONVERTED):
        shutil.rmtree(folder / name, ignore_errors=True)


def ends(command: list[str], folder: Path) -> None:
    """The command, given again, comes to its end."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:  # there was nothing left to do
        assert done.returncode == 2 and f"{folder / CONVERTED} exists" in done.stderr, done.stderr
    assert whole(folder) == [MERGED, QUANTIZED, CONVERTED]
    assert not list(folder.glob(".tmp-*"))


def test_at_ten_moments_each_of_which_the_next_run_goes_on_from(command: list[str], tmp_path: Path) -> None:
    hits = 0
    for moment in MOMENTS.values():
        hits += killed(command, (tmp_path / moment).exists)
        if CONVERTED in whole(tmp_path):  # a moment that was too short to be seen: the next one begins anew
            remove(tmp_path)
    assert hits >= len(MOMENTS) - 3
    ends(command, tmp_path)


def test_at_random(command: list[str], tmp_path: Path) -> None:
    rng = random.Random(0)
    begun = time.monotonic()
    ends(command, tmp_path)
    lasts = time.monotonic() - begun
    for _ in range(10):
        remove(tmp_path)
        end = time.monotonic() + rng.uniform(0.2, 1.0) * lasts
        killed(command, lambda end=end: time.monotonic() >= end)
        whole(tmp_path)
    ends(command, tmp_path)


@pytest.mark.parametrize("room", [3_000, 300_000, 2_000_000])
def test_where_no_file_may_be_large(command: list[str], tmp_path: Path, room: int) -> None:
    """As on a full disk: one message, and what came before it is whole."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert done.returncode == 2, done.stderr
    assert "could not be written" in done.stderr or "cannot be written" in done.stderr, done.stderr
    assert "internal error" not in done.stderr
    whole(tmp_path)
    assert not list(tmp_path.glob(".tmp-*"))
