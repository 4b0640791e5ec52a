"""python bench/rows_with_media.py [--rounds N] [--rows N]

What padding costs rows with images: the same rows, half of them with a picture, end to end and padded, through the
collator and the objective of training, forward and backward with LoRA, on LLaVAs of random weights (3M and 160M).
Prints CPU seconds of a step and the ratio, taken in turns, and ends with exit code 1 where end to end is the slower one
or gives another loss.
"""

from __future__ import annotations

import argparse
import base64
import io
import random
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from swift.data.image_files import ImageReader
from swift.data.sound_files import SoundReader
from swift.data.video_files import VideoReader
from swift.models.families import MediaProcessor, Readers
from swift.models.families.llava import Llava
from swift.prompts.types import IGNORED, Media
from swift.training.batches import Collate
from swift.training.objectives.sft import SftObjective
from swift.training.rows_with_media import keep_apart

VOCABULARY, IMAGE, PAD = 8192, 8191, 0
SIDE, PATCH = 112, 14
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "3M": (
        {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
        {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    ),
    "160M": (
        {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9},
        {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8},
    ),
}


def main() -> int:
    """Measure and print. -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=8)
    given = parser.parse_args()
    missed = [_measured(name, given.rounds, given.rows) for name in SIZES]
    return int(any(missed))


def _measured(name: str, rounds: int, count: int) -> bool:
    torch.manual_seed(0)
    text, vision = SIZES[name]
    config = LlavaConfig(
        text_config=LlamaConfig(vocab_size=VOCABULARY, **text),
        vision_config=CLIPVisionConfig(image_size=SIDE, patch_size=PATCH, **vision),
        image_token_index=IMAGE,
    )
    base = LlavaForConditionalGeneration(config)
    adapter = LoraConfig(r=8, target_modules=r".*language_model.*(q|k|v|o|up|down|gate)_proj")
    model: Any = get_peft_model(base, adapter)
    flat = Collate(True, PAD, _images(config), base)
    if not keep_apart(base, flat):
        raise SystemExit("these rows cannot lie end to end")
    objective = SftObjective(base)
    rows = _rows(count)
    ways = {"end to end": flat, "padded": replace(flat, flat=False)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    losses: dict[str, float] = {}
    for _ in range(rounds + 1):
        for way, collate in ways.items():
            start = time.process_time()
            batch = collate(rows)
            total = objective.sums(model, batch).loss
            total.backward()
            seconds[way].append(time.process_time() - start)
            losses[way] = total.item() / len(batch["predicted_at"])
            model.zero_grad()
    tokens = [len(row["input_ids"]) for row in rows]
    mine, theirs = (statistics.median(seconds[way][1:]) for way in ways)
    places = len(tokens) * max(tokens)
    print(f"{name}: {len(rows)} rows of {sum(tokens)} tokens, {1 - sum(tokens) / places:.0%} of the places are padding")
    for way, spent in (("end to end", mine), ("padded", theirs)):
        print(f"  {way:<10} {spent:.3f} s, {len(rows) / spent:.1f} rows/s, loss {losses[way]:.6f}")
    print(f"  {theirs / mine:.2f} times as fast")
    return mine > theirs or abs(losses["end to end"] - losses["padded"]) > 1e-4


def _images(config: LlavaConfig) -> MediaProcessor:
    square = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square)
    image = ImageReader()
    family = Llava(config, processor, "<image>")
    return MediaProcessor(family, processor, Readers(image, VideoReader(image), SoundReader()))


def _rows(count: int) -> list[dict[str, Any]]:
    """Texts of 20 to 400 tokens, every other one with a picture."""
    chance = random.Random(0)
    pieces = (SIDE // PATCH) ** 2
    rows = []
    for number in range(count):
        length = round(20 * 20 ** chance.random())
        shown = Media(images=(_picture(number),)) if number % 2 else Media()
        prompt = [IMAGE] * (pieces * len(shown.images)) + [chance.randrange(1, IMAGE) for _ in range(length)]
        answer = [chance.randrange(1, IMAGE) for _ in range(length // 2 + 1)]
        rows.append({"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer, "media": shown})
    return rows


def _picture(number: int) -> str:
    file = io.BytesIO()
    Image.effect_noise((160 + 8 * number, 120), 90).convert("RGB").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    sys.exit(main())
