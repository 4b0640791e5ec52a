"""Does a model see the tokens that it is to say?"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from swift.core.errors import SwiftError

TOKENS = 8


@torch.no_grad()
def require_causal(model: PreTrainedModel) -> None:
    """Raises SwiftError where another last token changes the logits before it, as in encoders with a head (BERT).

    Such a model reads the answer that it is trained to give: its loss says nothing, and what it learns is to copy.
    """
    ids = (torch.arange(TOKENS, device=model.device) * 7919 + 11).repeat(2, 1)
    ids[1, -1] += 1
    was_training = model.training
    model.eval()
    logits = model(input_ids=ids % model.config.get_text_config().vocab_size, use_cache=False).logits[:, :-1].float()
    model.train(was_training)
    tolerance = 1e-4 if model.dtype == torch.float32 else 0.05
    if (logits[0] - logits[1]).abs().max() > tolerance * (1 + logits.abs().max()):
        raise SwiftError(
            f"{type(model).__name__} reads ahead: it would see the answers that it is trained to give",
            where="--model_id_or_path, --model_type",
            why="its attention is not causal: another last token changes what it says before it",
            next="use a decoder; where config.json has is_decoder or causal, it must be true",
        )
