"""python bench/vision.py [--images N] [--workers N] [--rounds N]

What images cost a training, in one run: JPEGs of 640x480 pixels decoded and resized to 448x336 by our reader, which
checks and keeps them, and by Pillow alone, with the same number of processes; the second epoch over the same files; and
a step of LoRA on a LLaVA of 86M + 135M random weights with the tower's features computed and kept, in one thread, as
threads that wait for each other count as work. Prints ratios of CPU time, which other programs on the machine change
little, and ends with exit code 1 when a bar is missed: preparing at least 0.8 of Pillow's speed, a second epoch that
reads no source file, a step with kept features at most 0.85, with the same loss.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from swift.data.bounded_store import BoundedStore
from swift.data.image_files import ImageReader
from swift.data.pixel_cache import PixelCache
from swift.models.families.llava import Llava
from swift.training.vision_features import TowerCache

SIZE = 448, 336
BICUBIC = Image.Resampling.BICUBIC
PREPARING, STEP = 0.8, 0.85


def main() -> int:
    """Measure and print. -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        missed = _preparing(Path(folder), given.images, given.workers, given.rounds)
        missed |= _second_epoch(Path(folder), given.images, given.workers)
        missed |= _steps(Path(folder), given.rounds)
    return int(missed)


def photographs(folder: Path, count: int) -> list[Path]:
    """JPEGs with as much in them as photographs have: 50 to 100 kB."""
    random, paths = np.random.default_rng(0), []
    for number in range(count):
        rough = Image.fromarray(random.integers(0, 255, (60, 80, 3), dtype=np.uint8)).resize((640, 480), BICUBIC)
        paths.append(folder / f"{number}.jpg")
        rough.save(paths[-1], quality=92)
    return paths


Made = tuple[bytes, float]
"""A digest of the pixels, and the CPU seconds they took."""


def _bare(path: Path) -> Made:
    start = time.process_time()
    with Image.open(path) as image:
        made = image.convert("RGB").resize(SIZE, BICUBIC)
    return _digest(made, start)


def _ours(pixels: Path, path: Path) -> Made:
    start = time.process_time()
    reader = _reader(pixels)
    reader.size(str(path))  # as encoding does
    return _digest(reader.prepared(str(path), SIZE, BICUBIC), start)


@lru_cache
def _reader(pixels: Path) -> ImageReader:
    """One for each process, as data workers have it."""
    return ImageReader(cache=PixelCache(BoundedStore(pixels)))


def _digest(image: Image.Image, start: float) -> Made:
    seconds = time.process_time() - start
    return hashlib.sha256(image.tobytes()).digest(), seconds


def _rate(pool: ProcessPoolExecutor, work: Any, paths: list[Path]) -> tuple[float, list[bytes]]:
    """Images per second of CPU time, and what came out."""
    digests, seconds = zip(*pool.map(work, paths, chunksize=8), strict=True)
    return len(paths) / sum(seconds), list(digests)


def _preparing(folder: Path, count: int, workers: int, rounds: int) -> bool:
    """Whether the bar of the first epoch is missed."""
    paths, ratios = photographs(folder, count), []
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(_bare, paths[:workers]))
        list(pool.map(partial(_ours, folder / "warm"), paths[:workers]))
        for number in range(rounds):
            pixels = folder / f"pixels-{number}"
            for each in range(256):  # a cache makes its folders once, for all images there will be
                (pixels / f"{each:02x}").mkdir(parents=True)
            bare, expected = _rate(pool, _bare, paths)
            ours, digests = _rate(pool, partial(_ours, pixels), paths)
            assert digests == expected, "other pixels than Pillow's"
            ratios.append(ours / bare)
            print(
                f"load {os.getloadavg()[0]:.1f}, images per CPU second: Pillow {bare:.0f}, ours {ours:.0f}", flush=True
            )
    ratio = statistics.median(ratios)
    print(f"preparing: {ratio:.2f} of Pillow ({', '.join(f'{each:.2f}' for each in ratios)}; bar {PREPARING})")
    return ratio < PREPARING


def _second_epoch(folder: Path, count: int, workers: int) -> bool:
    """Whether any source file is read in it: they hold other bytes by then, and look from outside as they did."""
    paths = [folder / f"{number}.jpg" for number in range(count)]
    pixels = folder / "pixels-0"
    expected = [_bare(path)[0] for path in paths]
    for path in paths:
        state = path.stat()
        path.write_bytes(bytes(state.st_size))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    reader = partial(_again, pixels)
    with ProcessPoolExecutor(workers) as pool:
        rate, digests = _rate(pool, reader, paths)
    same = digests == expected
    said = "no source file is read" if same else "SOURCE FILES ARE READ"
    print(f"second epoch: {rate:.0f} images per CPU second, {said}")
    return not same


def _again(pixels: Path, path: Path) -> Made:
    start = time.process_time()
    return _digest(_reader(pixels).prepared(str(path), SIZE, BICUBIC), start)


def _model() -> Any:
    tower = CLIPVisionConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    tower.image_size, tower.patch_size = 224, 16
    text = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=tower, text_config=text, image_token_index=49151)
    targets = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
    return get_peft_model(LlavaForConditionalGeneration(config), LoraConfig(target_modules=targets, r=8))


def _steps(folder: Path, rounds: int) -> bool:
    """Whether the bar of a step with kept features is missed."""
    torch.set_num_threads(1)
    model, kept = _model(), _model()
    base = kept.base_model.model
    TowerCache(base.model.vision_tower, Llava.layers_read(base.config), folder / "features")
    ids = torch.randint(0, 49000, (2, 218))
    ids[:, 5:201] = 49151
    batch = {"input_ids": ids, "labels": ids.masked_fill(ids == 49151, -100)}
    batch["pixel_values"] = torch.randn(2, 3, 224, 224)
    times: dict[str, list[float]] = {"computed": [], "kept": []}
    losses: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, each in (("computed", model), ("kept", kept)):
            start = time.process_time()
            loss = each(**batch).loss
            loss.backward()
            each.zero_grad()
            if number:  # the first computes the features
                times[name].append(time.process_time() - start)
            losses[name] = float(loss.detach())
    ratios = [a / b for a, b in zip(times["kept"], times["computed"], strict=True)]
    ratio, apart = statistics.median(ratios), abs(losses["kept"] - losses["computed"])
    seconds = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"step with kept features: {ratio:.2f} of {seconds['computed']:.2f} CPU seconds (bar {STEP}), "
        f"loss {losses['kept']:.6f}, {apart:.1e} apart"
    )
    return ratio > STEP or apart > 1e-4


if __name__ == "__main__":
    sys.exit(main())
