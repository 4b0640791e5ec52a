"""How far a quantized model is from the original: perplexity, divergence and choices on held rows, and speed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from swift.exporting.calibration import HeldRow

ANSWERS = 4
"""Held rows whose prompt both models answer."""
NEW_TOKENS = 32


@dataclass(frozen=True)
class Seen:
    """What a model makes of the held rows."""

    log_probs: tuple[Tensor, ...]
    """One (T - 1, V) fp16 tensor on the CPU for each row: of each token that follows another."""
    perplexity: float
    answers: tuple[tuple[int, ...], ...]
    """Greedy tokens after the first prompts."""
    tokens_per_second: float


@dataclass(frozen=True)
class Report:
    """The original and the quantized model side by side."""

    source: str
    method: str
    bits: int
    group_size: int | None
    calibration_rows: int
    calibration_tokens: int
    held_tokens: int
    perplexity: float
    quantized_perplexity: float
    perplexity_ratio: float
    max_perplexity_ratio: float
    kl_divergence: float
    """Mean over the held tokens, in nats."""
    top1_agreement: float
    """Share of the held tokens where both models would go on with the same one."""
    bytes: int
    quantized_bytes: int
    tokens_per_second: float
    quantized_tokens_per_second: float
    seconds: float
    """Time that quantizing took."""
    answers: tuple[dict[str, str], ...]
    """`prompt`, `original` and `quantized`, as text."""

    def faults(self) -> list[str]:
        """Why the result must not be used; empty when it may."""
        if math.isfinite(self.perplexity_ratio) and self.perplexity_ratio <= self.max_perplexity_ratio:
            return []
        return [f"perplexity is {self.perplexity_ratio:.3f} of the original's, allowed is {self.max_perplexity_ratio}"]

    def lines(self) -> list[str]:
        """Five lines for people."""
        return [
            f"size        {self.bytes / 1e6:.1f} -> {self.quantized_bytes / 1e6:.1f} MB",
            f"perplexity  {self.perplexity:.3f} -> {self.quantized_perplexity:.3f} on {self.held_tokens} held tokens, "
            f"ratio {self.perplexity_ratio:.3f} (allowed {self.max_perplexity_ratio})",
            f"divergence  {self.kl_divergence:.4f} nats a token",
            f"agreement   {self.top1_agreement:.1%} of the next tokens are the same",
            f"speed       {self.tokens_per_second:.1f} -> {self.quantized_tokens_per_second:.1f} tokens/s, "
            f"quantized in {self.seconds:.0f} s",
        ]


@torch.inference_mode()
def look(model: PreTrainedModel, rows: Sequence[HeldRow]) -> Seen:
    """Run a model over the held rows, and let it answer the first of them."""
    log_probs, losses, count = [], 0.0, 0
    for row in rows:
        ids = torch.tensor([row.ids], device=_device(model))
        predicted = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        losses -= float(predicted.gather(-1, ids[0, 1:, None]).double().sum())
        count += len(row.ids) - 1
        log_probs.append(predicted.to("cpu", torch.float16))
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        eos_token_id=model.generation_config.eos_token_id if model.generation_config else None,
        pad_token_id=0,
    )
    generate: Any = model.generate
    answers, seconds = [], 0.0
    for row in rows[:ANSWERS]:
        ids = torch.tensor([row.ids[: max(row.prompt, 1)]], device=_device(model))
        began = time.perf_counter()
        out = generate(ids, attention_mask=torch.ones_like(ids), generation_config=greedy)
        seconds += time.perf_counter() - began
        answers.append(tuple(out[0, ids.shape[1] :].tolist()))
    mean = losses / count
    perplexity = math.exp(mean) if mean < 700 else math.inf  # NaN and too large a loss are no number
    speed = sum(map(len, answers)) / seconds
    return Seen(tuple(log_probs), perplexity, tuple(answers), speed)


def divergence(original: Seen, quantized: Seen) -> tuple[float, float]:
    """Mean Kullback-Leibler divergence of the quantized model from the original in nats, and top-1 agreement."""
    total, same, count = 0.0, 0, 0
    for left, right in zip(original.log_probs, quantized.log_probs, strict=True):
        expected, actual = left.float(), right.float()
        total += float(nn.functional.kl_div(actual, expected, log_target=True, reduction="sum"))
        same += int((expected.argmax(-1) == actual.argmax(-1)).sum())
        count += len(expected)
    return total / count, same / count


def _device(model: PreTrainedModel) -> torch.device:
    return next(model.parameters()).device
