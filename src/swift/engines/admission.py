"""What the PyTorch engine takes: checked before anything joins a batch, where it would fail whoever is beside it."""

from __future__ import annotations

from collections.abc import Sequence

from swift.core.errors import SwiftError
from swift.engines.adapter_pool import AdaptedModel
from swift.engines.base import Request
from swift.engines.beam_search import check_beams
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Media


class Admission:
    """The limits of a model and its adapters; `max_length` counts tokens of prompt and answer together.

    `takes` are the kinds of media that may be shown; `one_decoder` is False for a model whose encoder reads prompts.
    """

    def __init__(self, model: AdaptedModel, max_length: int, *, takes: tuple[str, ...], one_decoder: bool = True):
        self._model = model
        self._takes = takes
        self._max_length = max_length
        self._one_decoder = one_decoder

    def request(self, request: Request) -> None:
        """Raises SwiftError for a request that cannot be answered."""
        sampling = request.sampling
        self.media(request.media)
        self._adapter(request.adapter)
        if not request.prompt_ids:
            raise SwiftError("the prompt is empty")
        if len(request.prompt_ids) >= self._max_length:
            raise SwiftError(
                f"the prompt has {len(request.prompt_ids)} tokens",
                why=f"the model's context holds {self._max_length}, the answer included",
                next="shorten the prompt",
            )
        self._tokens((*request.prompt_ids, *(token for token, _ in sampling.logit_bias)), request.adapter)
        if sampling.max_tokens < 1 or sampling.n < 1:
            raise SwiftError("max_tokens and n are at least 1")
        if sampling.num_beams > 1:
            check_beams(sampling)

    def media(self, media: Media) -> None:
        """Raises SwiftError for a kind that the model does not take."""
        for kind in MEDIA_TAGS:
            if media.of(kind) and kind not in self._takes:
                raise SwiftError(f"the model takes no {kind}")

    def vectors(self, texts: Sequence[tuple[int, ...]], adapter: str | None) -> None:
        """Raises SwiftError for texts that have no vectors."""
        if not self._one_decoder:
            raise SwiftError("the model gives no vectors", why="an encoder reads its texts, not the decoder of answers")
        self.texts(texts, adapter)

    def texts(self, texts: Sequence[tuple[int, ...]], adapter: str | None) -> None:
        """Raises SwiftError for texts that cannot be read, by the adapter of this name or the model itself."""
        self._adapter(adapter)
        for ids in texts:
            if not ids or len(ids) > self._max_length:
                raise SwiftError(f"a text has {len(ids)} tokens", why=f"1 to {self._max_length} can be read")
            self._tokens(ids, adapter)

    def _adapter(self, name: str | None) -> None:
        if name is not None and name not in self._model.names:
            served = ", ".join(self._model.names) or "none"
            raise SwiftError(f"there is no adapter `{name}`", next=f"it serves: {served}")

    def _tokens(self, named: Sequence[int], adapter: str | None) -> None:
        """Ids have to be in the embeddings."""
        vocabulary = self._model.tokens(adapter)
        if min(named) < 0 or max(named) >= vocabulary:
            raise SwiftError(
                f"the request names token {max(named) if min(named) >= 0 else min(named)}",
                why=f"{f'`{adapter}`' if adapter else 'the model'} knows the tokens 0 to {vocabulary - 1}",
                next="use the tokenizer that belongs to the model",
            )
