"""TRL's SFTTrainer with padding_free, for bench/train.py."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Steps(TrainerCallback):
    """Writes the tokens a second of each step."""

    def __init__(self, log: Path):
        self._log = log
        self._tokens = self._began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step starts."""
        self._began = time.monotonic()
        self._tokens = state.num_input_tokens_seen

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step ends."""
        speed = (state.num_input_tokens_seen - self._tokens) / (time.monotonic() - self._began)
        with self._log.open("a") as log:
            log.write(json.dumps({"loss": None, "tokens/s": speed}) + "\n")


def main() -> None:
    """`trl_sft.py MODEL ROWS FOLDER STEPS`"""
    model_dir, rows, folder, steps = sys.argv[1:5]
    read = [json.loads(line) for line in Path(rows).read_text(encoding="utf-8").splitlines()]
    data = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": "\n".join(filter(None, (row["instruction"], row["input"])))}],
                "completion": [{"role": "assistant", "content": row["output"]}],
            }
            for row in read
        ]
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32),
        args=SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=1,
            activation_checkpointing=False,
            padding_free=True,
            max_length=None,
            max_steps=int(steps),
            learning_rate=1e-4,
            weight_decay=0.1,
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            report_to="none",
            include_num_input_tokens_seen="all",
            logging_steps=1000,
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(model_dir),
        peft_config=LoraConfig(r=8, lora_alpha=32, lora_dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj"]),
        callbacks=[Steps(Path(folder, "steps.jsonl"))],
    )
    trainer.train()


if __name__ == "__main__":
    main()
