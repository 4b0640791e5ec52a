"""How a model is stepped: the engine's tokens are those of generate, whichever runner the trial at the start chose."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, tiny_model
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.engines.base import Engine, Request, SamplingParams
from swift.engines.sync_engine import Reply, SyncEngine
from swift.engines.torch import TorchEngine

PROMPTS = [[(7 * i + j * (i + 3)) % 490 + 3 for j in range(size)] for i, size in enumerate((5, 25, 60, 2))]
NEW = 12
FAST = {
    "gemma2": "SlotRunner",
    "deepseek v3": "SlotRunner",
    "afmoe": "SlotRunner",
    "doge": "OwnCacheRunner",
    "dynamic rope": "OwnCacheRunner",
    "phi3 longrope": "OwnCacheRunner",
    "rwkv": "OwnCacheRunner",
    "recurrent gemma": "RecomputeRunner",
}
"""Architectures of the quick tests, with the runner each has to get."""
SLOW = sorted(set(ARCHITECTURES) - set(FAST))


class Numbers:
    """A tokenizer of numbers."""

    eos_token_id = None

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def engine_of(model: PreTrainedModel, **settings: Any) -> SyncEngine:
    async def start() -> Engine:
        return TorchEngine(lambda: model, Numbers(), chunk=24, **settings)

    return SyncEngine(start)


def request(prompt: list[int], **sampling: Any) -> Request:
    return Request(id="r", prompt_ids=tuple(prompt), sampling=SamplingParams(**{"max_tokens": NEW, **sampling}))


def generated(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False)  # type: ignore[operator]
    return whole[0, len(prompt) :].tolist()


def replies_and_runner(model: PreTrainedModel) -> tuple[list[Reply], str]:
    with engine_of(model) as sync:
        replies = list(sync.replies(map(request, PROMPTS), len(PROMPTS)))
        return replies, type(sync.engine._runner).__name__  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "runner"), [*FAST.items(), *(pytest.param(name, None, marks=pytest.mark.slow) for name in SLOW)]
)
def test_answers_are_those_of_generate(name: str, runner: str | None) -> None:
    """Prompts of several lengths at once: beyond windows, chunks and the borders of rotary embeddings."""
    model = tiny_model(name)
    expected = [generated(model, prompt) for prompt in PROMPTS]
    replies, chosen = replies_and_runner(model)
    assert [reply.token_ids for reply in replies] == expected
    assert runner in (chosen, None)


def test_a_window_that_layers_do_not_hand_on_keeps_a_model_off_slots() -> None:
    """Moshi has its window in the mask only; a short text would not show it."""
    assert ARCHITECTURES["moshi"][1]["sliding_window"] > 24
    assert replies_and_runner(tiny_model("moshi"))[1] == "OwnCacheRunner"


def test_a_model_of_broken_weights_does_not_start() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = torch.nan  # type: ignore[index]
    with pytest.raises(SwiftError, match="NaN"):
        engine_of(model)


def test_a_step_that_fails_costs_the_one_request() -> None:
    """The length given is longer than the table of positions, so that one request runs into its end."""
    model = tiny_model("gpt2")
    long = [3 + number % 490 for number in range(126)]
    with engine_of(model, max_model_len=1000) as sync:
        replies = list(sync.replies(map(request, [PROMPTS[0], long, *PROMPTS[1:]]), 5))
        (beams,) = sync.replies([request(long, num_beams=2)], 1)
        (after,) = sync.replies([request(PROMPTS[0])], 1)
    failed = replies.pop(1)
    assert failed.finish_reason == beams.finish_reason == "error"
    assert "IndexError" in (failed.error or "") and len(failed.token_ids) == 3
    assert [reply.token_ids for reply in replies] == [generated(model, prompt) for prompt in PROMPTS]
    assert after.token_ids == replies[0].token_ids


def test_the_context_of_gpt2_is_its_table_of_positions() -> None:
    with engine_of(tiny_model("gpt2")) as sync:
        (reply,) = sync.replies([request([5] * 126)], 1)
        assert sync.engine.max_model_len == 128
    assert (len(reply.token_ids), reply.finish_reason) == (2, "length")


def test_tokens_outside_of_the_vocabulary() -> None:
    model = tiny_model("gpt-j")
    model.generation_config.eos_token_id = 50256  # as the default of GPTJConfig, whatever the vocabulary
    with engine_of(model) as sync:
        (reply,) = sync.replies([request(PROMPTS[0], min_tokens=5, stop_token_ids=(60000,))], 1)
        for wrong in (request([5, 500]), request([5, -1]), request([5], logit_bias=((500, 1.0),))):
            with pytest.raises(SwiftError, match="names token"):
                next(sync.stream(wrong))
    model.generation_config.eos_token_id = None
    assert reply.token_ids == generated(model, PROMPTS[0])
