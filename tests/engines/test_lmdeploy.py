"""LMDeploy behind the Engine protocol: its true config classes where it is installed, the refusal where it cannot run.

It generates on CUDA only, so the stream is tested over a stand-in for its engine that yields LMDeploy's own outputs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engines.lmdeploy_environment import ITS_WARNINGS, needs_lmdeploy
from swift.core.errors import NotBuilt, SwiftError
from swift.engines.base import JSON_OBJECT, Constraint, Delta, Request, SamplingParams
from swift.engines.lmdeploy import (
    LmdeployEngine,
    LmdeploySettings,
    backend_config,
    checked,
    generation_config,
    lmdeploy_settings,
)
from swift.engines.lmdeploy_adapters import require_adapter
from swift.params.groups import Lmdeploy
from swift.prompts.types import Media

pytestmark = ITS_WARNINGS


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_it_is_refused_in_one_line() -> None:
    with pytest.raises(SwiftError) as caught:
        asyncio.run(LmdeployEngine.start(Path("model"), None, LmdeploySettings()))
    assert caught.value.lines() == [
        "error: LMDeploy needs a CUDA device and this machine has none: use --infer_backend pt"
    ]


def test_flags_become_settings() -> None:
    flags = Lmdeploy(tp=2, cache_max_entry_count=0.4, quant_policy=8)
    assert lmdeploy_settings(flags, session_len=99, dtype="bf16") == LmdeploySettings(
        tp=2, cache_max_entry_count=0.4, quant_policy=8, session_len=99, dtype="bf16"
    )


def test_a_field_the_class_does_not_have_is_named() -> None:
    @dataclass
    class Config:
        tp: int = 1

    assert checked(Config, tp=2) == Config(2)
    with pytest.raises(SwiftError, match="Config has no field `quant`"):
        checked(Config, tp=2, quant=8)


@needs_lmdeploy
def test_turbomind_gets_the_flags() -> None:
    from lmdeploy import TurbomindEngineConfig

    settings = LmdeploySettings(tp=2, cache_max_entry_count=0.4, quant_policy=8, session_len=99, dtype="fp16")
    config = backend_config(settings, {})
    assert isinstance(config, TurbomindEngineConfig)
    assert (config.tp, config.cache_max_entry_count, config.quant_policy) == (2, 0.4, 8)
    assert (config.session_len, config.dtype) == (99, "float16")


@needs_lmdeploy
def test_adapters_need_the_pytorch_engine() -> None:
    from lmdeploy import PytorchEngineConfig

    config = backend_config(LmdeploySettings(quant_policy=4), {"first": Path("there")})
    assert isinstance(config, PytorchEngineConfig)
    assert config.adapters == {"first": "there"}
    assert config.quant_policy == 4


@needs_lmdeploy
def test_models_that_see_run_in_the_pytorch_engine() -> None:
    from lmdeploy import PytorchEngineConfig

    config = backend_config(LmdeploySettings(tp=2), {}, sees=True)
    assert isinstance(config, PytorchEngineConfig)
    assert (config.tp, config.adapters) == (2, None)


@needs_lmdeploy
def test_an_unknown_field_is_an_error_where_lmdeploy_would_be_silent() -> None:
    from lmdeploy import TurbomindEngineConfig

    TurbomindEngineConfig(tp=1, no_such_field=1)
    with pytest.raises(SwiftError, match="no field `no_such_field`"):
        checked(TurbomindEngineConfig, tp=1, no_such_field=1)


@needs_lmdeploy
@pytest.mark.parametrize("wish", [{"dtype": "fp32"}, {"tp": 0}, {"quant_policy": 3}])
def test_what_lmdeploy_cannot_do_is_an_error(wish: dict[str, Any]) -> None:
    with pytest.raises(SwiftError, match="LMDeploy"):
        backend_config(LmdeploySettings(**wish), {})


@needs_lmdeploy
def test_every_sampling_field_reaches_lmdeploy() -> None:
    wish = SamplingParams(
        max_tokens=3,
        temperature=0.5,
        top_k=4,
        top_p=0.6,
        repetition_penalty=1.1,
        seed=9,
        min_tokens=1,
        stop_token_ids=(5,),
        logprobs=0,
        grammar=JSON_OBJECT,
    )
    config = generation_config(wish, 2)
    assert (config.max_new_tokens, config.min_new_tokens, config.random_seed) == (3, 1, 11)
    assert (config.temperature, config.top_k, config.top_p, config.repetition_penalty) == (0.5, 4, 0.6, 1.1)
    assert (config.stop_token_ids, config.logprobs, config.response_format) == ([5], 1, {"type": "json_object"})
    assert config.do_sample


@needs_lmdeploy
def test_greedy_keeps_the_repetition_penalty() -> None:
    config = generation_config(SamplingParams(max_tokens=3, repetition_penalty=1.3))
    assert (config.do_sample, config.top_k, config.temperature, config.repetition_penalty) == (True, 1, 1.0, 1.3)


@needs_lmdeploy
@pytest.mark.parametrize(
    "wish",
    [
        {"num_beams": 2},
        {"presence_penalty": 0.1},
        {"frequency_penalty": 0.1},
        {"logit_bias": ((5, 1.0),)},
        {"temperature": 2.5},
    ],
)
def test_a_wish_lmdeploy_has_no_field_for_is_an_error(wish: dict[str, Any]) -> None:
    with pytest.raises(SwiftError, match=f"does not do `{next(iter(wish))}`"):
        generation_config(SamplingParams(max_tokens=3, **wish))


class Letters:
    """A tokenizer of one letter a token."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(map(chr, ids))


class StandIn:
    """What `LmdeployEngine` uses of LMDeploy's AsyncEngine, answering `text` in LMDeploy's own outputs."""

    session_len = 64

    def __init__(self, text: str):
        self._text = text
        self.session_mgr = SimpleNamespace(get=lambda: object())
        self.asked: list[Any] = []
        self.closed = 0

    async def preprocess(self, messages: None, session: object, **kwargs: Any) -> Any:
        from lmdeploy.serve.core.exceptions import ErrorCode, RequestError

        if len(kwargs["input_ids"]) > self.session_len:
            raise RequestError(ErrorCode.CONTEXT_LENGTH_EXCEEDED)
        self.asked.append(kwargs)
        return SimpleNamespace(inputs={"input_ids": kwargs["input_ids"]})

    async def generate(self, prepared: Any) -> AsyncIterator[Any]:
        from lmdeploy.serve.core.async_engine import GenOut
        from lmdeploy.serve.core.exceptions import ErrorCode, RequestError

        try:
            for letter in self._text:
                if letter == "!":
                    raise RequestError(ErrorCode.INTERNAL_ERROR)
                logprobs = [{ord(letter): -0.5, 65: -1.0}]
                yield GenOut(letter, 1, 1, token_ids=[ord(letter)], logprobs=logprobs)
                await asyncio.sleep(0)
            yield GenOut("", 1, 1, finish_reason="length", token_ids=[])
        finally:
            self.closed += 1


def _ask(
    stand_in: StandIn, prompt: tuple[int, ...] = (1, 2), adapter: str | None = None, **sampling: Any
) -> list[Delta]:
    engine = LmdeployEngine(stand_in, Letters(), ("first",))
    request = Request(id="r", prompt_ids=prompt, sampling=SamplingParams(max_tokens=9, **sampling), adapter=adapter)

    async def go() -> list[Delta]:
        return [delta async for delta in engine.stream(request)]

    return asyncio.run(go())


@needs_lmdeploy
def test_deltas_are_what_lmdeploy_puts_out() -> None:
    stand_in = StandIn("abc")
    deltas = _ask(stand_in, adapter="first", logprobs=1)
    assert "".join(delta.text for delta in deltas) == "abc"
    assert [delta.finish_reason for delta in deltas] == [None, None, None, "length"]
    assert deltas[1].logprobs[0].token == "b"
    assert deltas[1].logprobs[0].top == (("b", 98, -0.5),)
    assert (stand_in.asked[0]["input_ids"], stand_in.asked[0]["adapter_name"]) == ([1, 2], "first")


@needs_lmdeploy
def test_a_stop_string_over_tokens_ends_the_answer_and_the_session() -> None:
    stand_in = StandIn("abcdef")
    deltas = _ask(stand_in, stop=("cd",))
    assert "".join(delta.text for delta in deltas) == "ab"
    assert deltas[-1].finish_reason == "stop"
    assert stand_in.closed == 1


@needs_lmdeploy
def test_text_held_back_for_a_stop_string_comes_out_at_the_end() -> None:
    assert "".join(delta.text for delta in _ask(StandIn("abc"), stop=("cd",))) == "abc"


@needs_lmdeploy
def test_several_answers_run_as_sessions_of_their_own() -> None:
    stand_in = StandIn("ab")
    deltas = _ask(stand_in, n=3, seed=5, temperature=1.0)
    for index in range(3):
        assert "".join(delta.text for delta in deltas if delta.index == index) == "ab"
    assert [asked["gen_config"].random_seed for asked in stand_in.asked] == [5, 6, 7]
    assert stand_in.closed == 3


@needs_lmdeploy
def test_failures_are_errors_of_the_request_or_of_the_answer() -> None:
    deltas = _ask(StandIn("a!"))
    assert (deltas[-1].finish_reason, deltas[-1].error) == (
        "error",
        "LMDeploy failed: An internal server error occurred.",
    )
    with pytest.raises(SwiftError, match="refuses the request"):
        _ask(StandIn("a"), prompt=(1,) * 65)
    with pytest.raises(SwiftError, match="refuses the request"):
        _ask(StandIn("a"), prompt=(1,) * 65, n=2)
    with pytest.raises(SwiftError, match="no adapter `nobody`"):
        _ask(StandIn("a"), adapter="nobody")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"use_rslora": True}, "does not read use_rslora"),
        ({"use_dora": True}, "does not read use_dora"),
        ({"alpha_pattern": {"q_proj": 2}}, "does not read alpha_pattern"),
        ({"target_modules": ".*q_proj"}, "a pattern"),
        ({}, None),
    ],
)
def test_an_adapter_that_lmdeploy_would_put_on_otherwise_is_refused(
    fields: dict[str, Any], named: str | None, tmp_path: Path
) -> None:
    plain = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "use_rslora": False, "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(plain | fields))
    if named is None:
        require_adapter(tmp_path, sees=False)
        named = "other names"
    with pytest.raises(SwiftError, match="as training did") as caught:
        require_adapter(tmp_path, sees=named == "other names")
    assert named in str(caught.value.why)


@needs_lmdeploy
def test_lmdeploy_scales_rank_stabilised_adapters_otherwise() -> None:
    from lmdeploy.pytorch.adapter.adapter import get_ranks_and_scalings  # pyright: ignore
    from peft import LoraConfig

    config = LoraConfig(r=16, lora_alpha=16, use_rslora=True, target_modules=["q_proj"])
    assert get_ranks_and_scalings("q_proj", [config])[1].tolist() == [1.0]  # training has 16 / sqrt(16)


def test_what_it_does_not_take_yet_is_said() -> None:
    engine = LmdeployEngine(StandIn("a"), Letters(), ())
    request = Request(id="r", prompt_ids=(1,), sampling=SamplingParams(max_tokens=1), media=Media(images=("a.png",)))

    async def first() -> Delta:
        return await anext(engine.stream(request))

    with pytest.raises(NotBuilt, match="not given images of a model of text"):
        asyncio.run(first())
    with pytest.raises(SwiftError, match="while it runs") as caught:
        asyncio.run(engine.add_adapter("new", "there"))
    assert caught.value.next == "start with --lora_modules new=there"


@needs_lmdeploy
def test_a_schema_goes_out_as_lmdeploy_wants_it() -> None:
    schema = {"type": "object", "required": ["a"]}
    config = generation_config(SamplingParams(max_tokens=1, grammar=Constraint("json", json.dumps(schema))))
    assert config.response_format == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
