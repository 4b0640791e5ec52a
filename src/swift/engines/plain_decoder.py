"""The forward pass of plain decoders (Llama, Mistral, Qwen 2 and 3) over slots, without what their modules cost.

transformers spends 15 ms on a token of SmolLM2 before the first weight is read, as much as all its weights cost in
4 bits. Here the same arithmetic goes straight from weight to weight. The weights stay in the model's own modules, which
are called; what attention is in a layer (its scale, its window) is what `Survey` saw. Whether a model's logits are the
same is tried, and where they are not, its own forward stays in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.core.log import log
from swift.engines.kv_attention import How, Step, Survey
from swift.engines.packed_linear import PackedLinear

FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
"""Modules of transformers.models, and how the names of their classes begin."""
ROWS = 7
"""The most rows of a step that `rows_are_alone` speaks of; from 8 on weights of 8 bits are multiplied otherwise."""
TRIED = 24
"""Tokens of the text that a model and its decoder are compared on."""


class NotPlain(Exception):
    """The model has more to it than these layers."""


class PlainDecoder:
    """The layers of a model. Raises NotPlain for one that is not of FAMILIES, on one device, and with nothing hooked
    between its layers. `hows` is what attention is in each layer."""

    def __init__(self, model: Any, hows: Sequence[How]):
        _check(model)
        inner = model.model
        self._embed, self._rotary, self._head = inner.embed_tokens, inner.rotary_emb, model.lm_head
        self._norm = _Norm.of(inner.norm)
        self._layers = [_Layer.of(layer, how) for layer, how in zip(inner.layers, hows, strict=True)]
        packed = [module.alone for module in inner.layers.modules() if isinstance(module, PackedLinear)]
        self._alone = min(packed, default=1)
        self._kinds = {str(layer): number for number, layer in enumerate(inner.layers)}

    def logits(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        step: Step,
        keep: Tensor | None = None,
        layers: Sequence[int] | None = None,
    ) -> Tensor:
        """Logits of a step, (B, T, vocabulary); `keep` picks positions of T, `layers` those that are run.

        input_ids and position_ids are (B, T), as the step has its rows.
        """
        hidden = self._embed(input_ids)
        cos, sin = self._rotary(hidden, position_ids)
        # Rotating turns the sign of the first half; here the sine has it.
        half = sin.shape[-1] // 2
        sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
        turn = cos[:, :, None], sin[:, :, None]
        hidden = hidden.flatten(0, 1)  # rows are what layers see
        rows = len(hidden)
        if rows == 1:  # widened here once, and not by each product
            hidden = hidden.expand(self._alone, -1).contiguous()
        for number in range(len(self._layers)) if layers is None else layers:
            hidden = self._layers[number].forward(number, hidden, turn, step)
        hidden = hidden[:rows].unflatten(0, input_ids.shape)
        if keep is not None:
            hidden = hidden[:, keep]
        return self._head(self._norm(hidden))

    @cached_property
    def rows_are_alone(self) -> bool:
        """Whether what a row of a batch gives is the same, bit for bit, whatever number of rows comes with it.

        Products of matrices may add up in another order for another number of rows. Three layers are tried, and one of
        each kind; in half precision, rounding hides most of what would differ in one.
        """
        table = self._embed.weight
        ids = torch.arange(3, 3 + ROWS, device=table.device)[:, None] % len(table)
        last = len(self._layers) - 1
        layers = sorted({0, last // 2, last, *self._kinds.values()})

        def rows(part: slice) -> Tensor:
            return self.logits(ids[part], ids[part], _Everything(), layers=layers)

        alone = torch.cat([rows(slice(at, at + 1)) for at in range(ROWS)])
        return all(torch.equal(rows(slice(count)), alone[:count]) for count in range(2, ROWS + 1))


@dataclass(frozen=True)
class OwnStep:
    """A short text as one step over slots, by a model's own forward pass."""

    ids: Tensor
    """(1, T)."""
    positions: Tensor
    """(1, T)."""
    logits: Tensor
    """(T, vocabulary)."""
    survey: Survey
    """What each layer would have stored."""

    @classmethod
    def of(cls, whole: Any, ids: Tensor) -> OwnStep:
        """The step of `whole`, whose attention is that of kv_attention.py."""
        survey, positions = Survey(), torch.arange(ids.shape[1], device=ids.device)[None]
        output = whole(input_ids=ids, position_ids=positions, use_cache=False, slots_step=survey)
        return cls(ids, positions, output.logits[0], survey)


def plain_decoder(
    model: PreTrainedModel, whole: Any, hows: Sequence[How], own: OwnStep | None = None
) -> PlainDecoder | None:
    """The decoder of `model` where its logits are, bit for bit, those of `whole`: the model with what is around it.

    `own` is a step of `whole`, where one was computed already.
    """
    try:
        plain = PlainDecoder(model, hows)
        if own is None:
            embedding: Any = model.get_input_embeddings()
            ids = torch.arange(TRIED, device=embedding.weight.device)[None] * 37 % len(embedding.weight)
            own = OwnStep.of(whole, ids)
        agree = torch.equal(plain.logits(own.ids, own.positions, Survey())[0], own.logits)
    except Exception as error:  # whatever goes wrong on a way that is only tried, the way is not taken
        log.debug("%s: %s", type(error).__name__, error)
        return None
    return plain if agree else None


class _Everything:
    """A step without attention: a row gives the sum of its query, key and value, so that each of them counts."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        shared = query.shape[1] // key.shape[1]
        return (query + (key + value).repeat_interleave(shared, 1)).transpose(1, 2)


@dataclass(frozen=True)
class _Norm:
    """RMSNorm, in the order of operations that the families have it in."""

    module: Any
    epsilon: float

    @classmethod
    def of(cls, module: Any) -> _Norm:
        return cls(module, module.variance_epsilon)

    def __call__(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        scale = wide.pow(2).mean(-1, keepdim=True).add_(self.epsilon).rsqrt_()
        return (wide * scale).to(hidden.dtype) * self.module.weight


@dataclass(frozen=True)
class _Layer:
    how: How
    head_dim: int
    before: _Norm
    query: nn.Module
    key: nn.Module
    value: nn.Module
    norms: list[_Norm]
    """Of queries and keys, where there are any."""
    output: nn.Module
    between: _Norm
    gate: nn.Module
    up: nn.Module
    activation: nn.Module
    down: nn.Module

    @classmethod
    def of(cls, layer: Any, how: How) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        return cls(
            how,
            attention.head_dim,
            _Norm.of(layer.input_layernorm),
            attention.q_proj,
            attention.k_proj,
            attention.v_proj,
            [_Norm.of(norm) for norm in _head_norms(attention)],
            attention.o_proj,
            _Norm.of(layer.post_attention_layernorm),
            mlp.gate_proj,
            mlp.up_proj,
            mlp.act_fn,
            mlp.down_proj,
        )

    def forward(self, number: int, hidden: Tensor, turn: tuple[Tensor, Tensor], step: Step) -> Tensor:
        """(B x T, hidden size) -> the same; `turn` are the cosine and the sine of positions, (B, T, 1, head dim).

        A single row may come several times; attention sees it once.
        """
        cos, sin = turn
        rows, shape = cos.shape[0] * cos.shape[1], (*cos.shape[:2], -1, self.head_dim)
        normed = self.before(hidden)
        query, key, value = (part(normed)[:rows].view(shape) for part in (self.query, self.key, self.value))
        if self.norms:
            query, key = self.norms[0](query), self.norms[1](key)
        both = torch.cat((query, key), dim=2)
        both = both * cos + both.roll(self.head_dim // 2, dims=-1) * sin
        query, key = both.transpose(1, 2).split((query.shape[2], key.shape[2]), dim=1)
        attended = step.attend(number, query, key, value.transpose(1, 2), self.how).reshape(rows, -1)
        hidden = hidden + self.output(attended if rows == len(hidden) else attended.expand(len(hidden), -1))
        normed = self.between(hidden)
        return hidden + self.down(self.activation(self.gate(normed)) * self.up(normed))


def _check(model: PreTrainedModel) -> None:
    module = type(model).__module__.removeprefix("transformers.models.").partition(".")[0]
    family = FAMILIES.get(module, "no family")
    if type(model).__name__ != f"{family}ForCausalLM":
        raise NotPlain(type(model).__name__)
    inner: Any = model.model
    parts = {
        "Model": [inner],
        "DecoderLayer": list(inner.layers),
        "Attention": [layer.self_attn for layer in inner.layers],
        "MLP": [layer.mlp for layer in inner.layers],
        "RMSNorm": [inner.norm, *(norm for layer in inner.layers for norm in _norms(layer))],
    }
    for kind, modules in parts.items():
        for each in modules:
            if type(each).__name__ != f"{family}{kind}" or _is_hooked(each):
                raise NotPlain(type(each).__name__)
    if len({parameter.device for parameter in model.parameters()}) > 1:
        raise NotPlain("it lies on several devices")


def _norms(layer: Any) -> list[nn.Module]:
    """Of queries and keys too, where there are any."""
    return [layer.input_layernorm, layer.post_attention_layernorm, *_head_norms(layer.self_attn)]


def _head_norms(attention: Any) -> list[nn.Module]:
    return [attention.q_norm, attention.k_norm] if type(attention).__name__ == "Qwen3Attention" else []


def _is_hooked(module: nn.Module) -> bool:
    """Whether calling it is more than its class's forward."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
