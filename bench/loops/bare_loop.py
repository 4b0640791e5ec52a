"""The bare loop of bench/train.py: padding-free rows, attention inside each, logits only at labels, plain AdamW."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

BATCH = 4


def inside_sequences(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each of `lengths`."""
    lengths = kwargs["lengths"]
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    out = [scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling) for q, k, v in parts]
    return torch.cat(out, 2).transpose(1, 2).contiguous(), None


def main() -> None:
    """`bare_loop.py MODEL ROWS FOLDER STEPS`"""
    model_dir, rows, folder, steps = sys.argv[1:5]
    torch.manual_seed(0)
    AttentionInterface.register("inside_sequences", inside_sequences)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    encoded = []
    for line in Path(rows).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        user = "\n".join(filter(None, (row["instruction"], row["input"])))
        asked = [{"role": "user", "content": user}]  # with the system text of the model's template, as everybody has it
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        encoded.append((tokenizer(prompt).input_ids, tokenizer(f"{row['output']}<|im_end|>\n").input_ids))
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="inside_sequences")
    config = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj"])
    model = get_peft_model(model, config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.1)
    order = torch.randperm(len(encoded), generator=torch.Generator().manual_seed(42)).tolist()  # as swift's seed 42
    with Path(folder, "steps.jsonl").open("w", buffering=1) as log:
        for step in range(int(steps)):
            began = time.monotonic()
            batch = [encoded[i] for i in order[step * BATCH : (step + 1) * BATCH]]
            lengths = [len(prompt) + len(answer) for prompt, answer in batch]
            ids = torch.tensor([[token for prompt, answer in batch for token in prompt + answer]])
            trained = torch.tensor([t for p, a in batch for t in [False] * len(p) + [True] * len(a)])
            places = trained.nonzero()[:, 0]
            positions = torch.cat([torch.arange(length) for length in lengths])[None]
            logits = model(
                input_ids=ids, position_ids=positions, lengths=lengths, use_cache=False, logits_to_keep=places - 1
            ).logits[0]
            loss = cross_entropy(logits, ids[0, places])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            speed = ids.numel() / (time.monotonic() - began)
            log.write(json.dumps({"loss": loss.item(), "tokens": ids.numel(), "tokens/s": speed}) + "\n")


if __name__ == "__main__":
    main()
