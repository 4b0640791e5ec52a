"""Does a model see the tokens that it is to say?"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.models import context_length

TOKENS = 8
UNEVEN = 67
"""Tokens of a row that fills no number of blocks, which some classes cannot train on (Reformer)."""


@torch.no_grad()
def require_causal(model: PreTrainedModel) -> None:
    """Raises SwiftError where what comes behind a token changes its logits, as in encoders with a head (BERT).

    Such a model reads the answer that it is trained to give: its loss says nothing, and what it learns is to copy.
    Where only the length of the text counts (ProphetNet), padding changes the loss, and each token of an answer what
    was said before it.
    A model that wants more than tokens (a language, an image) is refused by its own word.
    """
    vocabulary = model.config.get_text_config().vocab_size
    longer = (torch.arange(min(UNEVEN, context_length(model.config) or UNEVEN), device=model.device) * 7919 + 11)[None]
    ids = longer[:, :TOKENS].repeat(2, 1)
    ids[1, -1] += 1
    longer, ids = longer % vocabulary, ids % vocabulary
    was_training = model.training
    model.eval()
    try:
        logits = model(input_ids=ids, use_cache=False).logits.float()
        shorter = model(input_ids=ids[:1, : TOKENS // 2], use_cache=False).logits.float()
        with torch.random.fork_rng():  # dropout
            model.train()(input_ids=longer, use_cache=False)
    except (TypeError, ValueError) as error:  # what classes raise for an input that they miss
        raise SwiftError(
            f"{type(model).__name__} cannot be trained on the tokens of a text alone",
            where="--model_id_or_path, --model_type",
            why=str(error).partition("\n")[0] or type(error).__name__,
            next="where config.json has a field for what it misses, set it; or use another model",
        ) from error
    finally:
        model.train(was_training)
    exact = model.dtype == torch.float32
    limit = (1e-4 if exact else 0.05) * (1 + logits.abs().max())
    if (logits[0, :-1] - logits[1, :-1]).abs().max() > limit:
        raise _reads_ahead(model, "another last token")
    # In half precision another shape alone may send a token to another expert.
    if exact and (logits[0, : TOKENS // 2] - shorter[0]).abs().max() > limit:
        raise _reads_ahead(model, "a longer text")


def _reads_ahead(model: PreTrainedModel, change: str) -> SwiftError:
    return SwiftError(
        f"{type(model).__name__} reads ahead: it would see the answers that it is trained to give",
        where="--model_id_or_path, --model_type",
        why=f"its attention is not causal: {change} changes what it says before it",
        next="use a decoder; where config.json has is_decoder or causal, it must be true",
    )
