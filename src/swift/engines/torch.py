"""The PyTorch backend: any causal language model of transformers, many requests at once.

A worker thread owns the model. Requests join its batch and leave it between two steps; deltas go back to the event
loop that asked. docs/decisions/torch-engine.md says why it is built this way and what was measured.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sized
from collections.abc import Sequence as Many
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.engines.adapter_pool import AdaptedModel
from swift.engines.admission import Admission
from swift.engines.base import NOTHING_SHOWN, Delta, Reader, Request, TokenLogprob
from swift.engines.beam_search import beam_search
from swift.engines.embeddings import Vector, Vectors
from swift.engines.grammar import Grammars
from swift.engines.guesses import Guesses
from swift.engines.image_prompt import ImagePrompt, ImagePrompts
from swift.engines.kv_cache import free_memory
from swift.engines.log_probs import Continuations, Scored
from swift.engines.packed_linear import pack
from swift.engines.runner_probe import choose_runner
from swift.engines.sampler import Pick, pick_all
from swift.engines.scheduler import Scheduler, Work
from swift.engines.sequence import Sequence, end_ids, named
from swift.models.context_window import context_length
from swift.models.families import MediaProcessor
from swift.models.value_head import ValueHead, load_head
from swift.prompts.types import Encoded, Media

CPU_CHUNK, GPU_CHUNK = 512, 4096
"""Prompt tokens computed in one step: what answers under way wait for at most."""
PLACES = 64
"""Sequences that run at once; more of them wait."""
ENDLESS = 2**17
"""Tokens of prompt and answer where the model itself knows no limit."""

Deliver = Callable[[Delta], None]


class TorchEngine:
    """A model in this process as an Engine. `adapters` maps names to LoRA folders.

    More may be added, where `admit` does not raise. `heads` maps adapters (None: the model) to folders of value heads.

    `load` makes the model in the worker thread. OpenMP keeps a team of threads for each thread that ever computed with
    PyTorch, and once the teams together outnumber the cores every parallel region waits for the operating system.
    `repack` may lay its weights out anew, after which they cannot be trained. `guess` lets an answer that runs alone
    have several tokens in a step, where that changes no number (see prompt_lookup.py). `images` makes their pixels.
    """

    def __init__(
        self,
        load: Callable[[], PreTrainedModel],
        tokenizer: Any,
        *,
        adapters: Mapping[str, Path] | None = None,
        heads: Mapping[str | None, Path] | None = None,
        admit: Callable[[Path], None] = lambda adapter: None,
        max_model_len: int | None = None,
        places: int = PLACES,
        chunk: int | None = None,
        cache_bytes: int | None = None,
        repack: bool = True,
        guess: bool = True,
        images: MediaProcessor | None = None,
    ):
        self.tokenizer = tokenizer
        self._images = images
        self._image_prompts = ImagePrompts(images)
        self._opening, self._shown = ((), frozenset()) if images is None else images.answer_form(tokenizer)
        self._grammars = Grammars(tokenizer)
        self._admit = admit
        self._deliver: dict[Sequence, Deliver] = {}
        self._beams: list[list[Sequence]] = []
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closing = self._closed = False
        ready: Future[None] = Future()
        self._heads: dict[str | None, ValueHead] = {}
        settings = adapters or {}, heads or {}, max_model_len, places, chunk, cache_bytes, repack, guess
        set_up = partial(self._set_up, load, *settings)
        self._worker = threading.Thread(target=self._live, args=(set_up, ready), name="torch-engine", daemon=True)
        self._worker.start()
        ready.result()

    def _live(self, set_up: Callable[[], None], ready: Future[None]) -> None:
        """What the worker thread does."""
        try:
            set_up()
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        self._work()

    def _set_up(
        self,
        load: Callable[[], PreTrainedModel],
        adapters: Mapping[str, Path],
        heads: Mapping[str | None, Path],
        max_model_len: int | None,
        places: int,
        chunk: int | None,
        cache_bytes: int | None,
        repack: bool,
        guess: bool,
    ) -> None:
        model = load()
        device = model.device
        self.max_model_len = max_model_len or context_length(model.config) or ENDLESS
        if repack:
            pack(model)
        self._model = AdaptedModel(model.eval())
        takes = () if self._images is None else self._images.kinds
        self._admission = Admission(self._model, self.max_model_len, takes=takes, one_decoder=not self._opening)
        for name, folder in adapters.items():
            self._model.add(name, Path(folder))
        self._heads.update((name, load_head(model, folder)) for name, folder in heads.items())
        self._runner = choose_runner(
            self._model,
            budget=cache_bytes or free_memory(device),
            max_length=self.max_model_len,
            places=places,
            images=self._images,
        )
        self.guesses = Guesses(self._runner, wanted=guess)
        chunk = chunk or (CPU_CHUNK if device.type == "cpu" else GPU_CHUNK)
        self._scheduler = Scheduler(self._runner, chunk=chunk, places=places)
        self._vectors = Vectors(self._model, chunk if self._runner.splits_prompts else None, self.max_model_len)
        self._continuations = Continuations(self._model, self._opening)
        vocabulary = max(map(self._model.tokens, (None, *self.adapters)))
        self._end_ids = frozenset(token for token in end_ids(model, self.tokenizer) if token < vocabulary)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the LoRAs it serves."""
        return self._model.names

    @property
    def reader(self) -> Reader:
        """It reads texts itself."""
        return self

    @property
    def _queues(self) -> tuple[Sized, ...]:
        """What waits for a turn."""
        return self._scheduler.waiting, self._beams, self._vectors, self._continuations

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Deltas as they are made; closing the iterator frees the place. Raises SwiftError for what cannot run."""
        self._admission.request(request)
        loop = asyncio.get_running_loop()
        deltas: asyncio.Queue[Delta] = asyncio.Queue()
        sequences = await self._sequences(request)

        def deliver(delta: Delta) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(deltas.put_nowait, delta)

        self._inbox.put(lambda: self._join(request, sequences, deliver))
        unfinished = request.sampling.n
        try:
            while unfinished:
                delta = await deltas.get()
                unfinished -= delta.finish_reason is not None
                yield delta
        finally:
            if unfinished:
                for sequence in sequences:
                    sequence.abandoned = True
                self._inbox.put(lambda: self._leave(sequences))

    async def embed(self, texts: Many[tuple[int, ...]], adapter: str | None = None) -> list[Vector]:
        """The normalised last hidden state of each text's last token. Raises SwiftError for what cannot be read."""
        return await self._read(texts, adapter, None, ())

    async def score(self, answers: Many[Encoded], adapter: str | None = None) -> list[float]:
        """What the value head gives for each answer's last token. Raises SwiftError for what cannot be read."""
        if adapter not in self._heads:
            raise SwiftError(f"{f'`{adapter}`' if adapter else 'the model'} has no value head, and gives no scores")
        for answer in answers:
            self._admission.media(answer.media)
        texts = [tuple(answer.input_ids) for answer in answers]
        make, base = self._image_prompts.make, self._model.base
        shown = [await make(base, ids, one.media, one.labels) for ids, one in zip(texts, answers, strict=True)]
        return [score for (score,) in await self._read(texts, adapter, self._heads[adapter], shown)]

    async def _read(
        self, texts: Many[tuple[int, ...]], adapter: str | None, head: ValueHead | None, shown: Many[ImagePrompt | None]
    ) -> list[Vector]:
        self._admission.vectors(texts, adapter)
        result: Future[list[Vector]] = Future()
        self._inbox.put(lambda: self._vectors.add(texts, adapter, result, head, shown))
        return await asyncio.wrap_future(result)

    async def log_probs(
        self,
        prompt_ids: tuple[int, ...],
        continuations: Many[tuple[int, ...]],
        adapter: str | None = None,
        top: int = 0,
        media: Media = NOTHING_SHOWN,
    ) -> list[list[TokenLogprob]]:
        """The log-probability of each token of each continuation, and the likeliest in its place. Raises SwiftError."""
        self._admission.media(media)
        self._admission.texts([prompt_ids, *continuations], adapter)
        self._admission.texts([(*prompt_ids, *tokens) for tokens in continuations], adapter)
        images = await self._image_prompts.make(self._model.base, prompt_ids, media)
        result: Future[list[list[Pick]]] = Future()
        scored = Scored(prompt_ids, continuations, adapter, top, result, images)
        self._inbox.put(lambda: self._continuations.add(scored))
        return [[named(pick, self.tokenizer) for pick in picks] for picks in await asyncio.wrap_future(result)]

    async def add_adapter(self, name: str, folder: str) -> None:
        """Serve the LoRA at `folder` under `name`. Raises SwiftError when it does not fit, or `admit` refuses it."""
        await asyncio.to_thread(self._admit, Path(folder))
        added: Future[None] = Future()

        def add() -> None:
            try:
                self._model.add(name, Path(folder))
                self._runner.forget(name)
            except Exception as error:
                added.set_exception(error)
            else:
                added.set_result(None)

        self._inbox.put(add)
        await asyncio.wrap_future(added)

    async def together(self, requests: Many[Request]) -> list[list[Delta]]:
        """The deltas of each request (of one answer each). They begin in the same step, so that what shares a batch,
        and with it the rounding, does not depend on when a request arrived. Raises SwiftError for what cannot run."""
        for request in requests:
            self._admission.request(request)
        sequences = [await self._sequences(request) for request in requests]
        deltas: list[list[Delta]] = [[] for _ in requests]
        unfinished = set(range(len(requests)))
        done: Future[None] = Future()

        def deliver(number: int, delta: Delta) -> None:
            deltas[number].append(delta)
            if delta.finish_reason is not None:
                unfinished.discard(number)
                if not unfinished:
                    done.set_result(None)

        def join() -> None:
            for number, request in enumerate(requests):
                self._join(request, sequences[number], partial(deliver, number))

        if requests:
            self._inbox.put(join)
            await asyncio.wrap_future(done)
        return deltas

    def statistics(self) -> dict[str, float]:
        """Sequences running and waiting, and the share of the KV cache in use."""
        return {
            "running": float(len(self._scheduler.running)),
            "waiting": float(sum(map(len, self._queues))),
            "kv_used": self._runner.used,
        }

    async def close(self) -> None:
        """End what is running with "abort" and stop the worker."""
        if not self._closed:
            self._closing = True
            self._image_prompts.close()
            self._inbox.put(self._stop)
            await asyncio.to_thread(self._worker.join)

    async def _sequences(self, request: Request) -> list[Sequence]:
        limit = min(len(request.prompt_ids) + request.sampling.max_tokens, self.max_model_len)
        images = await self._image_prompts.make(self._model.base, request.prompt_ids, request.media)
        constraint = request.sampling.grammar
        grammars = [
            None if constraint is None else await asyncio.to_thread(self._grammars.make, constraint)
            for _ in range(request.sampling.n)
        ]
        return [
            Sequence(request, index, self.tokenizer, self._end_ids, limit, grammar, images, self._opening, self._shown)
            for index, grammar in enumerate(grammars)
        ]

    # Everything below runs in the worker thread.

    def _work(self) -> None:
        while not self._closed:
            self._read_inbox()
            if self._closed:
                break
            try:
                with torch.inference_mode():
                    self._step()
            except Exception as error:  # a mistake of the engine's own must not end the server either
                log.exception("a step of the engine failed")
                self._fail(list(self._scheduler.running), describe(error))

    def _read_inbox(self) -> None:
        """Do what was asked meanwhile; with nothing to compute, wait for it."""
        idle = not (self._scheduler.running or any(self._queues))
        while idle or not self._inbox.empty():
            self._inbox.get()()
            idle = False

    def _join(self, request: Request, sequences: list[Sequence], deliver: Deliver) -> None:
        self._deliver.update((sequence, deliver) for sequence in sequences)
        if request.sampling.num_beams > 1:
            self._beams.append(sequences)
        else:
            for sequence in sequences:
                self._scheduler.add(sequence)

    @torch.inference_mode()  # giving a place back moves slots of the cache, which were made in this mode
    def _leave(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            self._deliver.pop(sequence, None)
            self._scheduler.drop(sequence)
        if sequences in self._beams:
            self._beams.remove(sequences)

    @torch.inference_mode()  # as above
    def _stop(self) -> None:
        self._closed = True
        for sequence in list(self._deliver):
            self._send(sequence, sequence.end("abort"))
        self._vectors.end()
        self._continuations.end()
        self._model.close()

    def _step(self) -> None:
        if self._beams:
            self._search(self._beams.pop(0))
        if self._vectors:
            self._vectors.step()
        if self._continuations:
            self._continuations.step()
        work = self._scheduler.next()
        if not work.sequences:
            # Nothing runs and still there is no room for the first in the queue: there never will be.
            stuck = [self._scheduler.waiting[0]] if self._scheduler.waiting else []
            self._fail(stuck, "the KV cache memory is too small for this request")
            return
        guess = self.guesses.propose(work)
        logits = self._extend(work, guess)
        if logits is None:
            return
        if guess:
            self._take_guessed(work.sequences[0], guess, logits)
            return
        ready = [at for at, sequence in enumerate(work.sequences) if self._scheduler.done(sequence)]
        if ready:
            sequences = [work.sequences[at] for at in ready]
            self._take(sequences, logits if len(ready) == len(logits) else logits[ready])

    def _extend(self, work: Work, guess: list[int]) -> Tensor | None:
        """Logits of the step. Where that fails (memory, one bad request) the one request ends, not those beside it."""
        try:
            if guess:
                logits = self.guesses.extend(work.sequences[0], guess)
            else:
                logits = self._runner.extend(work.sequences, work.counts)
        except Exception as error:
            if len(work.sequences) == 1:
                log.exception("the next token of a request was not computed")
                self._fail(work.sequences, describe(error))
            else:
                log.warning("a step of %d requests failed, each is tried alone: %s", len(work.sequences), error)
                self._scheduler.isolate(work.sequences)
            return None
        self._scheduler.came_through(work)
        return logits

    def _take(self, sequences: list[Sequence], logits: Tensor) -> None:
        """Pick a token for each of the sequences, and send what it makes; a request that cannot go on fails."""
        try:
            picks = pick_all([sequence.picker for sequence in sequences], logits)
        except Exception as error:
            if len(sequences) == 1:
                log.exception("no token could be picked for a request")
                self._fail(sequences, describe(error))
            else:
                for at, sequence in enumerate(sequences):
                    self._take([sequence], logits[at : at + 1])
            return
        for sequence, pick in zip(sequences, picks, strict=True):
            try:
                delta = sequence.take(pick) if isinstance(pick, Pick) else sequence.end("error", pick.what)
            except Exception as error:  # a grammar that does not know the token
                log.exception("a token was picked that its request cannot take")
                delta = sequence.end("error", describe(error))
            self._send(sequence, delta)

    def _take_guessed(self, sequence: Sequence, guess: list[int], logits: Tensor) -> None:
        """Pick a token after the last one, and after each guessed one as long as the picks are those."""
        right = 0
        for row, token in enumerate([*guess, None]):
            self._take([sequence], logits[row : row + 1])
            if sequence.finish_reason is not None or sequence.tokens[-1] != token:
                break
            right += 1
        self.guesses.settle(sequence, guess, right)

    def _search(self, sequences: list[Sequence]) -> None:
        """A beam search, which transformers runs from beginning to end while the others wait."""
        try:
            answers = beam_search(self._model, sequences, lambda: self._closing or sequences[0].abandoned)
        except Exception as error:
            log.exception("a beam search failed")
            self._fail(sequences, describe(error))
            return
        for sequence, tokens in zip(sequences, answers, strict=True):
            self._send(sequence, sequence.take_all(tokens))

    @torch.inference_mode()
    def _fail(self, sequences: list[Sequence], error: str) -> None:
        for sequence in sequences:
            self._send(sequence, sequence.end("error", error))

    def _send(self, sequence: Sequence, delta: Delta | None) -> None:
        if delta is None:
            return
        deliver = self._deliver.get(sequence)
        if delta.finish_reason is not None:
            self._deliver.pop(sequence, None)
            self._scheduler.drop(sequence)
        if deliver is not None:
            deliver(delta)


def describe(error: Exception) -> str:
    """What went wrong inside of a model, in one line."""
    return f"{type(error).__name__}: {error}"
