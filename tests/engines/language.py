"""What a grammar allows, told by following a text through it."""

from __future__ import annotations

from typing import Any

import torch

from swift.engines.grammar import Grammar


def follows(grammar: Grammar, tokenizer: Any, text: str) -> bool:
    """Whether the grammar allows each token of `text` and is complete, or may end, behind it."""
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        if grammar.masked(torch.zeros(len(tokenizer)))[token] != 0:
            return False
        grammar.took(token)
    return grammar.complete or grammar.masked(torch.zeros(len(tokenizer)))[tokenizer.eos_token_id] == 0
