"""llama.cpp behind the Engine protocol: the file of a small model must answer as transformers does with its weights."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
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


class Scripted:
    """llama.cpp's server, which goes on with a text whatever it is asked; as it does, it streams whole characters."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int], text: str):
        self.tokenizer, self.start = tokenizer, len(prompt)
        self.script: list[int] = tokenizer.encode(text, add_special_tokens=False)
        self.streams = self.pieces = 0

    def _next(self, body: Mapping[str, Any]) -> list[int]:
        at = len(body["prompt"]) - self.start
        return self.script[at : at + body["n_predict"]]

    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
        self.streams += 1
        tokens = self._next(body)
        for made in range(1, len(tokens) + 1):
            if not self.tokenizer.decode(tokens[:made]).endswith("\ufffd"):
                yield [{"tokens": [tokens[made - 1]], "tokens_predicted": made}]
        yield [{"tokens": [], "tokens_predicted": len(tokens)}]

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.pieces += 1
        return {"tokens": self._next(body)}


@pytest.mark.parametrize(
    ("text", "streams", "pieces"),
    [
        ("The words of this answer have no characters of several tokens.", 1, 0),
        ("One star \U0001f31f among words, and then only words again.", 2, 1),
        ("It ends with a star \U0001f31f", 1, 1),
        ("A \U0001f31f b \U0001f680 c \u9f98 d \U0001f31f e \U0001f680 f \u9f98 and a \U0001f31f, of course.", 4, 6),
    ],
)
def test_a_stream_that_loses_tokens_is_asked_again(
    served: Served, monkeypatch: pytest.MonkeyPatch, text: str, streams: int, pieces: int
) -> None:
    """Few such characters leave the answer a stream; with many of them it goes on in pieces."""
    server = Scripted(served.tokenizer, served.request(PROMPTS[0]).prompt_ids, text)
    monkeypatch.setattr(served.sync.engine, "_server", server)
    written, tokens, reason = served.answer(PROMPTS[0], max_tokens=len(server.script))
    assert (written, tokens, reason) == (text, server.script, "length")
    assert (server.streams, server.pieces) == (streams, pieces)


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


def test_answers_have_the_lowest_places_that_are_free(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp computes answers in one pass only where the numbers of their places follow each other."""
    seen: list[int] = []

    class Watched(Scripted):
        async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
            seen.append(body["id_slot"])
            while len(seen) < count:  # all of them are at work
                await asyncio.sleep(0)
            return await super().complete(body)

    server = Watched(served.tokenizer, served.request(PROMPTS[0]).prompt_ids, "\U0001f31f")
    monkeypatch.setattr(served.sync.engine, "_server", server)
    for count in (1, 3, 1, 2):
        seen.clear()
        requests = [served.request(PROMPTS[0], max_tokens=len(server.script)) for _ in range(count)]
        assert len(list(served.sync.replies(requests, concurrency=count))) == count
        assert sorted(seen) == list(range(count))


def test_biases_come_before_the_repetition_penalty(served: Served, reference: Any) -> None:
    """As in transformers, vLLM and our own sampler: another order would give another answer here."""
    import torch

    ids = list(served.request(PROMPTS[3]).prompt_ids)
    with torch.inference_mode():
        likely = reference(torch.tensor([ids])).logits[0, -1].topk(8).indices.tolist()
    biases = dict(zip([*ids[:4], *likely], [9.0, -3.0, 6.0, 7.0] * 3, strict=True))

    def greedy(first: str) -> list[int]:
        tokens = list(ids)
        while len(tokens) < len(ids) + 12:
            with torch.inference_mode():
                scores = reference(torch.tensor([tokens])).logits[0, -1].double()
                added = torch.zeros_like(scores)
                added[list(biases)] = torch.tensor(list(biases.values()), dtype=added.dtype)
                scores = scores + added if first == "bias" else scores
                seen = torch.tensor(sorted(set(tokens)))
                scores[seen] = torch.where(scores[seen] < 0, scores[seen] * 1.7, scores[seen] / 1.7)
                tokens.append(int((scores if first == "bias" else scores + added).argmax()))
        return tokens[len(ids) :]

    settings: dict[str, Any] = {"logit_bias": tuple(biases.items()), "repetition_penalty": 1.7, "ignore_eos": True}
    assert served.answer(PROMPTS[3], **settings)[1] == greedy("bias") != greedy("penalty")


@pytest.mark.parametrize(("temperature", "top_k", "top_p", "min_p"), [(1.2, 0, 0.6, 0.0), (2.5, 9, 0.8, 0.1)])
def test_draws_come_from_the_tokens_that_ours_come_from(
    served: Served, reference: Any, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    """By the definition: the temperature, then min_p, top_k and top_p of what is left."""
    import torch

    draws = 100
    with torch.inference_mode():
        scores = reference(torch.tensor([served.request(PROMPTS[0]).prompt_ids])).logits[0, -1] / temperature
    p, order = scores.softmax(-1).sort(descending=True)
    kept = (p >= min_p * p[0]) & (torch.arange(len(p)) < (top_k or len(p)))
    p = p * kept / p[kept].sum()
    p = p * (p.cumsum(-1) - p < top_p)
    expected = dict(zip(order.tolist(), (p / p.sum()).tolist(), strict=True))
    settings: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    drawn = [
        reply.token_ids[0]
        for reply in served.sync.replies(
            [served.request(PROMPTS[0], max_tokens=1, seed=seed, **settings) for seed in range(draws)], concurrency=4
        )
    ]
    for token, share in expected.items():
        spread = (share * (1 - share) / draws) ** 0.5
        assert abs(drawn.count(token) / draws - share) <= 4 * spread + 1 / draws
        assert share > 0 or token not in drawn


def _run(served: Served, work: Any) -> Any:
    """Await `work` in the engine's own loop."""
    return asyncio.run_coroutine_threadsafe(work, served.sync._loop).result(60)
