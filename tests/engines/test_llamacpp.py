"""llama.cpp behind the Engine protocol: the file of a small model must answer as transformers does with its weights."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from behaviour import *  # noqa: F403  # the tests every engine runs
from behaviour import PROMPTS, Served

from swift.core.errors import SwiftError
from swift.engines.base import Constraint, Engine
from swift.engines.sync_engine import SyncEngine

pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def reference(tiny_llama_dir: Path) -> Any:
    """The same model in transformers."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype="float32").eval()


@pytest.fixture(scope="module")
def served(tiny_llama_dir: Path, reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from swift.engines.llamacpp import LlamaCppEngine
    from swift.models.gguf.file import write_gguf

    file = tmp_path_factory.mktemp("gguf") / "model.gguf"
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    config = AutoConfig.from_pretrained(tiny_llama_dir)
    write_gguf(tiny_llama_dir, config, tokenizer, file, type="f32", name="tiny", ends=[2])

    async def start() -> Engine:
        return LlamaCppEngine(file, tokenizer, context=512, places=4, ends=[2], vocabulary=config.vocab_size)

    def greedy(ids: Sequence[int], tokens: int, adapter: str | None) -> list[int]:
        prompt = torch.tensor([ids])
        with torch.inference_mode():
            answer = reference.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, do_sample=False, pad_token_id=2
            )
        return answer[0, len(ids) :].tolist()

    with SyncEngine(start) as sync:
        yield Served(sync, greedy, "none", beams=False)


def test_rows_of_one_batch_have_the_adapter_they_ask_for(served: Served) -> None:
    """There are none: the model is merged."""
    with pytest.raises(SwiftError, match="serves one merged model"):
        served.answer(PROMPTS[0], adapter=served.adapter)


def test_penalties_keep_tokens_from_coming_back(served: Served) -> None:
    """The repetition penalty, which counts the prompt too; the others are refused."""
    tokens = served.answer(PROMPTS[2], max_tokens=20, repetition_penalty=50.0)[1]
    assert len(set(tokens)) == len(tokens)
    for name in ("presence_penalty", "frequency_penalty"):
        with pytest.raises(SwiftError, match=name):
            served.answer(PROMPTS[2], **{name: 1.0})


@pytest.mark.parametrize("prompt", ["The capital of France is", "\u8bf7\u7528\u4e00\u53e5\u8bdd\U0001f642"])
def test_logprobs_are_those_of_the_model(served: Served, reference: Any, prompt: str) -> None:
    import torch

    logprobs = [each for delta in served.deltas(prompt, max_tokens=6, logprobs=3) for each in delta.logprobs]
    ids = served.request(prompt).prompt_ids
    with torch.inference_mode():
        logits = reference(torch.tensor([[*ids, *(each.token_id for each in logprobs)]])).logits[0, -7:-1]
    expected = logits.log_softmax(-1)
    for step, each in enumerate(logprobs):
        assert each.logprob == pytest.approx(expected[step, each.token_id].item(), abs=1e-3)
        assert [entry[1] for entry in each.top] == expected[step].topk(3).indices.tolist()


def test_tokens_inside_characters_are_not_lost(served: Served) -> None:
    """llama.cpp shows no ids of tokens that end inside a character; here a text of such, forced by biases."""
    part = served.tokenizer.encode("\U0001f31f", add_special_tokens=False)[0]
    tokens = served.answer(PROMPTS[0], logit_bias=((part, 100.0),), max_tokens=5)[1]
    assert tokens == [part] * 5
    logprobs = [
        each
        for delta in served.deltas(PROMPTS[0], logit_bias=((part, 100.0),), max_tokens=3, logprobs=2)
        for each in delta.logprobs
    ]
    assert [each.token_id for each in logprobs] == [part] * 3


def test_the_probabilities_of_a_given_text(served: Served, reference: Any) -> None:
    import torch

    prompt = served.request(PROMPTS[0]).prompt_ids
    texts = [tuple(served.tokenizer.encode(text)) for text in (" Paris, of course.", " \U0001f31f yes")]
    rows = _run(served, served.sync.engine.log_probs(prompt, texts, top=2))
    for tokens, row in zip(texts, rows, strict=True):
        with torch.inference_mode():
            logits = reference(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)
        assert [each.token_id for each in row] == list(tokens)
        for step, each in enumerate(row):
            assert each.logprob == pytest.approx(expected[step, each.token_id].item(), abs=1e-3)
            assert len(each.top) == 2


def test_a_choice_a_grammar_and_one_that_cannot_be_used(served: Served) -> None:
    choice = Constraint("choice", json.dumps(["a/b", 'say "no"']))
    assert served.answer(PROMPTS[0], grammar=choice, max_tokens=30)[0] in ("a/b", 'say "no"')
    lark = Constraint("lark", 'start: "x" /[0-9]\\/[0-9]/')
    assert re.fullmatch("x[0-9]/[0-9]", served.answer(PROMPTS[0], grammar=lark, max_tokens=30)[0])
    with pytest.raises(SwiftError, match="cannot be used"):
        served.answer(PROMPTS[0], grammar=Constraint("regex", "(unclosed"))
    text, _, reason = served.answer(PROMPTS[0], grammar=Constraint("regex", "[a-z]{50}"), max_tokens=3)
    assert reason == "length" and re.fullmatch("[a-z]+", text)


def test_more_answers_than_places_wait(served: Served) -> None:
    requests = [served.request(prompt, max_tokens=6) for prompt in PROMPTS * 2]
    replies = list(served.sync.replies(requests, concurrency=len(requests)))
    assert [reply.token_ids for reply in replies[:6]] == [reply.token_ids for reply in replies[6:]]
    assert served.sync.engine.statistics()["running"] == 0


def _run(served: Served, work: Any) -> Any:
    """Await `work` in the engine's own loop."""
    return asyncio.run_coroutine_threadsafe(work, served.sync._loop).result(60)
