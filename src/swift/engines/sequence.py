"""One answer in the making: its tokens so far, its sampling state and the text that may be shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedModel

from swift.engines.base import Delta, FinishReason, Request, TokenLogprob
from swift.engines.detokenizer import Detokenizer, StopStrings
from swift.engines.grammar import Grammar
from swift.engines.image_prompt import ImagePrompt
from swift.engines.prompt_lookup import PromptLookup
from swift.engines.sampler import Pick, Picker


class Sequence:
    """Answer number `index` of a request. `tokens` are those of prompt and answer so far."""

    def __init__(
        self,
        request: Request,
        index: int,
        tokenizer: Any,
        end_ids: frozenset[int],
        limit: int,
        grammar: Grammar | None,
        images: ImagePrompt | None = None,
        opening: tuple[int, ...] = (),
        shown: frozenset[int] = frozenset(),
    ):
        """`opening` is what it begins with in a decoder whose encoder reads the prompt, `shown` are special tokens that
        are part of its text."""
        self.request = request
        self.opening = opening
        self.images = images
        """The images of its prompt."""
        self.shift = 0 if images is None else images.shift
        """The position of a token behind the prompt is its number and this."""
        self.index = index
        self.tokens = list(request.prompt_ids)
        self.limit = limit
        """Most tokens of prompt and answer together."""
        self.finish_reason: FinishReason | None = None
        self.abandoned = False
        """Nobody waits for it any more."""
        self.cached_tokens: int | None = None
        """Prompt tokens that another sequence had computed; None until it first runs."""
        given = frozenset(request.sampling.stop_token_ids)
        ends = given if request.sampling.ignore_eos else end_ids | given
        self.picker = Picker(request.sampling, index, opening or request.prompt_ids, sorted(ends), grammar)
        self.ends = ends
        self.lookup = PromptLookup()
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer, shown)
        self._stops = StopStrings(request.sampling.stop)
        self._unsent: list[int] = []
        self._unsent_logprobs: list[TokenLogprob] = []
        self._sent = False

    @property
    def keys(self) -> list[int]:
        """By which the beginnings of sequences are compared: the tokens, and those of images by their pictures."""
        if self.images is None:
            return self.tokens
        return [*self.images.keys, *self.tokens[len(self.images.keys) :]]

    def take(self, pick: Pick) -> Delta | None:
        """Go on with the picked token. The delta that is ready now, if any; the last one carries the reason."""
        self.tokens.append(pick.token_id)
        self.picker.took(pick.token_id)
        self._unsent.append(pick.token_id)
        if pick.logprob is not None:
            self._unsent_logprobs.append(named(pick, self._tokenizer))
        text, grammar = "", self.picker.grammar
        if grammar is not None and grammar.failure:
            return self.end("error", grammar.failure)
        if pick.token_id in self.ends:
            text, self.finish_reason = self._rest(), "stop"
        else:
            text, stopped = self._stops.add(self._detokenizer.add(pick.token_id))
            if stopped:
                self.finish_reason = "stop"
            elif grammar is not None and grammar.complete:
                text, self.finish_reason = text + self._rest(), "stop"
            elif len(self.tokens) >= self.limit:
                text, self.finish_reason = text + self._rest(), "length"
        return self._delta(text) if text or self.finish_reason else None

    def take_all(self, token_ids: Iterable[int]) -> Delta:
        """Go on with tokens that were chosen together, up to where the answer ends: all of them as one delta."""
        text = ""
        for token_id in token_ids:
            delta = self.take(Pick(token_id))
            if delta is not None:
                text += delta.text
                self._unsent = [*delta.token_ids, *self._unsent]
            if self.finish_reason is not None:
                break
        return self._delta(text)

    def end(self, reason: FinishReason, error: str | None = None) -> Delta:
        """The last delta of a sequence that cannot go on."""
        self.finish_reason = reason
        return self._delta("", error)

    def _rest(self) -> str:
        """The text still held back. What broken characters complete may itself hold a stop string."""
        text, stopped = self._stops.add(self._detokenizer.rest())
        return text if stopped else text + self._stops.rest()

    def _delta(self, text: str, error: str | None = None) -> Delta:
        delta = Delta(
            request_id=self.request.id,
            index=self.index,
            text=text,
            token_ids=tuple(self._unsent),
            logprobs=tuple(self._unsent_logprobs),
            finish_reason=self.finish_reason,
            error=error,
            cached_tokens=0 if self._sent else self.cached_tokens or 0,
        )
        self._unsent, self._unsent_logprobs, self._sent = [], [], True
        return delta


def named(pick: Pick, tokenizer: Any) -> TokenLogprob:
    """A pick with the texts of its tokens."""
    name: Mapping[int, str] = {token_id: tokenizer.decode([token_id]) for token_id, _ in pick.top}
    return TokenLogprob(
        token=name.get(pick.token_id) or tokenizer.decode([pick.token_id]),
        token_id=pick.token_id,
        logprob=pick.logprob or 0.0,
        top=tuple((name[token_id], token_id, logprob) for token_id, logprob in pick.top),
    )


def end_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer by the model's own word."""
    given = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = [given] if isinstance(given, int) else list(given or [])
    return frozenset([*ends, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])])
