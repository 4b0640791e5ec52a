"""python merge_with_peft.py MODEL ADAPTER FOLDER [BITS]

Folds an adapter into a model as PEFT's documentation does it, for tools that have no command for it.
"""

from __future__ import annotations

import sys

from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


def main() -> None:
    """Load, merge, save."""
    model_dir, adapter, folder, *bits = sys.argv[1:]
    quantized = {"quantization_config": BitsAndBytesConfig(load_in_4bit=True)} if bits else {}
    model = AutoModelForCausalLM.from_pretrained(model_dir, **quantized)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)


if __name__ == "__main__":
    main()
