"""The llama.cpp backend: a GGUF file, behind the Engine protocol.

Token ids go in and come out. llama.cpp streams no ids of tokens that end inside a character: where its count shows that
one is missing, it is asked again for a few tokens without streaming, going on in the same place with what it has
computed. docs/decisions/llamacpp-engine.md has the figures.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil

from swift.core.errors import NotBuilt, SwiftError, first_line
from swift.core.log import log
from swift.engines.base import NOTHING_SHOWN, Constraint, Delta, NoLogProbs, Request, SamplingParams, TokenLogprob
from swift.engines.grammar import Grammars
from swift.engines.json_schema import guided_schema
from swift.engines.llama_server import LlamaServer
from swift.engines.sampler import Pick
from swift.engines.sequence import Sequence as Answer
from swift.engines.sequence import named
from swift.models.gguf.architectures import bytes_per_token, positions, short_positions
from swift.prompts.types import Media

CHARACTER, PIECE = 4, 16
"""Tokens that are not streamed: as many as a character may have, and the most where many characters have several."""
PATIENCE = 4
"""Streams of one answer that may lose a token before the rest comes in pieces."""
PLACES = 16
"""Answers that run at once, at most; more of them wait."""
NEVER = -1e9
"""A bias that no logit outweighs."""
MANY = 1000
"""Likeliest tokens among which one is looked for first."""
CACHE_BYTES = 2 * 2**30
"""For keys and values, unless one answer of the length asked for needs more."""
LEAST_CONTEXT = 4096
COMPACT = {"whitespace_flexible": False}
"""Of our options for JSON what the wheel's llguidance knows."""
SEED_STEP = 1_000_003
"""Between the seeds of the pieces of one answer."""


class _LeftOut(Exception):
    """A stream has not told of a token."""


class LlamaCppEngine:
    """One GGUF file with `places` answers at once, each of up to `context` tokens with its prompt.

    `ends` are the tokens that end an answer by the model's own word, `vocabulary` is the number of its embeddings.
    """

    adapters: tuple[str, ...] = ()
    reader: None = None

    def __init__(self, file: Path, tokenizer: Any, *, context: int, places: int, ends: Sequence[int], vocabulary: int):
        self.tokenizer = tokenizer
        self.max_model_len = context
        self._vocabulary = vocabulary
        self._ends = frozenset(end for end in ends if end < vocabulary)
        self._server = LlamaServer(file, context=context + 1, places=places)
        # The lowest free one first: llama.cpp computes in one pass only places whose numbers follow each other.
        self._places: asyncio.PriorityQueue[int] = asyncio.PriorityQueue()
        for place in range(places):
            self._places.put_nowait(place)
        self._all_places = places
        self._grammars = Grammars(tokenizer)
        self._waiting = 0

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Deltas as they are made; closing the iterator frees the place. Raises SwiftError for what cannot run."""
        self._admit(request)
        deltas: asyncio.Queue[Delta] = asyncio.Queue()
        count = request.sampling.n
        answers = [self._begin(request, index) for index in range(count)]
        tasks = [asyncio.create_task(self._answer(answer, deltas)) for answer in answers]
        try:
            while count:
                delta = await deltas.get()
                count -= delta.finish_reason is not None
                yield delta
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def log_probs(
        self,
        prompt_ids: tuple[int, ...],
        continuations: Sequence[tuple[int, ...]],
        adapter: str | None = None,
        top: int = 0,
        media: Media = NOTHING_SHOWN,
    ) -> list[list[TokenLogprob]]:
        """What the model gives each token of each continuation. llama.cpp tells it of tokens that it writes itself, so
        it is held to them."""
        if media.any:
            raise NoLogProbs("llama.cpp with images")
        self._no_adapter(adapter)
        for tokens in continuations:
            self._check_ids((*prompt_ids, *tokens))
        return [await self._forced(prompt_ids, tokens, top) for tokens in continuations]

    async def add_adapter(self, name: str, folder: str) -> None:
        """Refused: raises SwiftError."""
        raise SwiftError("llama.cpp serves one merged model here", where=folder, next="use --infer_backend pt")

    def statistics(self) -> dict[str, float]:
        """Answers running and waiting, and the share of places in use."""
        running = self._all_places - self._places.qsize()
        return {"running": float(running), "waiting": float(self._waiting), "kv_used": running / self._all_places}

    async def close(self) -> None:
        """End llama.cpp and give the memory back."""
        await self._server.close()

    async def _place(self) -> int:
        self._waiting += 1
        try:
            return await self._places.get()
        finally:
            self._waiting -= 1

    def _begin(self, request: Request, index: int) -> Answer:
        limit = min(self.max_model_len, len(request.prompt_ids) + request.sampling.max_tokens)
        # llama.cpp answers without a grammar that it cannot read; ours looks on, and sees that. One that cannot be used
        # is refused here, before anything runs.
        grammar = request.sampling.grammar and self._grammars.make(request.sampling.grammar)
        return Answer(request, index, self.tokenizer, self._ends, limit, grammar)

    async def _answer(self, answer: Answer, deltas: asyncio.Queue[Delta]) -> None:
        place = await self._place()
        try:
            await self._write(answer, place, deltas)
        except SwiftError as error:
            deltas.put_nowait(answer.end("error", error.what))
        except Exception as error:  # whoever reads the deltas has to hear of it, and the engine lives on
            log.exception("an answer of llama.cpp failed")
            deltas.put_nowait(answer.end("error", f"llama.cpp failed: {first_line(error)}"))
        finally:
            self._places.put_nowait(place)

    async def _write(self, answer: Answer, place: int, deltas: asyncio.Queue[Delta]) -> None:
        """Let llama.cpp go on, request after request, until the answer is at its end."""
        async with aclosing(self._tokens(answer, place)) as tokens:
            async for pick in tokens:
                delta = answer.take(pick)
                if delta is not None:
                    deltas.put_nowait(delta)
                if answer.finish_reason is not None:
                    return
        raise SwiftError("llama.cpp ended the answer before its grammar did")

    async def _tokens(self, answer: Answer, place: int) -> AsyncGenerator[Pick]:
        """What llama.cpp adds to the answer, which has taken each token before the next is asked for."""
        sampling = answer.request.sampling
        seed = (random.getrandbits(32) if sampling.seed is None else sampling.seed) + answer.index
        losses, size = 0, 0
        for number in range(answer.limit):
            body = self._body(answer, place, (seed + number * SEED_STEP) % 2**32)
            if sampling.grammar is not None:  # its state would be lost between two requests
                for pick in await self._picks(await self._server.complete(body), answer, place):
                    yield pick
                return
            if size:
                body["n_predict"] = 1 if sampling.logprobs is not None else min(size, body["n_predict"])
                for pick in await self._picks(await self._server.complete(body), answer, place):
                    yield pick
                size = 0 if losses < PATIENCE else min(PIECE, 2 * size)
                continue
            try:
                async with aclosing(self._streamed(body, sampling.logprobs)) as picks:
                    async for pick in picks:
                        yield pick
            except _LeftOut:
                losses, size = losses + 1, CHARACTER

    def _body(self, answer: Answer, place: int, seed: int) -> dict[str, Any]:
        """The request that goes on with the answer as far as its settings stay the same."""
        sampling = answer.request.sampling
        written, room = len(answer.tokens) - len(answer.request.prompt_ids), answer.limit - len(answer.tokens)
        body = {
            **_settings(sampling, seed),
            "prompt": answer.tokens,
            "n_predict": room,
            "id_slot": place,
            "repeat_last_n": self.max_model_len,
        }
        if written < sampling.min_tokens:
            body["n_predict"] = min(room, sampling.min_tokens - written)
            body["logit_bias"] = [*body["logit_bias"], *([end, NEVER] for end in answer.ends)]
            body["ignore_eos"] = True
        return body

    async def _streamed(self, body: Mapping[str, Any], count: int | None) -> AsyncGenerator[Pick]:
        """The tokens of one request as they are made, with what is told of the `count` likeliest.

        Raises _LeftOut behind the last token before one that ends inside a character.
        """
        made = 0
        async with aclosing(self._server.stream(body)) as told:
            async for events in told:
                for event in events:
                    tokens = event["tokens"]
                    made += len(tokens)
                    if made != event["tokens_predicted"]:
                        raise _LeftOut
                    if count is None:
                        for token in tokens:
                            yield Pick(token)
                    elif tokens:
                        yield _told(event["completion_probabilities"][0], count)

    async def _picks(self, reply: Mapping[str, Any], answer: Answer, place: int) -> list[Pick]:
        """The tokens of a piece, with what was asked about them."""
        count = answer.request.sampling.logprobs
        tokens = reply["tokens"]
        if count is None:
            return [Pick(token) for token in tokens]
        told = reply.get("completion_probabilities", [])
        if len(told) == len(tokens):
            return [_told(each, count) for each in told]
        before = answer.tokens
        return [
            await self._distribution([*before, *tokens[:at]], token, count, place) for at, token in enumerate(tokens)
        ]

    async def _forced(self, prompt_ids: tuple[int, ...], tokens: tuple[int, ...], top: int) -> list[TokenLogprob]:
        place = await self._place()
        try:
            body = {
                **_settings(SamplingParams(max_tokens=len(tokens), logprobs=top), 0),
                "prompt": prompt_ids,
                "n_predict": len(tokens),
                "id_slot": place,
                "grammar": "%llguidance {}\nstart: " + " ".join(f"<[{token}]>" for token in tokens),
            }
            reply = await self._server.complete(body)
            told = reply.get("completion_probabilities", [])
            if [each["id"] for each in told] == list(tokens):
                picks = [_told(each, top) for each in told]
            else:  # some of them end inside a character
                ids = [*prompt_ids, *tokens]
                before = range(len(prompt_ids), len(ids))
                picks = [await self._distribution(ids[:at], ids[at], top, place) for at in before]
        finally:
            self._places.put_nowait(place)
        return [named(pick, self.tokenizer) for pick in picks]

    async def _distribution(self, ids: list[int], token: int, top: int, place: int) -> Pick:
        """What the model gives `token` behind `ids`, found among its likeliest; llama.cpp is made to write another."""
        whole = self.tokenizer.encode("a", add_special_tokens=False)[-1]
        for count in (MANY, self._vocabulary):
            body = {
                **_settings(SamplingParams(max_tokens=1, logit_bias=((whole, -NEVER),)), 0),
                "prompt": ids,
                "n_predict": 1,
                "id_slot": place,
                "n_probs": count,
            }
            (told,) = (await self._server.complete(body))["completion_probabilities"]
            ranked = [(each["id"], each["logprob"]) for each in told["top_logprobs"]]
            for number, value in ranked:
                if number == token:
                    return Pick(token, value, tuple(ranked[:top]))
        raise SwiftError(f"llama.cpp gives token {token} no probability")

    def _admit(self, request: Request) -> None:
        """Raise SwiftError for a request that cannot be answered here."""
        sampling = request.sampling
        if request.media != Media():
            raise NotBuilt("images, videos and audio do not reach llama.cpp", next="use --infer_backend pt")
        self._no_adapter(request.adapter)
        self._check_ids(request.prompt_ids)
        self._check_ids([token for token, _ in sampling.logit_bias] or [0])
        if len(request.prompt_ids) >= self.max_model_len:
            raise SwiftError(
                f"the prompt has {len(request.prompt_ids)} tokens",
                why=f"the context holds {self.max_model_len}, the answer included",
                next="shorten the prompt, or raise --max_model_len",
            )
        if sampling.max_tokens < 1 or sampling.n < 1:
            raise SwiftError("max_tokens and n are at least 1")
        if sampling.num_beams > 1:
            raise SwiftError("llama.cpp does no beam search", where="--num_beams", next="use --infer_backend pt")
        if sampling.presence_penalty or sampling.frequency_penalty:
            raise SwiftError(
                "llama.cpp counts the prompt's tokens in presence_penalty and frequency_penalty, which are about the "
                "answer's",
                next="leave them out, or use --infer_backend pt",
            )
        if sampling.grammar is not None and sampling.min_tokens:
            raise SwiftError(
                "llama.cpp does not hold an answer to a grammar and to min_tokens", next="leave one of them out"
            )

    def _no_adapter(self, name: str | None) -> None:
        if name is not None:
            raise SwiftError(f"there is no adapter `{name}`", why="llama.cpp serves one merged model here")

    def _check_ids(self, ids: Sequence[int]) -> None:
        if not ids:
            raise SwiftError("the prompt is empty")
        if min(ids) < 0 or max(ids) >= self._vocabulary:
            raise SwiftError(
                f"the request names token {max(ids) if min(ids) >= 0 else min(ids)}",
                why=f"the model knows the tokens 0 to {self._vocabulary - 1}",
                next="use the tokenizer that belongs to the model",
            )


def room(fields: Mapping[str, Any], *, given: int | None, most: int) -> tuple[int, int]:
    """Tokens of prompt and answer that fit, and how many such answers at once, at most `most`.

    `fields` are those of the model's config.json.

    Raises SwiftError when `given`, the length asked for, is more than the positions of the model.
    """
    length = positions(fields)
    if given is not None and given > length:
        raise SwiftError(
            f"--max_model_len {given} is more than the {length} positions of the model",
            where="--max_model_len",
            next="leave it out",
        )
    short = short_positions(fields)
    if short is not None and given is None:
        length = min(length, short - 1)  # the engine has one more
    elif short is not None and given is not None and given >= short:
        log.warning(
            "with --max_model_len %d llama.cpp computes texts of fewer than %d tokens otherwise than PyTorch does: it "
            "takes the model's long factors (LongRoPE) for all of them",
            given,
            short,
        )
    tokens = int(min(CACHE_BYTES, psutil.virtual_memory().available / 4) // bytes_per_token(fields))
    context = given or min(length, max(tokens, LEAST_CONTEXT))
    if context < length and given is None:
        log.info("answers have room for %d tokens, prompt included; --max_model_len changes that", context)
    return context, max(1, min(PLACES, most, tokens // context))


def _settings(sampling: SamplingParams, seed: int) -> dict[str, Any]:
    """The fields of llama.cpp's request that say how tokens are picked, with the outcome of our own sampler.

    top_k stands first, where it leaves the same tokens as behind the temperature and min_p, and spares those, and the
    draw, the rest of the vocabulary: with 49,152 tokens a tenth of a millisecond a token, in which all answers wait.
    """
    sampled = sampling.temperature > 0
    body: dict[str, Any] = {
        "samplers": ["penalties", "top_k", *(["temperature", "min_p", "top_p"] if sampled else [])],
        "temperature": sampling.temperature,
        "top_k": sampling.top_k if sampled else 1,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "seed": seed,
        "logit_bias": [list(pair) for pair in sampling.logit_bias],
        "cache_prompt": True,
        "return_tokens": True,
        "n_probs": 0 if sampling.logprobs is None else max(1, sampling.logprobs),
    }
    if sampling.grammar is not None:
        body["grammar"] = "%llguidance {}\n" + _lark(sampling.grammar)
    return body


def _lark(constraint: Constraint) -> str:
    """As llguidance's grammars have it."""
    text = constraint.text
    if constraint.kind == "json":
        schema = {**guided_schema(json.loads(text)), "x-guidance": COMPACT}
        return f"start: %json {json.dumps(schema)}"
    if constraint.kind == "choice":
        return "start: " + " | ".join(json.dumps(choice) for choice in json.loads(text))
    if constraint.kind == "regex":
        return f"start: /{text.replace('/', chr(92) + '/')}/"
    return text


def _told(position: Mapping[str, Any], top: int) -> Pick:
    """What llama.cpp says of one token."""
    ranked = tuple((each["id"], each["logprob"]) for each in position["top_logprobs"][:top])
    return Pick(position["id"], position["logprob"], ranked)
