"""What every engine must do. A test module gives the fixture `served` and imports these tests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest

from swift.core.errors import SwiftError
from swift.engines.base import Constraint, Delta, Request, SamplingParams
from swift.engines.sync_engine import SyncEngine

PROMPTS = (
    "The capital of France is",
    "Once upon a time there was",
    "1 2 3 4 5 6 7",
    "def add(a, b):\n    return",
    "The quick brown fox jumps over the lazy dog, and then",
    "Water",
)
_number = count()


@dataclass(frozen=True)
class Served:
    """An engine, and transformers or PEFT on the same weights to compare it with."""

    sync: SyncEngine
    greedy: Callable[[Sequence[int], int, str | None], list[int]]
    """(prompt ids, new tokens, adapter) -> the tokens of `generate`."""
    adapter: str
    beams: bool = True

    @property
    def tokenizer(self) -> Any:
        return self.sync.engine.tokenizer

    def request(self, prompt: str, *, adapter: str | None = None, **sampling: Any) -> Request:
        ids = tuple(self.tokenizer(prompt)["input_ids"])
        wanted = SamplingParams(**{"max_tokens": 12, **sampling})
        return Request(id=f"test-{next(_number)}", prompt_ids=ids, sampling=wanted, adapter=adapter)

    def deltas(self, prompt: str, **settings: Any) -> list[Delta]:
        return list(self.sync.stream(self.request(prompt, **settings)))

    def answer(self, prompt: str, **settings: Any) -> tuple[str, list[int], str | None]:
        deltas = self.deltas(prompt, **settings)
        tokens = [token for delta in deltas for token in delta.token_ids]
        return "".join(delta.text for delta in deltas), tokens, deltas[-1].finish_reason


def test_greedy_answers_are_those_of_generate_though_many_run_at_once(served: Served) -> None:
    requests = [served.request(prompt) for prompt in PROMPTS]
    replies = list(served.sync.replies(requests, concurrency=len(requests)))
    expected = [served.greedy(request.prompt_ids, 12, None) for request in requests]
    assert [reply.token_ids for reply in replies] == expected


def test_rows_of_one_batch_have_the_adapter_they_ask_for(served: Served) -> None:
    requests = [served.request(p, adapter=a) for p in PROMPTS[:3] for a in (None, served.adapter)]
    replies = list(served.sync.replies(requests, concurrency=len(requests)))
    expected = [served.greedy(request.prompt_ids, 12, request.adapter) for request in requests]
    assert [reply.token_ids for reply in replies] == expected
    assert expected[0] != expected[1]


def test_the_pieces_make_the_text_and_the_last_says_why_it_ended(served: Served) -> None:
    deltas = served.deltas(PROMPTS[0])
    tokens = [token for delta in deltas for token in delta.token_ids]
    assert "".join(delta.text for delta in deltas) == served.tokenizer.decode(tokens, skip_special_tokens=True)
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1].finish_reason == "length"
    assert len(tokens) == 12


def test_a_stop_string_ends_the_answer_wherever_tokens_end(served: Served) -> None:
    whole, tokens, _ = served.answer(PROMPTS[1])
    third = served.tokenizer.decode(tokens[:3], skip_special_tokens=True)
    # From inside the third token into the fourth.
    stop = whole[len(third) - 1 : len(third) + 1]
    text, _, reason = served.answer(PROMPTS[1], stop=(stop,))
    assert (text, reason) == (whole[: whole.index(stop)], "stop")


def test_what_only_looks_like_a_stop_string_is_given_in_the_end(served: Served) -> None:
    whole, _, _ = served.answer(PROMPTS[1])
    text, _, reason = served.answer(PROMPTS[1], stop=(whole[-2:] + "never",))
    assert (text, reason) == (whole, "length")


def test_a_stop_token_ends_the_answer_and_is_not_in_its_text(served: Served) -> None:
    _, tokens, _ = served.answer(PROMPTS[1])
    end = next(at for at in range(1, 12) if tokens[at] not in tokens[:at])
    text, _, reason = served.answer(PROMPTS[1], stop_token_ids=(tokens[end],))
    assert (text, reason) == (served.tokenizer.decode(tokens[:end], skip_special_tokens=True), "stop")


def test_fewer_tokens_than_asked_do_not_end_the_answer(served: Served) -> None:
    _, tokens, _ = served.answer(PROMPTS[1])
    _, longer, _ = served.answer(PROMPTS[1], stop_token_ids=(tokens[0],), min_tokens=4)
    assert len(longer) >= 4
    assert tokens[0] not in longer[:4]


def test_an_end_can_be_passed_over(served: Served) -> None:
    end = served.tokenizer.eos_token_id
    forced: dict[str, Any] = {"logit_bias": ((end, 100.0),), "max_tokens": 5}
    assert served.answer(PROMPTS[0], **forced)[1:] == ([end], "stop")
    assert served.answer(PROMPTS[0], ignore_eos=True, **forced)[1:] == ([end] * 5, "length")


def test_a_seed_repeats_a_sampled_answer(served: Served) -> None:
    one, other = (served.answer(PROMPTS[2], temperature=1.5, seed=7)[1] for _ in range(2))
    assert one == other
    assert len({tuple(served.answer(PROMPTS[2], temperature=1.5, seed=s)[1]) for s in range(4)}) > 1


def test_the_single_likeliest_candidate_is_the_greedy_one(served: Served) -> None:
    greedy = served.answer(PROMPTS[0])[1]
    assert served.answer(PROMPTS[0], temperature=1.0, top_k=1)[1] == greedy
    assert served.answer(PROMPTS[0], temperature=1.0, top_p=1e-6)[1] == greedy


def test_n_answers_to_one_prompt(served: Served) -> None:
    deltas = served.deltas(PROMPTS[0], n=3, temperature=1.5, seed=1)
    assert sorted(delta.index for delta in deltas if delta.finish_reason) == [0, 1, 2]
    answers = {i: tuple(t for d in deltas if d.index == i for t in d.token_ids) for i in range(3)}
    assert len(set(answers.values())) > 1


def test_logprobs_are_those_of_the_likeliest_tokens(served: Served) -> None:
    logprobs = [each for delta in served.deltas(PROMPTS[0], logprobs=3) for each in delta.logprobs]
    assert len(logprobs) == 12
    for each in logprobs:
        ids, values = [token_id for _, token_id, _ in each.top], [value for *_, value in each.top]
        assert len(ids) == 3
        assert values == sorted(values, reverse=True)
        assert each.token_id == ids[0]
        assert each.logprob == pytest.approx(values[0]) and each.logprob <= 0


def test_penalties_keep_tokens_from_coming_back(served: Served) -> None:
    for penalty in ({"repetition_penalty": 50.0}, {"presence_penalty": 100.0}, {"frequency_penalty": 100.0}):
        tokens = served.answer(PROMPTS[2], max_tokens=20, **penalty)[1]
        assert len(set(tokens)) == len(tokens)


def test_a_bias_brings_a_token_in_or_keeps_it_out(served: Served) -> None:
    plain = served.answer(PROMPTS[0])[1]
    assert plain[0] not in served.answer(PROMPTS[0], logit_bias=((plain[0], -100.0),))[1]
    assert set(served.answer(PROMPTS[0], logit_bias=((7, 100.0), (5, -100.0)))[1]) == {7}


def test_a_schema_is_kept(served: Served) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    text, _, reason = served.answer(PROMPTS[0], grammar=Constraint("json", json.dumps(schema)), max_tokens=60)
    assert reason == "stop"
    assert json.loads(text)["city"] in ("Paris", "Rome")


def test_a_regular_expression_is_kept(served: Served) -> None:
    text, _, reason = served.answer(PROMPTS[0], grammar=Constraint("regex", "(red|green): [0-9]{3}"), max_tokens=60)
    assert reason == "stop"
    assert re.fullmatch("(red|green): [0-9]{3}", text)


def test_leaving_the_stream_frees_the_place(served: Served) -> None:
    stream = served.sync.stream(served.request(PROMPTS[0], max_tokens=1000))
    next(stream)
    stream.close()
    assert served.answer(PROMPTS[0])[1] == served.greedy(served.request(PROMPTS[0]).prompt_ids, 12, None)
    assert served.sync.engine.statistics()["running"] == 0


def test_what_cannot_run_is_refused_by_name(served: Served) -> None:
    good = served.request(PROMPTS[0])
    with pytest.raises(SwiftError, match="nobody"):
        next(served.sync.stream(replace(good, adapter="nobody")))
    with pytest.raises(SwiftError):
        next(served.sync.stream(replace(good, prompt_ids=good.prompt_ids * 10_000)))


def test_beams_find_an_answer_at_least_as_likely(served: Served) -> None:
    if not served.beams:
        with pytest.raises(SwiftError, match="beam"):
            served.answer(PROMPTS[0], num_beams=3)
        return
    text, tokens, reason = served.answer(PROMPTS[0], num_beams=3)
    assert (len(tokens), reason) == (12, "length")
    assert text == served.tokenizer.decode(tokens, skip_special_tokens=True)
