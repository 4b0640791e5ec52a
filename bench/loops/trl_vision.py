"""TRL's SFTTrainer on rows with an image, for bench/vision_trl.py."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Image, List, Value
from peft import LoraConfig
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer, LlavaProcessor, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Steps(TrainerCallback):
    """Writes when each step ended."""

    def __init__(self, log: Path):
        self._log = log

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step ends."""
        with self._log.open("a") as log:
            log.write(json.dumps({"loss": None, "ended": time.monotonic()}) + "\n")


def main() -> None:
    """`trl_vision.py MODEL ROWS FOLDER STEPS BATCH`"""
    model_dir, rows, folder, steps, batch = sys.argv[1:6]
    read = [json.loads(line) for line in Path(rows).read_text(encoding="utf-8").splitlines()]
    turn = {"role": Value("string"), "content": Value("string")}
    data = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": row["query"].replace("<image>", "")}],
                "completion": [{"role": "assistant", "content": row["response"]}],
                "images": row["images"],
            }
            for row in read
        ],
        features=Features({"prompt": List(turn), "completion": List(turn), "images": List(Image())}),
    )
    config = AutoModelForImageTextToText.from_pretrained(model_dir, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(model_dir)
    processor = LlavaProcessor(
        image_processor=AutoImageProcessor.from_pretrained(model_dir, backend="pil"),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    trainer = SFTTrainer(
        model=config,
        args=SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=int(batch),
            gradient_accumulation_steps=1,
            activation_checkpointing=False,
            max_length=None,
            max_steps=int(steps),
            learning_rate=1e-4,
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            report_to="none",
            logging_steps=1000,
        ),
        train_dataset=data,
        processing_class=processor,
        peft_config=LoraConfig(
            r=8, lora_alpha=32, lora_dropout=0.0, target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
        ),
        callbacks=[Steps(Path(folder, "steps.jsonl"))],
    )
    trainer.train()


if __name__ == "__main__":
    main()
