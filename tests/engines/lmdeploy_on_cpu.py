"""LMDeploy's own models on a CPU: its code of a family, its input processors, its places, its loading of weights.

Of what runs on a CUDA device alone, the two attentions and the batches are done here; its other operators have plain
versions there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lmdeploy.messages import EngineOutput, ResponseType  # pyright: ignore
from lmdeploy.pytorch import config as lmdeploy_config  # pyright: ignore
from lmdeploy.pytorch.backends import attention, flash_attention, selector  # pyright: ignore
from lmdeploy.pytorch.backends.default import op_backend  # pyright: ignore
from lmdeploy.pytorch.messages import SchedulerSession, SequenceMeta  # pyright: ignore
from lmdeploy.pytorch.model_inputs import ModelInputs, VisionModelInputs, step_ctx_manager  # pyright: ignore
from lmdeploy.pytorch.models.patch import build_patched_model  # pyright: ignore
from lmdeploy.pytorch.strategies.ar.sequence import ARSequenceStrategy  # pyright: ignore
from lmdeploy.pytorch.weight_loader.model_weight_loader import load_model_weights  # pyright: ignore
from lmdeploy.serve.core import AsyncEngine  # pyright: ignore
from torch import Tensor

from swift.engines import lmdeploy


def _attend(query: Tensor, key: Tensor, value: Tensor, spec: Any) -> Tensor:
    """Attention of one sequence, (tokens, heads, size)."""
    count = len(query)
    seen = torch.ones(count, count, dtype=torch.bool)
    if spec.causal:
        seen = seen.tril()
    if spec.sliding_window not in (None, -1, 0):
        seen &= ~seen.tril(-spec.sliding_window)
    found = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        key.transpose(0, 1)[None],
        value.transpose(0, 1)[None],
        seen,
        scale=spec.scale,
        enable_gqa=True,
    )
    return found[0].transpose(0, 1)


class Flash(flash_attention.FlashAttentionImpl):
    """That of towers: sequences end to end."""

    def __init__(self, spec: Any):
        self._spec = spec

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, q_start_loc: Tensor, q_seqlens: Tensor, *_: Any, **__: Any
    ) -> Tensor:
        queries, keys, values = (each.flatten(0, -3) for each in (query, key, value))
        parts = [
            _attend(queries[start:end], keys[start:end], values[start:end], self._spec)
            for start, end in zip(q_start_loc.tolist(), (q_start_loc + q_seqlens).tolist(), strict=True)
        ]
        return torch.cat(parts).view(*query.shape[:-1], -1)


class Paged:
    """That of decoders, over one prompt that is computed whole."""

    def __init__(self, spec: Any):
        self._spec = spec

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        return _attend(query, key, value, self._spec)


class OnCpu(op_backend.DefaultOpsBackend):
    """LMDeploy's plain operators, with the attentions that they lack."""

    @classmethod
    def build_op(cls, spec: Any, *, enable_deterministic: bool = False) -> Any:
        if isinstance(spec, flash_attention.FlashAttentionBuildSpec):
            return Flash(spec)
        if isinstance(spec, attention.PagedAttentionBuildSpec):
            return Paged(spec)
        return super().build_op(spec, enable_deterministic=enable_deterministic)

    @classmethod
    def update_step_context(cls, step_context: Any) -> Any:
        step_context.attn_metadata = attention.AttentionMetadata(
            is_decoding=False, block_offsets=None, q_seqlens=step_context.q_seqlens, kv_seqlens=step_context.kv_seqlens
        )
        return step_context


def put_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let LMDeploy's engine run here."""
    monkeypatch.setattr(selector, "_get_backend", lambda: OnCpu)
    monkeypatch.setattr(AsyncEngine, "_build_pytorch", lambda _, **named: EngineOnCpu(**named))
    monkeypatch.setattr(lmdeploy, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True)))


def load(folder: str) -> Any:
    """The model of a folder as LMDeploy's PyTorch engine makes it, in fp32."""
    config = lmdeploy_config.ModelConfig.from_pretrained(folder, dtype="float16")
    config.dtype = torch.float32
    model = build_patched_model(config, torch.device("cpu"))
    load_model_weights(model, folder)
    model.of_engine = config
    return model


@torch.inference_mode()
def logits(model: Any, ids: Sequence[int], multimodal: list[dict[str, Any]]) -> Tensor:
    """(tokens, vocabulary) after a prompt with what LMDeploy is told of its media."""
    shown = None
    if multimodal:
        made = model.get_input_processor().preprocess_input(list(ids), multimodal)
        assert list(made.input_ids) == list(ids)
        shown = made.input_multimodals
    meta = SequenceMeta(block_size=64, strategy=ARSequenceStrategy(), use_mrope=model.of_engine.use_mrope)
    session = SchedulerSession(0, meta, SimpleNamespace(new_sequence_id=lambda: 0, add_sequence=lambda *_: None))
    sequence = session.add_sequence(torch.tensor(ids), multimodals=shown)
    length = torch.tensor([len(ids)])
    inputs = ModelInputs(
        input_ids=torch.tensor([list(ids)]),
        seq_length=length,
        history_lengths=torch.tensor([0]),
        block_offsets=torch.zeros(1, 1, dtype=torch.int32),
        is_decoding=False,
        num_ignored_history=torch.tensor([0]),
        max_q_seqlen=len(ids),
        max_kv_seqlen=len(ids),
        sum_kv_seqlen=len(ids),
        model_metas=[None],
        vision_inputs=None if shown is None else VisionModelInputs(input_multimodals=[shown]),
    )
    if model.of_engine.use_mrope:
        inputs.mrope_pos_ids = torch.as_tensor(sequence.mrope_pos_ids).T
    caches = [[torch.empty(0), torch.empty(0)]] * model.of_engine.num_layers
    manager = model.ctx_mgr
    config = lmdeploy_config.CacheConfig(max_batches=1, block_size=64, num_cpu_blocks=0, num_gpu_blocks=1)
    with step_ctx_manager(manager):
        context = manager.build_context(inputs, model.of_engine, config, caches)
        with manager.context(context):
            given = model.prepare_inputs_for_generation(past_key_values=caches, context=context)
            hidden = model(**given)
            return model.get_logits(hidden)[0].float()


class EngineOnCpu:
    """In the place of LMDeploy's PyTorch engine, below its `AsyncEngine`: greedy, one prompt at a time, no cache."""

    def __init__(self, model_path: str, backend_config: Any, **_: Any):
        backend_config.max_batch_size = 4
        self.engine_config = backend_config
        self.model = load(model_path)

    def create_instance(self) -> EngineOnCpu:
        return self

    def start_loop(self) -> bool:
        return True

    def close(self) -> None:
        pass

    async def async_cancel(self, session_id: int) -> None:
        pass

    async def async_stream_infer(
        self, session_id: int, input_ids: list[int], gen_config: Any, multimodal: Any = None, **__: Any
    ) -> AsyncIterator[Any]:
        answer: list[int] = []
        for _ in range(gen_config.max_new_tokens):
            likely = logits(self.model, [*input_ids, *answer], multimodal or [])[-1].log_softmax(-1)
            answer.append(int(likely.argmax()))
            yield EngineOutput(ResponseType.SUCCESS, answer[-1:], [{answer[-1]: float(likely[answer[-1]])}])
        yield EngineOutput(ResponseType.FINISH, [])
