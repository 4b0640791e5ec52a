"""What the model has a say in, before its weights are loaded: how long rows are, which tokens, what is recomputed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig, PreTrainedTokenizerBase

from swift.core.log import log
from swift.models import context_length, embedded_tokens
from swift.plan.sft import SftPlan


def fit_to_model(plan: SftPlan, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> SftPlan:
    """The plan within what the model can do; each change is said. Raises SwiftError where nothing would work."""
    plan = replace(plan, prompt=replace(plan.prompt, vocab_size=embedded_tokens(tokenizer, config)))
    return _recomputing(_within_context(plan, config), config)


def _within_context(plan: SftPlan, config: PretrainedConfig) -> SftPlan:
    """A packed sequence holds several rows, each with positions of its own, and may be longer than the context."""
    context, limit = context_length(config), plan.prompt.max_length
    if context is None or (limit is not None and limit <= context):
        return plan
    given = "any --max_length" if limit is None else f"--max_length {limit}"
    log.info("the model reads %d tokens, so rows have no more than that (instead of %s)", context, given)
    data = plan.data if plan.data.packing else replace(plan.data, max_length=context)
    return replace(plan, prompt=replace(plan.prompt, max_length=context), data=data)


def _recomputing(plan: SftPlan, config: PretrainedConfig) -> SftPlan:
    """The plan without gradient checkpointing where the class has none."""
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if plan.train.recompute is False or kind is None or kind.supports_gradient_checkpointing:
        return plan
    log.info("%s has no gradient checkpointing: all activations are kept", kind.__name__)
    return replace(plan, train=replace(plan.train, recompute=False))
