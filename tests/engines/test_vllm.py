"""vLLM behind the Engine protocol, on the real SmolLM2: `make test-vllm` runs this where vLLM is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from swift.chat.types import Media
from swift.core.errors import NotBuilt, SwiftError
from swift.engines.base import Delta, Request, Sampling, TokenLogprob
from swift.engines.vllm import VllmEngine, VllmSettings, engine_args, sampling_params, vllm_settings
from swift.params.groups import Vllm

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM has an environment of its own: make test-vllm"
)
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
QUESTIONS = [
    "What is the capital of France?",
    "Name a colour.",
    "Count from one to five.",
    "Say hello.",
    "What is 2+2?",
]


@dataclass(frozen=True)
class Answer:
    """The deltas of one answer, joined."""

    text: str
    token_ids: list[int]
    logprobs: list[TokenLogprob]
    finish_reason: str | None
    pieces: int


class Asker:
    """One engine on one event loop, asked from plain test functions."""

    def __init__(self, engine: VllmEngine, runner: asyncio.Runner):
        self.engine = engine
        self.run = runner.run
        self._count = 0

    def request(self, question: str | tuple[int, ...], *, adapter: str | None = None, **sampling: Any) -> Request:
        self._count += 1
        ids = self.prompt(question) if isinstance(question, str) else question
        return Request(id=f"r{self._count}", prompt_ids=ids, sampling=Sampling(**sampling), adapter=adapter)

    def prompt(self, question: str) -> tuple[int, ...]:
        messages = [{"role": "user", "content": question}]
        tokenizer = self.engine.tokenizer
        return tuple(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))

    async def deltas(self, request: Request) -> list[Delta]:
        return [delta async for delta in self.engine.stream(request)]

    def all(self, requests: list[Request]) -> list[list[Answer]]:
        """The answers of requests that run at the same time, by request and index."""

        async def together() -> list[list[Delta]]:
            return await asyncio.gather(*map(self.deltas, requests))

        return [_join(deltas) for deltas in self.run(together())]

    def one(self, question: str | tuple[int, ...], **kwargs: Any) -> Answer:
        return self.all([self.request(question, **kwargs)])[0][0]


def _join(deltas: list[Delta]) -> list[Answer]:
    answers = []
    for index in sorted({delta.index for delta in deltas}):
        own = [delta for delta in deltas if delta.index == index]
        assert [delta.finish_reason is not None for delta in own] == [False] * (len(own) - 1) + [True]
        answers.append(
            Answer(
                text="".join(delta.text for delta in own),
                token_ids=[token_id for delta in own for token_id in delta.token_ids],
                logprobs=[logprob for delta in own for logprob in delta.logprobs],
                finish_reason=own[-1].finish_reason,
                pieces=len(own),
            )
        )
    return answers


@pytest.fixture(scope="module")
def model_dir(request: pytest.FixtureRequest) -> Path:
    """SmolLM2 as the main environment converted it, or converted here."""
    given = os.environ.get("SWIFT_TEST_MODEL_DIR")
    return Path(given) if given else request.getfixturevalue("smollm2_dir")


@pytest.fixture(scope="module")
def reference(model_dir: Path) -> Any:
    """The same model in transformers."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_dir, dtype="float32").eval()


@pytest.fixture(scope="module")
def adapters(model_dir: Path, reference: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two LoRAs with weights that change the answer."""
    import peft
    import torch

    folders = {}
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = peft.get_peft_model(reference, config)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(std=0.05)
        folders[name] = tmp_path_factory.mktemp("adapters") / name
        model.save_pretrained(folders[name])
        model.unload()
    return folders


@pytest.fixture(scope="module")
def asker(model_dir: Path, adapters: dict[str, Path]) -> Iterator[Asker]:
    """A running engine that serves the first LoRA."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    settings = VllmSettings(dtype="fp32", max_model_len=512, max_num_seqs=8, enforce_eager=True, max_lora_rank=4)
    with asyncio.Runner() as runner:
        engine = runner.run(VllmEngine.start(model_dir, tokenizer, settings, {"first": adapters["first"]}))
        yield Asker(engine, runner)
        runner.run(engine.close())


def _greedy(model: Any, ids: tuple[int, ...], tokens: int) -> list[int]:
    import torch

    with torch.inference_mode():
        made = model.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, pad_token_id=2)
    return made[0, len(ids) :].tolist()


@needs_vllm
def test_greedy_is_what_transformers_generates_for_each_of_several_at_once(asker: Asker, reference: Any) -> None:
    answers = asker.all([asker.request(question, max_tokens=10) for question in QUESTIONS])
    for question, (answer,) in zip(QUESTIONS, answers, strict=True):
        assert answer.token_ids == _greedy(reference, asker.prompt(question), 10), question
    assert answers[0][0].text == "The capital of France is Paris."
    assert answers[0][0].finish_reason == "stop"


@needs_vllm
def test_text_comes_in_pieces(asker: Asker) -> None:
    answer = asker.one(QUESTIONS[0], max_tokens=6)
    assert answer.pieces >= 5
    assert answer.text == "The capital of France is Paris"
    assert answer.finish_reason == "length"


@needs_vllm
def test_closing_the_stream_aborts_the_request(asker: Asker) -> None:
    async def leave() -> None:
        stream = asker.engine.stream(asker.request(QUESTIONS[2], max_tokens=400, min_tokens=400))
        await anext(stream)
        assert asker.engine.statistics()["running"] == 1
        await stream.aclose()

    asker.run(leave())
    assert asker.engine.statistics() == {"running": 0, "waiting": 0, "kv_used": 0}
    assert asker.one(QUESTIONS[0], max_tokens=2).finish_reason == "length"


@needs_vllm
def test_ctrl_c_in_the_terminal_does_not_reach_the_model(asker: Asker) -> None:
    (process,) = [child for child in multiprocessing.active_children() if "EngineCore" in child.name]
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    assert asker.one(QUESTIONS[0], max_tokens=3).text == "The capital of"


@needs_vllm
def test_a_stop_string_ends_the_answer_across_token_borders(asker: Asker) -> None:
    answer = asker.one(QUESTIONS[0], max_tokens=10, stop=("of Fr",))
    assert (answer.text, answer.finish_reason) == ("The capital ", "stop")


@needs_vllm
def test_a_stop_token_ends_the_answer_and_is_not_in_the_text(asker: Asker) -> None:
    (france,) = asker.engine.tokenizer.encode(" France")
    answer = asker.one(QUESTIONS[0], max_tokens=10, stop_token_ids=(france,))
    assert (answer.text, answer.finish_reason) == ("The capital of", "stop")


@needs_vllm
def test_a_seed_repeats_and_the_answers_of_one_request_differ(asker: Asker) -> None:
    wish = {"max_tokens": 8, "temperature": 1.0, "seed": 7, "n": 3}
    (once,), (again,) = (
        asker.all([asker.request("Tell me a story.", **wish)]),
        asker.all([asker.request("Tell me a story.", **wish)]),
    )
    assert [answer.text for answer in once] == [answer.text for answer in again]
    assert len({answer.text for answer in once}) == 3


@needs_vllm
def test_logprobs_are_those_of_the_model(asker: Asker, reference: Any) -> None:
    import torch

    answer = asker.one(QUESTIONS[0], max_tokens=4, logprobs=3)
    ids = asker.prompt(QUESTIONS[0])
    with torch.inference_mode():
        logits_TV = reference(torch.tensor([[*ids, *answer.token_ids]])).logits[0, len(ids) - 1 : -1]
    expected_TV = logits_TV.log_softmax(-1)
    for step, logprob in enumerate(answer.logprobs):
        assert logprob.token_id == answer.token_ids[step]
        assert logprob.logprob == pytest.approx(expected_TV[step, logprob.token_id].item(), abs=1e-3)
        assert [entry[1] for entry in logprob.top] == expected_TV[step].topk(3).indices.tolist()
    assert "".join(logprob.token for logprob in answer.logprobs) == answer.text


@needs_vllm
def test_a_chosen_token_outside_the_top_is_not_added_to_it(asker: Asker) -> None:
    answer = asker.one("Tell me a story.", max_tokens=8, temperature=2.0, seed=1, logprobs=1)
    assert {len(logprob.top) for logprob in answer.logprobs} == {1}
    assert any(logprob.top[0][1] != logprob.token_id for logprob in answer.logprobs)


@needs_vllm
def test_an_adapter_answers_as_in_peft_beside_the_base(asker: Asker, reference: Any, adapters: dict[str, Path]) -> None:
    import peft

    (base,), (tuned,) = asker.all(
        [asker.request(QUESTIONS[1], max_tokens=8), asker.request(QUESTIONS[1], max_tokens=8, adapter="first")]
    )
    expected_base = _greedy(reference, asker.prompt(QUESTIONS[1]), 8)
    model = peft.PeftModel.from_pretrained(reference, adapters["first"])
    expected = _greedy(model, asker.prompt(QUESTIONS[1]), 8)
    model.unload()
    assert (base.token_ids, tuned.token_ids) == (expected_base, expected)
    assert expected != expected_base


@needs_vllm
def test_an_adapter_is_added_while_it_runs(asker: Asker, reference: Any, adapters: dict[str, Path]) -> None:
    import peft

    asker.run(asker.engine.add_adapter("second", str(adapters["second"])))
    assert asker.engine.adapters == ("first", "second")
    answer = asker.one(QUESTIONS[1], max_tokens=8, adapter="second")
    model = peft.PeftModel.from_pretrained(reference, adapters["second"])
    assert answer.token_ids == _greedy(model, asker.prompt(QUESTIONS[1]), 8)
    model.unload()


@needs_vllm
def test_a_bad_adapter_is_an_error_and_the_engine_lives(asker: Asker, tmp_path: Path) -> None:
    with pytest.raises(SwiftError, match="no adapter `nobody`"):
        asker.one(QUESTIONS[0], max_tokens=2, adapter="nobody")
    with pytest.raises(SwiftError, match="does not take the adapter `empty`"):
        asker.run(asker.engine.add_adapter("empty", str(tmp_path)))
    assert "empty" not in asker.engine.adapters
    assert asker.one(QUESTIONS[0], max_tokens=2).text == "The capital"


@needs_vllm
def test_an_answer_is_held_to_a_json_schema(asker: Asker) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    answer = asker.one(QUESTIONS[0], max_tokens=40, grammar=json.dumps({**schema, "additionalProperties": False}))
    assert json.loads(answer.text)["city"] in ("Paris", "Rome")


@needs_vllm
def test_what_cannot_be_answered_is_an_error(asker: Asker) -> None:
    with pytest.raises(SwiftError, match="refuses the request"):
        asker.one((1,) * 600, max_tokens=2)
    with pytest.raises(SwiftError, match="refuses the request"):
        asker.one(QUESTIONS[0], max_tokens=2, grammar='{"type": "nonsense"}')
    with pytest.raises(SwiftError, match="refuses the request"):
        asker.one(QUESTIONS[0], max_tokens=2, logprobs=1000)
    with pytest.raises(SwiftError, match="beam search"):
        asker.one(QUESTIONS[0], max_tokens=2, num_beams=2)
    with pytest.raises(NotBuilt, match="images"):
        request = Request(id="m", prompt_ids=(1,), sampling=Sampling(max_tokens=1), media=Media(images=("a.png",)))
        asker.run(asker.deltas(request))


@needs_vllm
def test_every_sampling_field_reaches_vllm() -> None:
    wish = Sampling(
        max_tokens=3,
        temperature=0.5,
        top_k=4,
        top_p=0.6,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        n=2,
        seed=9,
        min_tokens=1,
        stop=("a",),
        stop_token_ids=(5,),
        logprobs=2,
    )
    params = sampling_params(wish)
    assert (params.max_tokens, params.temperature, params.top_k, params.top_p) == (3, 0.5, 4, 0.6)
    assert (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) == (1.1, 0.2, 0.3)
    assert (params.n, params.seed, params.min_tokens, params.logprobs) == (2, 9, 1, 2)
    assert (params.stop, params.stop_token_ids) == (["a"], [5])
    assert sampling_params(Sampling(max_tokens=1, grammar="json_object")).structured_outputs.json_object is True


@needs_vllm
def test_a_model_vllm_refuses_is_an_error(model_dir: Path) -> None:
    settings = VllmSettings(max_model_len=10**6, enforce_eager=True)
    with pytest.raises(SwiftError, match="did not start") as caught:
        asyncio.run(VllmEngine.start(model_dir, None, settings))
    assert caught.value.why is not None
    assert "max_model_len" in caught.value.why


@needs_vllm
def test_the_rank_is_rounded_up_to_one_vllm_has(tmp_path: Path) -> None:
    assert engine_args(tmp_path, VllmSettings(enable_lora=True, max_lora_rank=10), {})["max_lora_rank"] == 16
    with pytest.raises(SwiftError, match="ranks up to"):
        engine_args(tmp_path, VllmSettings(enable_lora=True, max_lora_rank=4096), {})


def test_flags_become_settings() -> None:
    flags = Vllm(
        gpu_memory_utilization=0.5,
        tensor_parallel_size=2,
        max_num_seqs=7,
        max_model_len=99,
        disable_custom_all_reduce=False,
        enforce_eager=True,
        limit_mm_per_prompt='{"image": 2}',
        vllm_enable_lora=True,
        vllm_max_lora_rank=32,
    )
    settings = vllm_settings(flags, dtype="bf16", seed=3)
    args = engine_args(Path("model"), settings, {}) if importlib.util.find_spec("vllm") else None
    assert settings.max_lora_rank == 32
    assert settings.enable_lora
    assert settings.limit_mm_per_prompt == {"image": 2}
    assert (
        args is None
        or {
            "gpu_memory_utilization": 0.5,
            "tensor_parallel_size": 2,
            "max_num_seqs": 7,
            "max_model_len": 99,
            "disable_custom_all_reduce": False,
            "enforce_eager": True,
            "limit_mm_per_prompt": {"image": 2},
            "dtype": "bfloat16",
            "seed": 3,
        }.items()
        <= args.items()
    )


def test_the_share_of_memory_is_left_to_vllm_unless_said() -> None:
    assert vllm_settings(Vllm(), memory_said=False).gpu_memory_utilization is None
    assert "gpu_memory_utilization" not in engine_args(Path("model"), VllmSettings(), {})


@pytest.mark.parametrize("said", ["{", "[1]", '{"image": "two"}', '{"image": -1}'])
def test_a_bad_media_limit_names_its_flag(said: str) -> None:
    with pytest.raises(SwiftError) as caught:
        vllm_settings(Vllm(limit_mm_per_prompt=said))
    assert caught.value.where == "--limit_mm_per_prompt"


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_way_to_get_it_is_said() -> None:
    with pytest.raises(SwiftError, match="needs the package `vllm`") as caught:
        asyncio.run(VllmEngine.start(Path("model"), None, VllmSettings()))
    assert caught.value.next is not None
    assert "pip install" in caught.value.next
