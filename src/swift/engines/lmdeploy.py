"""The LMDeploy backend: its `AsyncEngine` in this process, behind the Engine protocol. It needs a CUDA device.

LMDeploy picks between its two engines by the model; adapters need the PyTorch one, which takes them at the start only,
and so do models that see: of the other's towers nothing is known here.
Its config classes are built through `checked`: some of them take unknown keywords without a word.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from swift.core.errors import SwiftError
from swift.core.optional_imports import installed
from swift.engines.base import (
    JSON_OBJECT,
    NOTHING_SHOWN,
    Constraint,
    Delta,
    FinishReason,
    NoLogProbs,
    Request,
    SamplingParams,
    TokenLogprob,
)
from swift.engines.detokenizer import Detokenizer, StopStrings
from swift.engines.given_media import require_taken
from swift.engines.lmdeploy_adapters import require_adapter
from swift.engines.lmdeploy_media import REASONS, TAKEN, Item, items_of
from swift.params.groups import Lmdeploy
from swift.prompts.types import Media

if TYPE_CHECKING:
    from swift.models.families import MediaProcessor

NOT_STARTED = (ValueError, TypeError, RuntimeError, OSError, LookupError, AttributeError, AssertionError)
"""What LMDeploy raises for a model that it cannot build or load."""
DTYPES = {"fp16": "float16", "bf16": "bfloat16", "auto": "auto"}


@dataclass(frozen=True, kw_only=True)
class LmdeploySettings:
    """What LMDeploy is started with."""

    tp: int = 1
    cache_max_entry_count: float = 0.8
    """Share of the free memory for the KV cache."""
    quant_policy: int = 0
    """Bits of the KV cache, 4 or 8; 0 leaves it as it is."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Most media of a prompt, by kind."""
    session_len: int | None = None
    """Tokens of prompt and answer together; None takes the model's own length."""
    dtype: str = "auto"


def lmdeploy_settings(flags: Lmdeploy, **others: Any) -> LmdeploySettings:
    """The settings the flags ask for. `others` are those that are no LMDeploy flags (limits, session_len, dtype)."""
    return LmdeploySettings(
        tp=flags.tp,
        cache_max_entry_count=flags.cache_max_entry_count,
        quant_policy=flags.quant_policy,
        **others,
    )


def checked(cls: type, **values: Any) -> Any:
    """`cls(**values)`, once each name is known to be a field of `cls`. Raises SwiftError naming the one that is not."""
    known = {field.name for field in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            raise SwiftError(
                f"LMDeploy's {cls.__name__} has no field `{name}`",
                why="this release of LMDeploy is not the one this engine was written for",
                next="install lmdeploy 0.18",
            )
    try:
        return cls(**values)
    except (AssertionError, ValueError) as problem:
        raise SwiftError(f"LMDeploy refuses its {cls.__name__}", why=str(problem).strip().splitlines()[-1]) from None


def backend_config(settings: LmdeploySettings, adapters: Mapping[str, Path], *, sees: bool = False) -> Any:
    """LMDeploy's engine config: TurboMind's, or the PyTorch engine's where there are adapters to serve or media."""
    # LMDeploy has an environment of its own; without it, pyright may take this file for it.
    from lmdeploy import PytorchEngineConfig, TurbomindEngineConfig  # pyright: ignore

    if settings.dtype not in DTYPES:
        raise SwiftError(
            f"LMDeploy does not compute in {settings.dtype}", where="--dtype", next="use --dtype bf16 or fp16"
        )
    values: dict[str, Any] = {
        "tp": settings.tp,
        "cache_max_entry_count": settings.cache_max_entry_count,
        "quant_policy": settings.quant_policy,
        "session_len": settings.session_len,
        "dtype": DTYPES[settings.dtype],
    }
    if adapters or sees:
        folders = {name: str(folder) for name, folder in adapters.items()}
        return checked(PytorchEngineConfig, **values, adapters=folders or None)
    return checked(TurbomindEngineConfig, **values)


def _keep_errors_alone() -> None:
    """LMDeploy tells on standard output, where answers go, of each request."""
    log = logging.getLogger("lmdeploy")
    log.setLevel(logging.ERROR)
    for handler in log.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)


class LmdeployEngine:
    """LMDeploy as an Engine. Make one with `start`."""

    reader: None = None

    def __init__(
        self,
        engine: Any,
        tokenizer: Any,
        adapters: tuple[str, ...],
        images: MediaProcessor | None = None,
        limits: Mapping[str, int] = MappingProxyType({}),
    ):
        self.tokenizer = tokenizer
        self._images = images
        self._limits = limits
        self.max_model_len: int = engine.session_len
        self.adapters = adapters
        self._engine = engine

    @classmethod
    async def start(
        cls,
        model_dir: Path,
        tokenizer: Any,
        settings: LmdeploySettings,
        adapters: Mapping[str, Path] | None = None,
        images: MediaProcessor | None = None,
    ) -> LmdeployEngine:
        """Load the model and the LoRAs given by name. Raises SwiftError without CUDA or without LMDeploy.

        `images` makes the pixels of a model that sees.
        """
        if not torch.cuda.is_available():
            raise SwiftError("LMDeploy needs a CUDA device and this machine has none: use --infer_backend pt")
        if not installed("lmdeploy"):
            raise SwiftError("--infer_backend lmdeploy needs the package `lmdeploy`: pip install lmdeploy==0.18.0")
        from lmdeploy.archs import autoget_backend_config  # pyright: ignore[reportMissingImports]  # as above
        from lmdeploy.serve.core import AsyncEngine  # pyright: ignore[reportMissingImports]  # as above

        _keep_errors_alone()
        adapters = adapters or {}
        for adapter in adapters.values():
            require_adapter(adapter, sees=images is not None)
        folder = str(model_dir)
        # Without TurboMind support for the model this turns into the PyTorch engine's config, with the same values.
        backend, config = autoget_backend_config(folder, backend_config(settings, adapters, sees=images is not None))
        try:
            # Not its engine for models that see, which has processors and templates of its own before this one.
            engine = AsyncEngine(folder, backend=backend, backend_config=config)
        except NOT_STARTED as problem:
            raise SwiftError("LMDeploy did not start", where=folder, why=str(problem)) from problem
        engine.start_loop(asyncio.get_running_loop(), use_async_api=True)
        return cls(engine, tokenizer, tuple(adapters), images, settings.limits)

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Deltas as LMDeploy makes them. Raises SwiftError for a request that cannot be answered."""
        if request.adapter is not None and request.adapter not in self.adapters:
            known = ", ".join(self.adapters)
            raise SwiftError(
                f"there is no adapter `{request.adapter}`", next=f"it serves {known}" if known else "it serves none"
            )
        items: list[Item] = []
        if request.media.any:
            images = require_taken("LMDeploy", TAKEN, REASONS, self._images, request.media, self._limits)
            items = await asyncio.to_thread(items_of, images, request.prompt_ids, request.media)
        if request.sampling.n == 1:
            async with aclosing(self._answer(request, items, 0)) as deltas:
                async for delta in deltas:
                    yield delta
            return
        # LMDeploy makes one answer a session; n of them run side by side and their deltas come out as they are made.
        queue: asyncio.Queue[Delta | BaseException] = asyncio.Queue()
        tasks = [asyncio.create_task(self._into(queue, request, items, index)) for index in range(request.sampling.n)]
        unfinished = len(tasks)
        try:
            while unfinished:
                delta = await queue.get()
                if isinstance(delta, BaseException):
                    raise delta
                unfinished -= delta.finish_reason is not None
                yield delta
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _into(
        self, queue: asyncio.Queue[Delta | BaseException], request: Request, items: Sequence[Item], index: int
    ) -> None:
        try:
            async with aclosing(self._answer(request, items, index)) as deltas:
                async for delta in deltas:
                    queue.put_nowait(delta)
        except SwiftError as error:
            queue.put_nowait(error)

    async def _answer(self, request: Request, items: Sequence[Item], index: int) -> AsyncGenerator[Delta, None]:
        from lmdeploy.serve.core.exceptions import RequestError  # pyright: ignore[reportMissingImports]  # as above

        generation = generation_config(request.sampling, index)
        detokenizer, stops = Detokenizer(self.tokenizer), StopStrings(request.sampling.stop)
        session = self._engine.session_mgr.get()
        try:
            prepared = await self._engine.preprocess(
                None,
                session,
                gen_config=generation,
                adapter_name=request.adapter,
                input_ids=list(request.prompt_ids),
            )
        except RequestError as problem:
            raise SwiftError(f"LMDeploy refuses the request: {problem}") from None
        if items:
            prepared.inputs["multimodal"] = [dict(item) for item in items]
        outputs = self._engine.generate(prepared)
        try:
            # Closing LMDeploy's generator cancels the session.
            async with aclosing(outputs):
                async for output in outputs:
                    text, stopped = stops.add("".join(map(detokenizer.add, output.token_ids or ())))
                    finish: FinishReason | None = "stop" if stopped else output.finish_reason
                    if finish and not stopped:
                        text += stops.add(detokenizer.rest())[0] + stops.rest()
                    yield Delta(
                        request_id=request.id,
                        index=index,
                        text=text,
                        token_ids=tuple(output.token_ids or ()),
                        logprobs=self._logprobs(output, request.sampling.logprobs),
                        finish_reason=finish,
                        error="LMDeploy gave the request up" if finish == "error" else None,
                        cached_tokens=output.cached_tokens,
                    )
                    if finish:
                        return
        except RequestError as problem:
            yield Delta(request_id=request.id, index=index, finish_reason="error", error=f"LMDeploy failed: {problem}")

    def _logprobs(self, output: Any, wanted: int | None) -> tuple[TokenLogprob, ...]:
        if wanted is None or not output.logprobs:
            return ()
        return tuple(
            TokenLogprob(
                self.tokenizer.decode([token_id]),
                token_id,
                position[token_id],
                tuple(
                    (self.tokenizer.decode([other]), other, value)
                    for other, value in sorted(position.items(), key=lambda pair: -pair[1])[:wanted]
                ),
            )
            for token_id, position in zip(output.token_ids, output.logprobs, strict=False)
        )

    async def log_probs(
        self,
        prompt_ids: tuple[int, ...],
        continuations: Sequence[tuple[int, ...]],
        adapter: str | None = None,
        top: int = 0,
        media: Media = NOTHING_SHOWN,
    ) -> list[list[TokenLogprob]]:
        """Refused: raises NoLogProbs."""
        raise NoLogProbs("LMDeploy")

    async def add_adapter(self, name: str, folder: str) -> None:
        """LMDeploy takes adapters at the start only. Raises SwiftError."""
        raise SwiftError(
            f"LMDeploy cannot take the adapter `{name}` while it runs",
            where=folder,
            next=f"start with --lora_modules {name}={folder}",
        )

    def statistics(self) -> dict[str, float]:
        """What LMDeploy's scheduler tells now."""
        now = self._engine.engine.get_schedule_metrics()
        return {
            "running": float(now.active_seqs),
            "waiting": float(now.waiting_seqs),
            "kv_used": float(now.cache_usage),
        }

    async def close(self) -> None:
        """Stop the work and give the memory back."""
        await self._engine.stop_all_session()
        self._engine.close()


def generation_config(sampling: SamplingParams, index: int = 0) -> Any:
    """LMDeploy's GenerationConfig for answer `index`. Raises SwiftError for a wish it has no field for.

    Greedy is `top_k` 1: with `do_sample` off LMDeploy would drop the repetition penalty without a word. Stop strings
    are found here, not there: it drops those of more than one token.
    """
    from lmdeploy import GenerationConfig  # pyright: ignore  # as above

    refused = (
        ("num_beams", sampling.num_beams, sampling.num_beams > 1),
        ("presence_penalty", sampling.presence_penalty, sampling.presence_penalty != 0),
        ("frequency_penalty", sampling.frequency_penalty, sampling.frequency_penalty != 0),
        ("logit_bias", dict(sampling.logit_bias), bool(sampling.logit_bias)),
        ("temperature", sampling.temperature, sampling.temperature > 2),
        ("response_format beside tools", "", sampling.grammar is not None and sampling.grammar.kind == "lark"),
    )
    for name, value, is_refused in refused:
        if is_refused:
            raise SwiftError(f"LMDeploy does not do `{name}` {value}", next="use --infer_backend pt")
    greedy = sampling.temperature == 0
    return checked(
        GenerationConfig,
        max_new_tokens=sampling.max_tokens,
        min_new_tokens=sampling.min_tokens,
        do_sample=True,
        temperature=1.0 if greedy else sampling.temperature,
        top_k=1 if greedy else sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        ignore_eos=sampling.ignore_eos,
        repetition_penalty=sampling.repetition_penalty,
        random_seed=None if sampling.seed is None else sampling.seed + index,
        stop_token_ids=list(sampling.stop_token_ids) or None,
        # It gives none at 0; the chosen token's own comes with any number above.
        logprobs=None if sampling.logprobs is None else max(sampling.logprobs, 1),
        response_format=_response_format(sampling.grammar),
    )


def _response_format(grammar: Constraint | None) -> dict[str, Any] | None:
    if grammar is None:
        return None
    if grammar == JSON_OBJECT:
        return {"type": "json_object"}
    if grammar.kind == "choice":
        return {"type": "regex_schema", "regex_schema": "|".join(map(re.escape, json.loads(grammar.text)))}
    if grammar.kind == "regex":
        return {"type": "regex_schema", "regex_schema": grammar.text}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": json.loads(grammar.text)}}
