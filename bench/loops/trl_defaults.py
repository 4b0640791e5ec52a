"""TRL's SFTTrainer with a model, rows and `LoraConfig()`, for bench/defaults.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer


def main() -> None:
    """`trl_defaults.py MODEL ROWS FOLDER [fp32]`"""
    model, rows, folder, *precision = sys.argv[1:]
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
    in_fp32 = {"bf16": False} if precision else {}
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=folder, num_train_epochs=1, report_to="none", use_cpu=True, **in_fp32),
        train_dataset=data,
        peft_config=LoraConfig(),
    )
    trainer.train()
    lines = [json.dumps({**event, "loss": event.get("loss")}) for event in trainer.state.log_history]
    Path(folder, "log.jsonl").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
