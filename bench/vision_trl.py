"""python bench/vision_trl.py [--images N] [--batch N] [--epochs N] [--rounds N] [--small]

Fine-tuning on rows with one photograph each: `swift sft` and TRL, one after the other in processes of their own, on the
same LLaVA of 86M + 135M random weights, the same JPEGs of 640x480 pixels and the same LoRA, fp32, tower frozen, in one
thread. Prints rows per CPU second of the last epoch, in which we read kept features and TRL decodes and computes again,
of the first, and the peak memory; by the clock a step takes as long as other programs let it, and threads
that wait for each other count as work. Ends with exit code 1 where the last epoch is not at least 1.15 times as fast as
TRL's. `--small` tries the program on a model of some layers and says nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from loops.watch import watch
from train import smollm2
from vision import photographs

BAR = 1.15
PARTS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main() -> int:
    """Run both, print the ratios. -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model, rows = _model(work / "model", small=given.small), _rows(work, given.images)
        found: dict[str, list[tuple[float, float, float]]] = {"swift": [], "trl": []}
        for number in range(given.rounds):
            for name, runs in found.items():
                runs.append(_run(name, work / f"{name}{number}", rows, model, given))
                first, last, memory = runs[-1]
                speeds = f"{first:6.2f} rows per CPU second at first, {last:6.2f} in the last epoch"
                print(f"{name:6} {speeds}, {memory:5.2f} GiB")
    ratios = [ours[1] / theirs[1] for ours, theirs in zip(found["swift"], found["trl"], strict=True)]
    ratio = statistics.median(ratios)
    print(f"last epoch: {ratio:.2f} of TRL ({', '.join(f'{each:.2f}' for each in ratios)}; bar {BAR})")
    return int(ratio < BAR and not given.small)


def _model(folder: Path, *, small: bool) -> Path:
    """A LLaVA with random weights, and the tokenizer of SmolLM2 with a token for images."""
    tokenizer: Any = AutoTokenizer.from_pretrained(smollm2(), extra_special_tokens={"image_token": "<image>"})
    tokenizer.chat_template = PARTS
    tower = CLIPVisionConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    tower.image_size, tower.patch_size = 224, 16
    text = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=len(tokenizer),
        tie_word_embeddings=True,
    )
    if small:
        tower.num_hidden_layers = text.num_hidden_layers = 2
    torch.manual_seed(0)
    image = tokenizer.convert_tokens_to_ids("<image>")
    LlavaForConditionalGeneration(
        LlavaConfig(vision_config=tower, text_config=text, image_token_index=image)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}}
    processor["crop_size"] = {"height": 224, "width": 224}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def _rows(folder: Path, count: int) -> Path:
    path = folder / "rows.jsonl"
    rows = [
        {"query": "<image>What is to be seen here?", "response": "Blurred colours.", "images": [str(image)]}
        for image in photographs(folder, count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _run(name: str, folder: Path, rows: Path, model: Path, given: argparse.Namespace) -> tuple[float, float, float]:
    """Rows per CPU second of the first and of the last epoch, by the median step, and the peak memory in GiB."""
    folder.mkdir()
    each = given.images // given.batch
    steps = str(each * given.epochs)
    if name == "trl":
        loop = str(Path(__file__).parent / "loops" / "trl_vision.py")
        command = [sys.executable, loop, str(model), str(rows), str(folder), steps, str(given.batch)]
        log = folder / "steps.jsonl"
    else:
        command = [sys.executable, "-m", "swift", "sft", *_flags(model, rows, folder, steps, given)]
        log = folder / "logging.jsonl"
    began = time.monotonic()
    events, memory, _ = watch(command, folder, log, threads=1)
    print(f"{name:6} {time.monotonic() - began:6.1f} s from start to end", flush=True)
    spent = [event["cpu"] for event in events if "loss" in event]
    speeds = [given.batch / (after - before) for before, after in pairwise(spent)]
    first, last = speeds[: each - 1], speeds[-each:]
    return statistics.median(first), statistics.median(last), memory


def _flags(model: Path, rows: Path, folder: Path, steps: str, given: argparse.Namespace) -> list[str]:
    flags = {
        "model_id_or_path": model,
        "template_type": "jinja",
        "dataset": rows,
        "output_dir": folder,
        "add_output_dir_suffix": "false",
        "lora_rank": 8,
        "lora_alpha": 32,
        "lora_dropout": 0,
        "target_regex": r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        "batch_size": given.batch,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": "false",
        "max_steps": steps,
        "logging_steps": 1,
        "evaluation_strategy": "no",
        "save_steps": 10_000,
        "dataset_test_ratio": 0,
        "learning_rate": "1e-4",
    }
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


if __name__ == "__main__":
    sys.exit(main())
