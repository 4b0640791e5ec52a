"""Chat completions over HTTP, read as a client reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from swift.catalog import load_catalog
from swift.core.machine import Machine
from swift.engines.base import JSON_OBJECT, Constraint
from swift.params.parse import parse
from swift.plan.infer import plan_infer
from swift.plan.serve import plan_serve
from swift.serving.tools import joined

from .scripted import ScriptedEngine

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
REACT = 'I look it up.\nAction: get_weather\nAction Input: {"city": "Rome"}\n'


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a stream; it must end with [DONE]."""
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def given(chunks: list[dict[str, Any]]) -> str:
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


def test_answer_has_the_shape_that_openai_and_2_5_clients_read(ask) -> None:
    answer = ask("hello there", max_tokens=64)
    assert answer.status_code == 200
    body = answer.json()
    message = {"role": "assistant", "content": "hello there", "tool_calls": None}
    assert body["choices"] == [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-") and answer.headers["x-request-id"] == body["id"]
    assert body["model"] == "tiny" and isinstance(body["created"], int)
    usage = body["usage"]
    assert usage["completion_tokens"] == 2
    assert usage["total_tokens"] == usage["prompt_tokens"] + 2


def test_stream_gives_the_same_text_in_pieces(ask) -> None:
    answer = ask("one two three four", stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = events(answer)
    assert len(chunks) > 4
    assert given(chunks) == "one two three four"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c["choices"][0]["finish_reason"] for c in chunks][-1] == "stop"
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({c["id"] for c in chunks}) == 1


@pytest.mark.parametrize(
    ("options", "in_each", "at_end"),
    [
        (None, False, False),
        ({"include_usage": None}, False, False),
        ({"include_usage": False}, False, False),
        ({"include_usage": True}, False, True),
        ({"include_usage": True, "continuous_usage_stats": True}, True, True),
    ],
)
def test_token_counts_of_a_stream(ask, options, in_each: bool, at_end: bool) -> None:
    chunks = events(ask("a b c", stream=True, stream_options=options))
    last_choice = [c for c in chunks if c["choices"]][-1]
    assert (last_choice.get("usage") is not None) == in_each
    assert (chunks[-1]["choices"] == []) == at_end
    if at_end:
        assert chunks[-1]["usage"]["completion_tokens"] == 3


def test_a_flag_brings_token_counts_back_into_every_chunk(start) -> None:
    running = start(counts_every_chunk=True)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a b c"}], "stream": True}
    url = f"{running.url}/v1/chat/completions"
    assert [c["usage"]["completion_tokens"] for c in events(httpx.post(url, json=body))] == [1, 1, 2, 3, 3]
    told = events(httpx.post(url, json={**body, "stream_options": {"include_usage": True}}))
    assert [chunk["usage"] is None for chunk in told] == [True] * 5 + [False]


@pytest.mark.parametrize(("words", "drawn"), [(("--seed", "7"), [7, 5, 8]), ((), [None, 5, None])])
def test_requests_have_the_seeds_of_the_server_where_it_was_given_one(
    start, tiny_llama_dir: Path, words: tuple[str, ...], drawn: list[int | None]
) -> None:
    args = parse(["deploy", "--model_id_or_path", str(tiny_llama_dir), "--infer_backend", "pt", *words])
    infer = plan_infer(args, load_catalog(), Machine(), answers_rows=False)
    running = start(first_seed=plan_serve(args, infer, is_chat=True).first_seed)
    for own in ({}, {"seed": 5}, {}):
        body = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], **own}
        assert httpx.post(f"{running.url}/v1/chat/completions", json=body).status_code == 200
    assert [request.sampling.seed for request in running.engine.requests] == drawn


@pytest.mark.parametrize("stop", ["", [], [""], ["", "two"], None])
def test_an_empty_stop_is_none(ask, running, stop) -> None:
    assert ask("one two three", stop=stop).status_code == 200
    assert "" not in running.engine.requests[-1].sampling.stop
    assert ("two" in running.engine.requests[-1].sampling.stop) == (stop == ["", "two"])


def test_token_limit_is_said(ask) -> None:
    choice = ask("one two three four", max_tokens=2).json()["choices"][0]
    assert choice["message"]["content"] == "one two"
    assert choice["finish_reason"] == "length"
    newer = ask("one two three four", max_completion_tokens=3).json()["choices"][0]
    assert newer["message"]["content"] == "one two three"


def test_token_limit_beyond_the_context_is_cut(ask, running) -> None:
    assert ask("hello", max_tokens=99999).status_code == 200
    request = running.engine.requests[-1]
    assert request.sampling.max_tokens == running.engine.max_model_len - len(request.prompt_ids)


def test_n_answers(ask) -> None:
    body = ask("hi", n=3).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in body["choices"]} == {"hi"}
    assert body["usage"]["completion_tokens"] == 3
    chunks = events(ask("hi", n=2, stream=True))
    assert sorted(c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]) == [0, 1]


def test_best_of_returns_n(ask, running) -> None:
    body = ask("hi", best_of=3).json()
    assert len(body["choices"]) == 1 and body["choices"][0]["logprobs"] is None
    assert running.engine.requests[-1].sampling.n == 3


def test_logprobs_and_the_impossible_token(ask) -> None:
    content = ask("hi!", logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in content] == ["hi", "!"]
    assert content[0]["bytes"] == [104, 105]
    assert len(content[0]["top_logprobs"]) == 2
    assert content[1]["logprob"] == -9999.0
    chunks = events(ask("hi!", logprobs=True, stream=True))
    tokens = [t["token"] for c in chunks for t in (c["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert tokens == ["hi", "!"]


def test_sampling_fields_reach_the_engine(ask, running) -> None:
    ask(
        "hi", temperature=0.7, top_p=0.9, top_k=-1, seed=3, stop="x", presence_penalty=1, frequency_penalty=0.5,
        repetition_penalty=1.2, min_tokens=2, stop_token_ids=[5],
        logit_bias={"7": -1.5},
    )  # fmt: skip
    sampling = running.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.7, 0.9, 0, 3)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty) == (1.0, 0.5, 1.2)
    assert sampling.logit_bias == ((7, -1.5),)
    assert "x" in sampling.stop and 5 in sampling.stop_token_ids and sampling.min_tokens == 2


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"temperature": 1e-9}, {"temperature": 1, "top_p": 0}])
def test_greedy(ask, running, fields) -> None:
    ask("hi", **fields)
    assert running.engine.requests[-1].sampling.temperature == 0.0


def test_end_of_turn_always_stops(ask, running, encoder) -> None:
    ask("hi")
    assert set(encoder.stop_token_ids) <= set(running.engine.requests[-1].sampling.stop_token_ids)


def test_content_parts_and_unknown_fields(ask, running) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    body = {"model": "tiny", "messages": [{"role": "user", "content": parts}], "foo": {"bar": 1}, "store": False}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body)
    assert answer.json()["choices"][0]["message"]["content"] == "one two"


def test_an_answer_begun_by_the_client_goes_on(running, tokenizer) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "The answer is"}]
    httpx.post(f"{running.url}/v1/chat/completions", json={"model": "tiny", "messages": messages})
    assert tokenizer.decode(running.engine.requests[-1].prompt_ids).endswith("<|im_start|>assistant\nThe answer is")


def test_a_result_after_observation_is_glued_on(running, tokenizer) -> None:
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "Action: f\nAction Input: {}\nObservation:"},
        {"role": "tool", "content": "obs"},
    ]
    httpx.post(f"{running.url}/v1/chat/completions", json={"model": "tiny", "messages": messages})
    assert tokenizer.decode(running.engine.requests[-1].prompt_ids).endswith("Action Input: {}\nObservation:obs")


def test_results_stand_in_the_order_of_their_calls(running, tokenizer) -> None:
    calls = [{"id": i, "type": "function", "function": {"name": "get_weather", "arguments": "{}"}} for i in ("a", "b")]
    results = [{"role": "tool", "tool_call_id": i, "content": f"result of {i}"} for i in ("b", "a")]
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": calls}, *results]
    body = {"model": "tiny", "messages": messages, "tools": [WEATHER]}
    assert httpx.post(f"{running.url}/v1/chat/completions", json=body).status_code == 200
    prompt = tokenizer.decode(running.engine.requests[-1].prompt_ids)
    assert 0 < prompt.index("result of a") < prompt.index("result of b")


def test_calls_and_refusals_of_older_clients_are_read(running, tokenizer) -> None:
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I would rather not."}]},
        {"role": "user", "content": "please"},
        {"role": "assistant", "content": None, "function_call": {"name": "get_weather", "arguments": ""}},
        {"role": "function", "name": "get_weather", "content": "sunny"},
    ]
    body = {"model": "tiny", "messages": messages, "tools": [WEATHER]}
    assert httpx.post(f"{running.url}/v1/chat/completions", json=body).status_code == 200
    prompt = tokenizer.decode(running.engine.requests[-1].prompt_ids)
    assert prompt.index("I would rather not.") < prompt.index("please") < prompt.index("Action: get_weather")
    assert prompt.index("Action Input: {}") < prompt.index("sunny")


@pytest.mark.parametrize("empty", ["", [], [{"type": "text", "text": ""}]])
def test_an_empty_question_is_answered_in_a_turn_of_its_own(empty, ask, running, tokenizer) -> None:
    asked = {"role": "user", "content": empty}
    for before in ([], [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]):
        assert ask(messages=[*before, asked]).status_code == 200
        prompt = tokenizer.decode(running.engine.requests[-1].prompt_ids)
        assert prompt.endswith("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n")


def test_fields_that_mean_nothing_here_do_no_harm(ask) -> None:
    fields = {"user": "me", "n": None, "logit_bias": {}, "modalities": ["text"], "min_p": 0, "metadata": {"a": "b"}}
    assert ask("hello there", **fields).json()["choices"][0]["message"]["content"] == "hello there"


def test_free_tool_call(start, tokenizer) -> None:
    running = start(ScriptedEngine(tokenizer, lambda prompt: REACT))
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Rome?"}], "tools": [WEATHER]}
    choice = httpx.post(f"{running.url}/v1/chat/completions", json=body).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "I look it up."
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function" and call["id"].startswith("call_")
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Rome"}
    assert "get_weather" in tokenizer.decode(running.engine.requests[-1].prompt_ids)

    chunks = events(httpx.post(f"{running.url}/v1/chat/completions", json={**body, "stream": True}))
    assert given(chunks).strip() == "I look it up."
    calls = [call for c in chunks for call in c["choices"][0]["delta"].get("tool_calls", [])]
    assert max(len(c["choices"][0]["delta"].get("tool_calls", [])) for c in chunks) == 1
    assert len(calls) > 3 and calls[0]["function"] == {"name": "get_weather", "arguments": ""}
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city": "Rome"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_tool_choice_none_hides_the_tools(ask, running, tokenizer) -> None:
    ask("hi", tools=[WEATHER], tool_choice="none")
    assert "get_weather" not in tokenizer.decode(running.engine.requests[-1].prompt_ids)


@pytest.mark.parametrize("stream", [False, True])
def test_named_tool_is_held_to_its_schema(start, tokenizer, stream: bool) -> None:
    running = start(ScriptedEngine(tokenizer, lambda prompt: '{"city": "Rome"}'))
    choice = {"type": "function", "function": {"name": "get_weather"}}
    body = {"model": "tiny", "messages": [{"role": "user", "content": "?"}], "tools": [WEATHER], "tool_choice": choice}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json={**body, "stream": stream})
    grammar = json.loads(running.engine.requests[-1].sampling.grammar.text)
    assert grammar == {**WEATHER["function"]["parameters"], "additionalProperties": False}
    if stream:
        deltas = [call for c in events(answer) for call in c["choices"][0]["delta"].get("tool_calls", [])]
        assert len(deltas) > 1 and deltas[0]["function"]["name"] == "get_weather"
        assert "".join(d["function"]["arguments"] for d in deltas) == '{"city": "Rome"}'
    else:
        (call,) = answer.json()["choices"][0]["message"]["tool_calls"]
        assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Rome"}'}


@pytest.mark.parametrize("stream", [False, True])
def test_required_tools_may_be_several(start, tokenizer, stream: bool) -> None:
    reply = json.dumps([{"name": "get_weather", "arguments": {"city": city}} for city in ("Rome", "Bern")])
    running = start(ScriptedEngine(tokenizer, lambda prompt: reply))
    body = {"model": "tiny", "messages": [{"role": "user", "content": "?"}], "tools": [WEATHER]}
    body |= {"tool_choice": "required", "stream": stream}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body)
    assert json.loads(running.engine.requests[-1].sampling.grammar.text)["minItems"] == 1
    if stream:
        deltas = [call for c in events(answer) for call in c["choices"][0]["delta"].get("tool_calls", [])]
        calls = joined(deltas)
        assert [call["index"] for call in deltas if "name" in call["function"]] == [0, 1]
    else:
        choice = answer.json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
        calls = choice["message"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"])["city"] for call in calls] == ["Rome", "Bern"]


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": None}}},
        {"response_format": {"type": "json_schema", "json_schema": {"description": "d", "schema": SCHEMA}}},
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"guided_json": SCHEMA},
        {"guided_json": json.dumps(SCHEMA)},
        {"structured_outputs": {"json": SCHEMA, "regex": None}},
    ],
)
def test_a_schema_holds_the_answer_whoever_asks_for_it(ask, running, fields) -> None:
    assert ask("hi", **fields).status_code == 200
    assert json.loads(running.engine.requests[-1].sampling.grammar.text) == SCHEMA


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"response_format": {"type": "json_object"}}, JSON_OBJECT),
        ({"structured_outputs": {"json_object": True}}, JSON_OBJECT),
        ({"guided_regex": "a+"}, Constraint("regex", "a+")),
        ({"structured_outputs": {"regex": "a+"}}, Constraint("regex", "a+")),
        ({"guided_choice": ["a", "b"]}, Constraint("choice", '["a", "b"]')),
        ({"structured_outputs": {"choice": ["a", "b"]}}, Constraint("choice", '["a", "b"]')),
        ({"guided_choice": [], "guided_json": None, "guided_regex": "", "structured_outputs": {}}, None),
    ],
)
def test_other_ways_to_hold_an_answer(ask, running, fields, constraint) -> None:
    assert ask("hi", **fields).status_code == 200
    assert running.engine.requests[-1].sampling.grammar == constraint


@pytest.mark.parametrize("stream", [False, True])
def test_functions_are_answered_in_their_older_form(start, tokenizer, stream: bool) -> None:
    running = start(ScriptedEngine(tokenizer, lambda prompt: REACT))
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Rome?"}], "functions": [WEATHER["function"]]}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json={**body, "stream": stream})
    if stream:
        choices = [chunk["choices"][0] for chunk in events(answer)]
        pieces = [choice["delta"]["function_call"] for choice in choices if "function_call" in choice["delta"]]
        call = {"name": pieces[0]["name"], "arguments": "".join(piece["arguments"] for piece in pieces)}
        finish = choices[-1]["finish_reason"]
    else:
        choice = answer.json()["choices"][0]
        call, finish = choice["message"]["function_call"], choice["finish_reason"]
        assert not choice["message"]["tool_calls"]
    assert call == {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    assert finish == "function_call"
    assert "get_weather" in tokenizer.decode(running.engine.requests[-1].prompt_ids)


def test_prose_beside_tools_streams_token_by_token(start, tokenizer) -> None:
    prose = 'Code: if (a) { return {"name": 1}; }\n```\n[{"x": 1}]\n```\nAn Action movie.'
    running = start(ScriptedEngine(tokenizer, lambda prompt: prose))
    body = {"model": "tiny", "messages": [{"role": "user", "content": "?"}], "tools": [WEATHER], "stream": True}
    chunks = events(httpx.post(f"{running.url}/v1/chat/completions", json=body))
    assert given(chunks) == prose
    pieces = [chunk["choices"][0]["delta"].get("content") for chunk in chunks if chunk["choices"]]
    assert len([piece for piece in pieces if piece]) > 0.8 * len(tokenizer(prose)["input_ids"])


def test_min_p_and_passing_over_the_end_reach_the_engine(ask, running, encoder) -> None:
    ask("hi", min_p=0.2, ignore_eos=True, stop="x", stop_token_ids=[5])
    sampling = running.engine.requests[-1].sampling
    assert (sampling.min_p, sampling.ignore_eos, sampling.stop, sampling.stop_token_ids) == (0.2, True, ("x",), (5,))


def test_adapters_are_models(start, tokenizer) -> None:
    running = start(ScriptedEngine(tokenizer, adapters=("default-lora", "other")), owned_by="me")
    cards = httpx.get(f"{running.url}/v1/models").json()
    assert [card["id"] for card in cards["data"]] == ["tiny", "default-lora", "other"]
    assert {card["owned_by"] for card in cards["data"]} == {"me"}
    assert cards["data"][0]["is_chat"] is True
    assert httpx.get(f"{running.url}/v1/models/other").json()["parent"] == "tiny"
    for model, adapter in (("tiny", None), ("other", "other")):
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        assert httpx.post(f"{running.url}/v1/chat/completions", json=body).json()["model"] == model
        assert running.engine.requests[-1].adapter == adapter
