"""Tokens that a tokenizer makes and a model has no embedding for: named before the weights are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swift.core.errors import SwiftError
from swift.core.log import log

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = 3
"""Tokens that are named."""


def embedded_tokens(tokenizer: PreTrainedTokenizerBase, rows: int) -> int | None:
    """`rows` of the model's embeddings where the tokenizer knows more tokens than that, and says so; None where not.

    Such tokens do no harm while nobody writes them (Gemma 3 has one). Raises SwiftError when every text would have one:
    the tokenizer's begin, end or padding.
    """
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if not beyond:
        return None
    names = ", ".join(token for _, token in beyond[:SHOWN]) + (" …" if len(beyond) > SHOWN else "")
    lacking = f"{len(beyond)} tokens of the tokenizer have no embedding in the model, which has {rows}: {names}"
    for name in ("bos_token", "eos_token", "pad_token"):
        token = tokenizer.special_tokens_map.get(name)
        if any(token == each for _, each in beyond):
            raise SwiftError(
                lacking,
                why=f"{token} is its {name}",
                next="call resize_token_embeddings(len(tokenizer)) and save the model, or remove the added tokens",
            )
    log.warning("%s; texts with them are refused", lacking)
    return rows
