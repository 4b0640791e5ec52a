"""Weights of 8 and 4 bits on a CPU: the kernels compute what the weights say, and an engine answers with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.engines.test_torch import ADAPTER, write_lora
from torch import nn
from transformers import AutoTokenizer

from swift import models
from swift.engines.base import Engine, Request, SamplingParams
from swift.engines.packed_linear import PackedLinear, unpack
from swift.engines.sync_engine import SyncEngine
from swift.engines.torch import TorchEngine
from swift.engines.weight_only import Int4, Int8, compare, load_quantized, quantize
from swift.plan.model import ModelPlan
from swift.plan.quantization import QuantPlan
from swift.tuners.peft_tuners import known_warnings

FORMS = {8: Int8, 4: Int4}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 64), (1, 1, 64), (7, 64), (2, 9, 64), (40, 64)])
@torch.inference_mode()
def test_products_are_those_of_the_weights_that_are_shown(bits: int, bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(bits)
    plain = nn.Linear(64, 48, bias=bias)
    packed = PackedLinear(plain.bfloat16(), FORMS[bits])
    strided = torch.randn(*shape[:-1], 128, dtype=torch.bfloat16)[..., ::2]
    shown = packed.unpacked()
    torch.testing.assert_close(packed(strided), shown(strided), rtol=0.02, atol=0.02)
    assert packed.holds(shown)


@pytest.mark.parametrize(("bits", "steps"), [(8, 254), (4, 15)])
def test_a_weight_is_off_by_half_a_step_at_most_where_nothing_is_cut(bits: int, steps: int) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(64, 32, bias=False)
    with torch.no_grad():
        plain.weight.uniform_(-1, 1)
        plain.weight[:, ::32] = 1
        plain.weight[:, 1::32] = -1
    error = (PackedLinear(plain, FORMS[bits]).weight.float() - plain.weight.detach()).abs()
    # Ranges may be cut by a fifth of their half; bf16 rounds what is shown.
    assert float(error.max()) <= 1 / steps + (0.2 if bits == 4 else 0) + 0.01
    assert float(error.mean()) <= 0.6 / steps + 0.002


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_that_are_all_equal_or_zero_stay_numbers(bits: int) -> None:
    plain = nn.Linear(32, 16, bias=False)
    for value in (0.0, 0.5, -3.0):
        nn.init.constant_(plain.weight, value)
        shown = PackedLinear(plain, FORMS[bits]).weight.float()
        torch.testing.assert_close(shown, plain.weight.detach(), rtol=0.02, atol=1e-6)


def test_sizes_that_the_kernels_do_not_take_stay_whole(tiny_llama_dir: Path) -> None:
    model = models.load_model(model_plan(tiny_llama_dir, 8, quantized=False), tiny_llama_dir)
    block = model.get_submodule("model.layers.0.mlp")
    block.odd = nn.Linear(33, 7)
    before = sum(type(layer) is nn.Linear for layer in model.modules())
    assert quantize(model, 4) == (before - 1, 1)
    assert type(block.odd) is nn.Linear and block.odd.weight.dtype == torch.bfloat16


def test_agreement_with_itself_is_whole() -> None:
    table = torch.randn(9, 50).log_softmax(-1)
    agreement = compare(table, table)
    assert (agreement.divergence, agreement.same_choice, agreement.tokens) == (0.0, 1.0, 9)
    assert compare(table, table.flip(1)).divergence > 0.1


def model_plan(folder: Path, bits: int, *, quantized: bool = True) -> ModelPlan:
    quant = QuantPlan(method="torch", bits=bits) if quantized else None
    return ModelPlan(model_type="tiny", source=str(folder), hub="local", dtype="bf16", quant=quant)


@pytest.fixture(scope="module")
def lora_dirs(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        ADAPTER: write_lora(tiny_llama_dir, tmp_path_factory.mktemp("lora"), seed=1),
        "dora": write_lora(tiny_llama_dir, tmp_path_factory.mktemp("dora"), seed=2, use_dora=True),
    }


@pytest.fixture(scope="module", params=[8, 4])
def engine(
    request: pytest.FixtureRequest, tiny_llama_dir: Path, lora_dirs: dict[str, Path]
) -> Iterator[tuple[int, SyncEngine]]:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    load = partial(load_quantized, model_plan(tiny_llama_dir, request.param), tiny_llama_dir, tokenizer)

    async def start() -> Engine:
        return TorchEngine(load, tokenizer, adapters=lora_dirs)

    with SyncEngine(start) as sync:
        yield request.param, sync


def likeliest(sync: SyncEngine, prompt: Sequence[int], adapter: str | None = None) -> dict[int, float]:
    """The log-probabilities of the tokens that may well come next."""
    sampling = SamplingParams(max_tokens=1, logprobs=5)
    (delta,) = sync.stream(Request(id="one", prompt_ids=tuple(prompt), sampling=sampling, adapter=adapter))
    return {token_id: logprob for _, token_id, logprob in delta.logprobs[0].top}


PROMPTS = ([5, 6, 7, 8], list(range(20, 60)), [99])


def test_answers_are_those_of_the_quantized_model(engine: tuple[int, SyncEngine], tiny_llama_dir: Path) -> None:
    bits, sync = engine
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    alone = load_quantized(model_plan(tiny_llama_dir, bits), tiny_llama_dir, tokenizer)
    for prompt in PROMPTS:
        with torch.inference_mode():
            expected = alone(input_ids=torch.tensor([prompt])).logits[0, -1].float().log_softmax(-1)
        for token, logprob in likeliest(sync, prompt).items():
            assert logprob == pytest.approx(float(expected[token]), abs=0.1)


@pytest.mark.parametrize("adapter", [ADAPTER, "dora"])
def test_adapters_answer_over_quantized_weights(
    engine: tuple[int, SyncEngine], tiny_llama_dir: Path, lora_dirs: dict[str, Path], adapter: str
) -> None:
    # As PEFT has it on plain layers with the weights that the packed ones show.
    bits, sync = engine
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    shown = load_quantized(model_plan(tiny_llama_dir, bits), tiny_llama_dir, tokenizer)
    unpack(shown, lambda path: True)
    with known_warnings():
        tuned = PeftModel.from_pretrained(shown, lora_dirs[adapter]).eval()
    for prompt in PROMPTS:
        with torch.inference_mode():
            expected = tuned(input_ids=torch.tensor([prompt])).logits[0, -1].float().log_softmax(-1)
        got = likeliest(sync, prompt, adapter)
        assert got.keys() != likeliest(sync, prompt).keys()
        for token, logprob in got.items():
            assert logprob == pytest.approx(float(expected[token]), abs=0.15)
