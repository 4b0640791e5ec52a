"""How text is generated."""

from __future__ import annotations

from typing import Annotated

from swift.params.flag import Basic, Range, Text
from swift.params.frozen import Frozen


class Generate(Frozen):
    """How text is generated."""

    max_new_tokens: Annotated[int, Basic(), Range(1)] = 2048
    """Most tokens an answer may have."""
    do_sample: Annotated[bool | None, Basic()] = None
    """Sample instead of taking the likeliest token; None follows the model's generation_config.json."""
    temperature: Annotated[float | None, Range(0)] = None
    """Sampling temperature; None follows the model's generation_config.json, 0 does not sample."""
    top_k: Annotated[int | None, Range(0, also=(-1,))] = None
    """Sample from the k likeliest tokens; None follows generation_config.json."""
    top_p: Annotated[float | None, Range(0, 1)] = None
    """Sample from the likeliest tokens that make up this probability; None follows generation_config.json."""
    repetition_penalty: Annotated[float | None, Range(0, above=True)] = None
    """Penalty on tokens already there, 1 for none; None follows generation_config.json."""
    num_beams: Annotated[int, Range(1)] = 1
    """Beams of beam search."""
    stop_words: Annotated[tuple[str, ...], Text()] = ()
    """Texts that end an answer, beside those of the template."""
