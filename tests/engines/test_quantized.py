"""The PyTorch engine on quantized weights: the behaviour of every engine, equal to the same weights elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from behaviour import *  # noqa: F403  # the tests every engine runs
from behaviour import PROMPTS, Served
from peft import PeftModel
from tests.engines.test_torch import ADAPTER, generate, write_lora
from transformers import AutoTokenizer, PreTrainedModel

from swift import models
from swift.engines.base import Engine
from swift.engines.sync_engine import SyncEngine
from swift.engines.torch import TorchEngine
from swift.plan.model import ModelPlan
from swift.plan.quantization import QuantPlan
from swift.tuners.peft_tuners import known_warnings

pytest.importorskip("hqq", reason="`make test` runs these with HQQ, which is installed apart")

QUANTS = {
    "bnb4": QuantPlan(method="bnb", bits=4, compute_dtype="fp32"),
    "bnb8": QuantPlan(method="bnb", bits=8),
    "hqq4": QuantPlan(method="hqq", bits=4),
}


def load(folder: Path, name: str) -> PreTrainedModel:
    return models.load_model(
        ModelPlan(model_type="tiny", source=str(folder), hub="local", dtype="fp32", quant=QUANTS[name])
    )


def engine_of(folder: Path, name: str, adapters: dict[str, Path]) -> SyncEngine:
    async def start() -> Engine:
        return TorchEngine(partial(load, folder, name), AutoTokenizer.from_pretrained(folder), adapters=adapters)

    return SyncEngine(start)


def with_adapter(folder: Path, name: str, adapter: Path) -> PeftModel:
    with known_warnings():
        return PeftModel.from_pretrained(load(folder, name), adapter)


@pytest.fixture(scope="module", params=["bnb4", "hqq4"])
def served(
    request: pytest.FixtureRequest, tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    lora = write_lora(tiny_llama_dir, tmp_path_factory.mktemp("lora"), seed=1)
    base, tuned = load(tiny_llama_dir, request.param), with_adapter(tiny_llama_dir, request.param, lora)

    def greedy(ids: Sequence[int], tokens: int, adapter: str | None) -> list[int]:
        return generate(base if adapter is None else tuned, ids, tokens)

    with engine_of(tiny_llama_dir, request.param, {ADAPTER: lora}) as sync:
        yield Served(sync, greedy, ADAPTER)


@pytest.mark.parametrize("name", QUANTS)
def test_dora_on_quantized_weights_is_that_of_peft(tiny_llama_dir: Path, tmp_path: Path, name: str) -> None:
    # DoRA reads the base's weights, also after the model has answered: they must not have been repacked.
    dora = write_lora(tiny_llama_dir, tmp_path / "dora", seed=9, use_dora=True)
    tuned, base = with_adapter(tiny_llama_dir, name, dora), load(tiny_llama_dir, name)
    with engine_of(tiny_llama_dir, name, {"dora": dora}) as sync:
        served = Served(sync, lambda *_: [], "dora")
        requests = [served.request(prompt, adapter=a) for prompt in PROMPTS[:3] for a in (None, "dora")]
        replies = list(sync.replies(requests, concurrency=6))
    expected = [generate(tuned if r.adapter else base, r.prompt_ids, 12) for r in requests]
    assert [reply.token_ids for reply in replies] == expected
