"""TRL's DPOTrainer, for bench/align.py."""

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
from trl import DPOConfig, DPOTrainer


class Steps(TrainerCallback):
    """Writes the steps a second since the end of the first."""

    def __init__(self, log: Path):
        self._log = log
        self._first: float | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step ends."""
        now = time.monotonic()
        speed = None if self._first is None else (state.global_step - 1) / (now - self._first)
        self._first = self._first or now
        with self._log.open("a") as log:
            log.write(json.dumps({"loss": None, "train_speed(iter/s)": speed}) + "\n")


def main() -> None:
    """`trl_dpo.py MODEL ROWS FOLDER STEPS BATCH`"""
    model_dir, rows, folder, steps, batch = sys.argv[1:6]
    read = [json.loads(line) for line in Path(rows).read_text(encoding="utf-8").splitlines()]
    data = Dataset.from_list(
        [
            {
                "prompt": row["messages"][:-1],
                "chosen": row["messages"][-1:],
                "rejected": [{"role": "assistant", "content": row["rejected_response"]}],
            }
            for row in read
        ]
    )
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32),
        args=DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=int(batch),
            gradient_accumulation_steps=1,
            activation_checkpointing=False,
            train_sampling_strategy="sequential",
            max_length=2048,
            max_steps=int(steps),
            learning_rate=1e-4,
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            report_to="none",
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
