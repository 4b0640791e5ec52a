"""The PyTorch engine: the shared behaviour on a tiny model, and what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from behaviour import *  # noqa: F403  # the tests every engine runs
from behaviour import Served
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from swift.core.errors import SwiftError
from swift.engines.base import Engine, Request, SamplingParams
from swift.engines.sync_engine import SyncEngine
from swift.engines.torch import TorchEngine
from swift.tuners.peft_tuners import known_warnings

ADAPTER = "poet"


def write_lora(model_dir: Path, folder: Path, *, seed: int, std: float = 0.3, **settings: object) -> Path:
    """A LoRA of random weights that changes what the model says."""
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    torch.manual_seed(seed)
    config = LoraConfig(**{"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"], **settings})
    with known_warnings():
        tuned = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * std)
    tuned.save_pretrained(folder)
    return folder


def with_lora(model_dir: Path, folder: Path) -> PeftModel:
    """The model with the adapter on it, by PEFT's own loading."""
    with known_warnings():
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), folder)


@pytest.fixture(scope="module")
def lora_dir(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tiny_llama_dir, tmp_path_factory.mktemp("lora"), seed=1)


def engine_of(model_dir: Path, adapters: dict[str, Path] | None = None, **settings: object) -> SyncEngine:
    async def start() -> Engine:
        load = partial(AutoModelForCausalLM.from_pretrained, model_dir, dtype=torch.float32)
        return TorchEngine(load, AutoTokenizer.from_pretrained(model_dir), adapters=adapters, **settings)  # type: ignore[arg-type]

    return SyncEngine(start)


def generate(model, ids: Sequence[int], tokens: int) -> list[int]:
    prompt = torch.tensor([ids])
    mask = torch.ones_like(prompt)
    return model.generate(prompt, attention_mask=mask, max_new_tokens=tokens, do_sample=False)[0, len(ids) :].tolist()


@pytest.fixture(scope="module")
def served(tiny_llama_dir: Path, lora_dir: Path) -> Iterator[Served]:
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    tuned = with_lora(tiny_llama_dir, lora_dir)

    def greedy(ids: Sequence[int], tokens: int, adapter: str | None) -> list[int]:
        return generate(base if adapter is None else tuned, ids, tokens)

    with engine_of(tiny_llama_dir, {ADAPTER: lora_dir}) as sync:
        yield Served(sync, greedy, ADAPTER)


def request(prompt: Sequence[int], tokens: int = 12, **settings: object) -> Request:
    return Request(id="one", prompt_ids=tuple(prompt), sampling=SamplingParams(max_tokens=tokens), **settings)  # type: ignore[arg-type]


def test_the_next_turn_of_a_chat_finds_its_prefix(tiny_llama_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    with engine_of(tiny_llama_dir) as sync:
        first = list(range(100, 140))
        answer = [t for d in sync.stream(request(first)) for t in d.token_ids]
        second = [*first, *answer, 7, 8, 9]
        deltas = list(sync.stream(request(second)))
        # All but the answer's last token, whose keys were never needed.
        assert deltas[0].cached_tokens == len(first) + len(answer) - 1
        assert [t for d in deltas for t in d.token_ids] == generate(model, second, 12)
        # Another question after the same beginning leaves the longer conversation alone.
        other = [*first, 5, 6]
        deltas = list(sync.stream(request(other)))
        assert deltas[0].cached_tokens == len(first)
        assert [t for d in deltas for t in d.token_ids] == generate(model, other, 12)
        assert next(iter(sync.stream(request([*second, 3])))).cached_tokens >= len(second)


def test_prompts_longer_than_a_step_and_rows_that_outgrow_their_pool(tiny_llama_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    prompts = [[(7 * i + j) % 40000 for j in range(size)] for i, size in enumerate((700, 250, 30, 513, 2))]
    with engine_of(tiny_llama_dir, chunk=64) as sync:
        replies = list(sync.replies((request(p, 20) for p in prompts), 5))
    assert [reply.token_ids for reply in replies] == [generate(model, p, 20) for p in prompts]


def test_with_little_memory_sequences_take_turns_and_lose_nothing(tiny_llama_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    prompts = [[(11 * i + j) % 40000 for j in range(245)] for i in range(6)]
    row = 256 * 2 * 2 * 2 * 16 * 4
    with engine_of(tiny_llama_dir, cache_bytes=5 * row) as sync:
        replies = list(sync.replies((request(p, 24) for p in prompts), 6))
        too_long = list(sync.replies([request(range(2000))], 1))
    assert [reply.token_ids for reply in replies] == [generate(model, p, 24) for p in prompts]
    assert "memory" in (too_long[0].error or "")


def test_an_adapter_added_later_answers_beside_the_others(tiny_llama_dir: Path, lora_dir: Path, tmp_path: Path) -> None:
    later = write_lora(tiny_llama_dir, tmp_path / "later", seed=5, r=8, target_modules=["k_proj", "o_proj"])
    tuned = with_lora(tiny_llama_dir, later)
    ids = list(range(50, 70))
    with engine_of(tiny_llama_dir, {"first": lora_dir}) as sync:
        asyncio.run(sync.engine.add_adapter("later", str(later)))
        assert sync.engine.adapters == ("first", "later")
        names = [None, "first", "later", "later", "first"]
        replies = list(sync.replies((request(ids, adapter=name) for name in names), 5))
        alone = [t for d in sync.stream(request(ids, adapter="later")) for t in d.token_ids]
    assert replies[2].token_ids == replies[3].token_ids == alone == generate(tuned, ids, 12)
    assert replies[0].token_ids != replies[1].token_ids != replies[2].token_ids


def test_an_adapter_with_added_tokens_answers_beside_the_others(
    tiny_llama_dir: Path, lora_dir: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    base = generate(model, range(50, 70), 12)
    torch.manual_seed(2)
    model.resize_token_embeddings(49160, mean_resizing=False)
    with known_warnings():
        tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path, save_embedding_layers=True)
    wide = [*range(50, 69), 49155]
    with engine_of(tiny_llama_dir, {"first": lora_dir, "wide": tmp_path}) as sync:
        requests = [
            request(range(50, 70)),
            request(wide, adapter="wide"),
            request(wide),
            request(wide, adapter="first"),
        ]
        replies = list(sync.replies(iter(requests), 4))
        vector = asyncio.run(sync.engine.embed([tuple(wide)], adapter="wide"))[0]
    assert replies[0].token_ids == base
    assert replies[1].token_ids == generate(tuned, wide, 12)
    assert all("49155" in (reply.error or "") for reply in replies[2:])
    hidden = tuned(input_ids=torch.tensor([wide]), output_hidden_states=True).hidden_states[-1][0, -1]
    torch.testing.assert_close(torch.tensor(vector), hidden / hidden.norm(), atol=1e-4, rtol=0)


def test_a_name_given_again_means_the_new_weights_and_a_misfit_changes_nothing(
    tiny_llama_dir: Path, tiny_qwen2_dir: Path, lora_dir: Path, tmp_path: Path
) -> None:
    newer = write_lora(tiny_llama_dir, tmp_path / "newer", seed=8)
    misfit = write_lora(tiny_llama_dir, tmp_path / "misfit", seed=8)
    config = misfit / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 6'))
    ids = list(range(50, 70))
    base = generate(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), ids, 12)
    with engine_of(tiny_llama_dir) as sync:

        def tokens(adapter: str | None) -> list[int]:
            return [t for d in sync.stream(request(ids, adapter=adapter)) for t in d.token_ids]

        def add(folder: Path) -> None:
            asyncio.run(sync.engine.add_adapter("it", str(folder)))

        with pytest.raises(SwiftError, match="it"):
            add(misfit)
        assert tokens(None) == base
        add(lora_dir)
        assert tokens("it") == generate(with_lora(tiny_llama_dir, lora_dir), ids, 12)
        add(newer)
        assert tokens(None) == base
        assert tokens("it") == generate(with_lora(tiny_llama_dir, newer), ids, 12)


def test_a_pissa_adapter_leaves_the_base_to_the_others(tiny_llama_dir: Path, lora_dir: Path, tmp_path: Path) -> None:
    from swift import models, tuners
    from swift.plan.model import ModelPlan
    from swift.plan.tuner import TunerPlan

    plan = ModelPlan(model_type="tiny", source=str(tiny_llama_dir), hub="local", dtype="fp32")
    settings = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "init_lora_weights": "pissa_niter_4"}
    tuned = tuners.attach(models.load_model(plan), TunerPlan(sft_type="lora", settings=settings))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * parameter.std())
    tuners.save(tuned, tmp_path)
    ids = list(range(50, 70))
    with engine_of(tiny_llama_dir, {"pissa": tmp_path, "plain": lora_dir}) as sync:
        replies = list(sync.replies((request(ids, adapter=a) for a in ("pissa", None, "plain")), 3))
    assert replies[0].token_ids == generate(tuned.eval(), ids, 12)
    assert replies[1].token_ids == generate(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), ids, 12)
    assert replies[2].token_ids == generate(with_lora(tiny_llama_dir, lora_dir), ids, 12)


def test_adapters_that_cannot_share_a_batch_answer_too(tiny_llama_dir: Path, lora_dir: Path, tmp_path: Path) -> None:
    dora = write_lora(tiny_llama_dir, tmp_path / "dora", seed=9, use_dora=True)
    tuned = with_lora(tiny_llama_dir, dora)
    ids = list(range(50, 70))
    with engine_of(tiny_llama_dir, {"dora": dora, "plain": lora_dir}) as sync:
        replies = list(sync.replies((request(ids, adapter=a) for a in ("dora", None, "plain", "dora")), 4))
    assert replies[0].token_ids == replies[3].token_ids == generate(tuned, ids, 12)
    assert len({tuple(reply.token_ids) for reply in replies}) == 3


def test_an_adapter_of_broken_weights_fails_its_own_requests_only(tiny_llama_dir: Path, tmp_path: Path) -> None:
    broken = write_lora(tiny_llama_dir, tmp_path / "broken", seed=9, std=torch.nan)
    ids = list(range(50, 70))
    with engine_of(tiny_llama_dir, {"broken": broken}) as sync:
        replies = list(sync.replies((request(ids, adapter=a) for a in ("broken", None, "broken")), 3))
        with pytest.raises(SwiftError, match="not numbers"):
            embed(sync, [(5, 6)], "broken")
    assert replies[1].token_ids == generate(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), ids, 12)
    for reply in (replies[0], replies[2]):
        assert (reply.finish_reason, reply.text) == ("error", "")
        assert "NaN" in (reply.error or "")


def embed(sync: SyncEngine, texts: Sequence[tuple[int, ...]], adapter: str | None = None) -> torch.Tensor:
    return torch.tensor(asyncio.run(sync.engine.embed(texts, adapter)))


@pytest.mark.parametrize("kind", ["slots", "separate"])
def test_a_vector_is_the_normalised_last_hidden_state(
    tiny_llama_dir: Path, lora_dir: Path, tmp_path: Path, kind: str
) -> None:
    folder = tiny_llama_dir
    if kind == "separate":
        from transformers import MambaConfig, MambaForCausalLM

        torch.manual_seed(0)
        folder = tmp_path / "mamba"
        MambaForCausalLM(MambaConfig(vocab_size=49152, hidden_size=32, num_hidden_layers=2)).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_llama_dir).save_pretrained(folder)
    texts = [tuple(range(5, 9)), (7,), tuple(range(100, 250))]
    models = {None: AutoModelForCausalLM.from_pretrained(folder)}
    if kind == "slots":
        models[ADAPTER] = with_lora(folder, lora_dir)
    with engine_of(folder, {ADAPTER: lora_dir} if kind == "slots" else None, chunk=32) as sync:
        for adapter, model in models.items():
            vectors = embed(sync, texts, adapter)
            for ids, vector in zip(texts, vectors, strict=True):
                states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, -1]
                assert torch.allclose(vector, states / states.norm(), atol=1e-4)
        with pytest.raises(SwiftError, match="0 tokens"):
            embed(sync, [()])


def test_vectors_and_answers_do_not_disturb_each_other(tiny_llama_dir: Path, lora_dir: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    prompt = list(range(60, 80))
    with engine_of(tiny_llama_dir, {ADAPTER: lora_dir}, chunk=16) as sync:
        alone = embed(sync, [tuple(range(40))], ADAPTER)
        stream = sync.stream(request(prompt, 60))
        tokens = list(next(stream).token_ids)
        # Read in stretches between the steps of the answer; requests take turns.
        many = embed(sync, [tuple(range(40))] * 8, ADAPTER)
        tokens += [token for delta in stream for token in delta.token_ids]
    assert tokens == generate(base, prompt, 60)
    assert torch.equal(many, alone.expand(8, -1))


def test_nobody_waits_for_vectors_of_an_engine_that_is_closed(tiny_llama_dir: Path) -> None:
    sync = engine_of(tiny_llama_dir, chunk=1)

    async def ask_and_close() -> None:
        asked = asyncio.create_task(sync.engine.embed([tuple(range(1000))] * 50))
        await asyncio.sleep(0.05)
        await sync.engine.close()
        with pytest.raises(asyncio.CancelledError):
            await asked

    with sync:
        asyncio.run(ask_and_close())
