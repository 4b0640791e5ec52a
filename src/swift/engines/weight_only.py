"""Answers of a CPU engine with weights of 8 or 4 bits, by PyTorch's own kernels; what is computed with them is bf16.

One row costs the bytes of the weights, so fewer bits are fewer milliseconds. docs/decisions/answers-on-a-cpu.md has the
figures. Training and adapters that were trained on a quantized base stay with bitsandbytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from swift import models
from swift.core.log import log
from swift.engines.packed_linear import PackedLinear
from swift.plan.model import ModelPlan
from swift.plan.quantization import Dtype

GROUP = 32
"""Weights of a row that share a scale and an offset at 4 bits."""
OUT_MULTIPLE = 16
"""The kernels take layers whose outputs are a multiple of this, and whose inputs are one of GROUP."""
FEW_ROWS = 8
"""Rows of input from which on 8 bit weights are widened for oneDNN's product: the kernel reads them once for each."""
WIDENED = 2**20
"""Weights that are widened at a time: they stay in the cache, where those of a whole head would go to memory."""
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Shares of a group's range that are tried for its 16 steps; the outermost weights may be cut off for the others."""
TEXT = Path(__file__).with_name("agreement_text.json")
TOKENS = 256
"""Of the text, at most."""
INT8_PRODUCT = torch.ops.aten._weight_int8pack_mm.default
INT4_PRODUCT = torch.ops.aten._weight_int4pack_mm_for_cpu.default
WEIGHTS = ("*.safetensors", "*.bin")


class Int8:
    """One scale for each output, 127 steps to either side."""

    alone = 1

    def __init__(self, weight: Tensor):
        wide = weight.detach().float()
        self._scales = (wide.abs().amax(1).clamp(min=1e-12) / 127).bfloat16()
        steps = (wide / self._scales.float()[:, None]).round()
        self._steps = steps.clamp(-127, 127).to(torch.int8)

    def product(self, input: Tensor, bias: Tensor | None) -> Tensor:
        rows = input.reshape(-1, input.shape[-1])
        if len(rows) < FEW_ROWS:
            answer = INT8_PRODUCT(rows.contiguous(), self._steps, self._scales)
        else:
            pieces = self._steps.split(max(1, WIDENED // rows.shape[1]))
            answer = torch.cat([nn.functional.linear(rows, piece.to(rows.dtype)) for piece in pieces], dim=1)
            answer *= self._scales
        return _shaped(answer, input, bias)

    def dense(self) -> Tensor:
        return self._steps.bfloat16() * self._scales[:, None]


class Int4:
    """Groups of 32 inputs with a scale and an offset each, 16 steps."""

    alone = 1

    def __init__(self, weight: Tensor):
        groups = weight.detach().float().unflatten(1, (-1, GROUP))
        low, scale = _ranges(groups)
        steps = _steps(groups, low, scale)
        packed = steps.to(torch.int32).flatten(1)
        self._steps = torch.ops.aten._convert_weight_to_int4pack_for_cpu(packed, 1)
        # The kernel computes (step - 8) * scale + offset.
        self._ranges = torch.stack([scale[..., 0], low[..., 0] + 8 * scale[..., 0]], -1).transpose(0, 1)
        self._ranges = self._ranges.bfloat16().contiguous()

    def product(self, input: Tensor, bias: Tensor | None) -> Tensor:
        rows = input.reshape(-1, input.shape[-1]).contiguous()
        answer = INT4_PRODUCT(rows, self._steps, GROUP, self._ranges)
        return _shaped(answer, input, bias)

    def dense(self) -> Tensor:
        features = self._ranges.shape[0] * GROUP
        return self.product(torch.eye(features, dtype=torch.bfloat16), None).T.contiguous()


def _shaped(answer: Tensor, input: Tensor, bias: Tensor | None) -> Tensor:
    if input.dim() != 2:
        answer = answer.reshape(*input.shape[:-1], -1)
    return answer if bias is None else answer + bias


def _ranges(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest value and step of each group, (out, groups, 1): those of SHRINKS with the smallest squared error."""
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    middle, half = (low + high) / 2, (high - low) / 2
    start, scale, least = torch.zeros_like(low), torch.ones_like(low), torch.full_like(low, torch.inf)
    for share in SHRINKS:
        # The kernel is given bf16 numbers: the error is that of the rounded range.
        new_scale = (2 * share * half / 15).clamp(min=1e-12).bfloat16().float()
        new_start = (middle - share * half + 8 * new_scale).bfloat16().float() - 8 * new_scale
        error = (_steps(groups, new_start, new_scale) * new_scale + new_start - groups).square().sum(-1, keepdim=True)
        better = error < least
        start, scale, least = (
            torch.where(better, new, old) for new, old in ((new_start, start), (new_scale, scale), (error, least))
        )
    return start, scale


def _steps(groups: Tensor, low: Tensor, scale: Tensor) -> Tensor:
    return ((groups - low) / scale).round().clamp(0, 15)


@dataclass(frozen=True)
class Agreement:
    """How near a quantized model's next tokens are to those of the model it was made from, over a text."""

    divergence: float
    """Mean KL divergence of its distributions from the whole model's, in nats."""
    same_choice: float
    """Share of the places where the likeliest token is the same."""
    tokens: int


def load_quantized(plan: ModelPlan, source: Path, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The plan's model with linear layers of `plan.quant.bits`; says how far its answers are from the whole one's.

    The whole model is in memory before, in fp32 where that takes no more than half of what is free.
    """
    assert plan.quant is not None
    bits = plan.quant.bits
    model = models.load_model(replace(plan, quant=None, dtype=_dtype_before(source)), source)
    text = json.loads(TEXT.read_text("utf-8"))["text"]
    ids = torch.tensor([tokenizer(text)["input_ids"][:TOKENS]])
    before = str(model.dtype).removeprefix("torch.")
    whole = _log_probs(model, ids)
    chosen, left = quantize(model, bits)
    agreement = compare(whole, _log_probs(model, ids))
    log.info(
        "%d linear layers in %d bit%s; over a text of %d tokens: KL %.3g from the model in %s, %.1f%% of the likeliest "
        "tokens the same",
        chosen,
        bits,
        f", {left} stay in bf16 whose sizes the kernels do not take" if left else "",
        agreement.tokens,
        agreement.divergence,
        before,
        100 * agreement.same_choice,
    )
    return model


@torch.no_grad()
def quantize(model: PreTrainedModel, bits: int) -> tuple[int, int]:
    """Put packed layers of 8 or 4 bits in the place of the plain ones on a CPU, and bf16 in the place of what is left.

    The head has 8 bits: of what it gets wrong nothing is made up for. -> how many layers were quantized, and how many
    were left for their sizes.
    """
    head = model.get_output_embeddings()
    chosen = left = 0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is not nn.Linear or layer.weight.device.type != "cpu":
                continue
            if layer.out_features % OUT_MULTIPLE or layer.in_features % GROUP:
                left += 1
                continue
            setattr(parent, name, PackedLinear(layer, Int8 if bits == 8 or layer is head else Int4))
            chosen += 1
    nn.Module.to(model, dtype=torch.bfloat16)  # transformers wraps `to` without its types
    return chosen, left


@torch.no_grad()
def compare(whole: Tensor, quantized: Tensor) -> Agreement:
    """Of two tables of log-probabilities, (tokens, vocabulary)."""
    divergence = (whole.exp() * (whole - quantized)).sum(-1).mean()
    same = (whole.argmax(-1) == quantized.argmax(-1)).float().mean()
    return Agreement(float(divergence), float(same), len(whole))


@torch.inference_mode()
def _log_probs(model: PreTrainedModel, ids: Tensor) -> Tensor:
    return model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)


def _dtype_before(source: Path) -> Dtype:
    """What the weights are quantized from. A file of fp32 weights is half as large as is reckoned here."""
    stored = sum(file.stat().st_size for pattern in WEIGHTS for file in source.glob(pattern))
    return "fp32" if 2 * stored <= psutil.virtual_memory().available / 2 else "bf16"
