"""The same prompt, greedy, gives the same tokens at the terminal, over HTTP, on the page and from transformers."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from swift import tuners
from swift.catalog import load_catalog
from swift.cli import main
from swift.core.machine import Machine
from swift.core.probe import probe
from swift.engines.base import Engine
from swift.engines.factory import prepare, start
from swift.engines.sync_engine import SyncEngine
from swift.params.parse import parse
from swift.plan.infer import plan_infer
from swift.plan.serve import ServePlan
from swift.prompts.encode import Encoder, build_encoder
from swift.serving.server import Server, bind
from swift.serving.service import Loaded, Service
from swift.ui.chat_turn import Controls, Measured, Talker

# peft asks transformers under an older name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
QUESTION = "Tell me about the sea and the ships on it"
TOKENS = 24


@pytest.fixture(scope="module")
def adapter_dir(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA that changes the answer."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    folder = tmp_path_factory.mktemp("models") / "adapter"
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def merged_dir(tiny_llama_dir: Path, adapter_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same LoRA folded into the model."""
    folder = tmp_path_factory.mktemp("models") / "merged"
    tuned = tuners.load(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), adapter_dir)
    tuners.merge(tuned).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_llama_dir).save_pretrained(folder)
    return folder


def from_transformers(model_dir: Path, adapter: Path | None) -> str:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    messages = [{"role": "user", "content": QUESTION}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS, pad_token_id=2
    )
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def at_the_terminal(model_dir: Path, adapter: Path | None, folder: Path, monkeypatch) -> str:
    argv = ["infer", "--model_id_or_path", str(model_dir), "--template_type", "jinja", "--dtype", "fp32"]
    argv += ["--max_new_tokens", str(TOKENS), "--do_sample", "false", "--result_dir", str(folder)]
    argv += ["--infer_backend", "pt"]
    if adapter is not None:
        argv += ["--ckpt_dir", str(adapter), "--load_args_from_ckpt_dir", "false"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\nexit\n"))
    assert main(argv) == 0
    (results,) = folder.glob("*.jsonl")
    return json.loads(results.read_text())["response"]


def over_http(url: str, model: str, *, stream: bool) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    answer = httpx.post(f"{url}/v1/chat/completions", json={**body, "max_tokens": TOKENS, "stream": stream}, timeout=60)
    if not stream:
        return answer.json()["choices"][0]["message"]["content"]
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events)


class Parts:
    """One loaded model behind a server and behind the page."""

    def __init__(self, model_dir: Path, adapter: Path | None, machine: Machine):
        argv = ["infer", "--model_id_or_path", str(model_dir), "--template_type", "jinja", "--dtype", "fp32"]
        argv += ["--infer_backend", "pt", "--do_sample", "false"]
        argv += ["--lora_modules", f"tuned={adapter}"] if adapter else []
        catalog = load_catalog()
        self.plan = plan_infer(parse(argv), catalog, machine)
        self.prepared = prepare(self.plan, catalog)
        service = Service(ServePlan(model_name="base"))
        listener = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.serving: Engine | None = None
        ready = threading.Event()
        self.server = Server(service, listener, self._load, ready.set)
        self._thread = threading.Thread(target=self.server.answer)
        self._thread.start()
        assert ready.wait(60)

    def _load(self, loop: asyncio.AbstractEventLoop) -> Loaded:
        self.serving = asyncio.run(start(self.plan, self.prepared))
        defaults = ServePlan(model_name="base").defaults(self.prepared.sampling)
        return Loaded(self.serving, self.prepared.encoder, defaults)

    def on_the_page(self, adapter: str | None) -> str:
        with SyncEngine(lambda: start(self.plan, self.prepared)) as engine:
            talker = Talker(engine, self.prepared.encoder, self.prepared.sampling_of)
            controls = Controls(adapter=adapter, max_tokens=TOKENS)
            history = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
            return list(talker.answer(history, controls, threading.Event(), Measured()))[-1]

    def close(self) -> None:
        self.server.stop()
        self._thread.join(20)


@pytest.fixture(scope="module")
def parts(tiny_llama_dir: Path, adapter_dir: Path) -> Iterator[Parts]:
    made = Parts(tiny_llama_dir, adapter_dir, probe())
    yield made
    made.close()


@pytest.mark.parametrize("tuned", [False, True])
def test_base_and_adapter_agree_everywhere(
    parts: Parts, tiny_llama_dir: Path, adapter_dir: Path, tmp_path: Path, monkeypatch, tuned: bool
) -> None:
    adapter = adapter_dir if tuned else None
    expected = from_transformers(tiny_llama_dir, adapter)
    assert len(expected) > 20
    assert (expected != from_transformers(tiny_llama_dir, None)) == tuned
    model = "tuned" if tuned else "base"
    assert over_http(parts.url, model, stream=False) == expected
    assert over_http(parts.url, model, stream=True) == expected
    assert parts.on_the_page("tuned" if tuned else None) == expected
    assert at_the_terminal(tiny_llama_dir, adapter, tmp_path, monkeypatch) == expected


def test_merged_model_agrees_everywhere(merged_dir: Path, adapter_dir, tiny_llama_dir, tmp_path, monkeypatch) -> None:
    expected = from_transformers(merged_dir, None)
    assert expected == from_transformers(tiny_llama_dir, adapter_dir)
    parts = Parts(merged_dir, None, probe())
    try:
        assert over_http(parts.url, "base", stream=False) == expected
        assert parts.on_the_page(None) == expected
    finally:
        parts.close()
    assert at_the_terminal(merged_dir, None, tmp_path, monkeypatch) == expected


def test_the_server_renders_what_training_renders(parts: Parts, tiny_llama_dir: Path) -> None:
    encoder: Encoder = build_encoder(parts.plan.prompt, AutoTokenizer.from_pretrained(tiny_llama_dir), load_catalog())
    assert encoder.fingerprint == parts.prepared.encoder.fingerprint


def test_json_of_a_schema_is_always_valid(parts: Parts) -> None:
    """A random model, held to a schema at a high temperature, can only say what the schema allows."""
    schema = {
        "type": "object",
        "properties": {"id": {"const": "job-17"}, "kind": {"enum": ["a", "b"]}, "sure": {"type": "boolean"}},
        "required": ["id", "kind", "sure"],
        "additionalProperties": False,
    }
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": "Answer in JSON"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "temperature": 1.5,
        "n": 8,
        "seed": 3,
        "max_tokens": 200,
    }
    choices = httpx.post(f"{parts.url}/v1/chat/completions", json=body, timeout=120).json()["choices"]
    answers = [json.loads(choice["message"]["content"]) for choice in choices]
    assert all(answer["id"] == "job-17" and answer["kind"] in ("a", "b") for answer in answers)
    assert {choice["finish_reason"] for choice in choices} == {"stop"}


def test_required_tool_calls_are_always_valid(parts: Parts) -> None:
    city = {"type": "object", "properties": {"city": {"enum": ["Rome", "Bern"]}}, "required": ["city"]}
    city["additionalProperties"] = False
    tools = [{"type": "function", "function": {"name": "weather", "parameters": city}}]
    body = {"model": "base", "messages": [{"role": "user", "content": "?"}], "tools": tools, "max_tokens": 200}
    body |= {"tool_choice": "required", "parallel_tool_calls": False, "temperature": 1.2, "seed": 5, "n": 4}
    choices = httpx.post(f"{parts.url}/v1/chat/completions", json=body, timeout=120).json()["choices"]
    for choice in choices:
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] == "weather"
        assert json.loads(call["function"]["arguments"])["city"] in ("Rome", "Bern")


def test_a_schema_that_makes_no_sense_is_refused_with_its_field(parts: Parts) -> None:
    body = {"model": "base", "messages": [{"role": "user", "content": "?"}]}
    body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    answer = httpx.post(f"{parts.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "response_format"


def test_what_a_beam_search_cannot_do_is_refused_with_its_field(parts: Parts) -> None:
    body = {"model": "base", "prompt": "a", "num_beams": 3, "logprobs": 1}
    answer = httpx.post(f"{parts.url}/v1/completions", json=body, timeout=60)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "num_beams")


def test_vectors_over_http_are_those_of_transformers(parts: Parts, tiny_llama_dir: Path, adapter_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    ids = AutoTokenizer.from_pretrained(tiny_llama_dir)(QUESTION, return_tensors="pt")
    state = model(**ids, output_hidden_states=True).hidden_states[-1][0, -1]
    body = {"model": "base", "input": QUESTION}
    data = httpx.post(f"{parts.url}/v1/embeddings", json=body, timeout=60).json()["data"]
    assert data[0]["embedding"] == pytest.approx((state / state.norm()).tolist(), abs=1e-4)
    tuned = httpx.post(f"{parts.url}/v1/embeddings", json={**body, "model": "tuned"}, timeout=60).json()["data"]
    assert tuned[0]["embedding"] != data[0]["embedding"]


@pytest.mark.parametrize("tuned", [False, True])
def test_how_likely_a_prompt_is_is_told_as_transformers_has_it(
    parts: Parts, tiny_llama_dir: Path, adapter_dir: Path, tuned: bool
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    if tuned:
        model = PeftModel.from_pretrained(model, adapter_dir)
    prompts = [tokenizer("The sea is blué")["input_ids"], [5], tokenizer("Ships on it")["input_ids"]]
    body = {"model": "tuned" if tuned else "base", "prompt": prompts, "echo": True, "logprobs": 2, "temperature": 0}
    for most in (0, 2):
        answer = httpx.post(f"{parts.url}/v1/completions", json={**body, "max_tokens": most}, timeout=60).json()
        for ids, choice in zip(prompts, answer["choices"], strict=True):
            told = choice["logprobs"]
            assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
            assert choice["text"] == "".join(told["tokens"]) and choice["finish_reason"] == "length"
            assert [choice["text"][at:][:1] for at in told["text_offset"][1:]] == [t[:1] for t in told["tokens"][1:]]
            assert len(told["tokens"]) == len(ids) + most
            with torch.no_grad():
                expected = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            for at in range(1, len(ids)):
                assert told["token_logprobs"][at] == pytest.approx(expected[at - 1, ids[at]].item(), abs=1e-3)
                best = expected[at - 1].topk(2)
                names = [tokenizer.decode([token]) for token in best.indices.tolist()]
                assert list(told["top_logprobs"][at].values()) == pytest.approx(best.values.tolist(), abs=1e-3)
                assert [name for name in told["top_logprobs"][at] if not name.startswith("bytes:")] == [
                    name for name in names if "\ufffd" not in name
                ]
        assert answer["usage"]["completion_tokens"] == most * len(prompts)
