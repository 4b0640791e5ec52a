"""The forward pass of plain decoders: the model's own logits, and only where nothing else is in the model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import tiny_model
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.engines.adapter_pool import AdaptedModel
from swift.engines.base import Request, SamplingParams
from swift.engines.packed_linear import pack
from swift.engines.plain_decoder import ROWS
from swift.engines.runner import SlotRunner
from swift.engines.runner_probe import choose_runner
from swift.engines.sequence import Sequence
from swift.engines.weight_only import quantize
from swift.tuners.peft_tuners import known_warnings

PLAIN = ["llama", "mistral", "qwen2", "qwen3"]
TEXTS = [[(7 * i + j * (i + 3)) % 490 + 3 for j in range(size)] for i, size in enumerate((60, 9, 30))]


def slot_runner(pool: AdaptedModel) -> SlotRunner:
    runner = choose_runner(pool, budget=2**26, max_length=512, places=4)
    assert isinstance(runner, SlotRunner)
    return runner


def logits_of_steps(runner: SlotRunner, adapter: str | None = None) -> Tensor:
    """Of each text in stretches and in single tokens, alone and beside the others, and of several tokens at once."""
    sequences = [sequence_of(text, adapter) for text in TEXTS]
    for sequence in sequences:
        assert runner.admit(sequence) == 0
    steps = [runner.extend(sequences, [20, 4, 20]), runner.extend(sequences, [20, 1, 1])]
    for _ in range(3):
        steps += [runner.extend(sequences, [1, 1, 1]), runner.extend(sequences[:1], [1])]
    steps.append(runner.extend_by(sequences[0], TEXTS[0][46:51]))
    for sequence in sequences:
        runner.release(sequence)
    runner.forget(adapter)
    return torch.cat(steps)


def sequence_of(text: list[int], adapter: str | None = None) -> Sequence:
    request = Request(id="r", prompt_ids=tuple(text), sampling=SamplingParams(max_tokens=1), adapter=adapter)
    return Sequence(request, 0, None, frozenset(), 512, None)


def lively(model: PreTrainedModel) -> PreTrainedModel:
    """With norms and biases that are not what they start as."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", PLAIN)
@torch.inference_mode()
def test_logits_are_those_of_the_models_own_forward(name: str, dtype: torch.dtype) -> None:
    """Beyond the window of Mistral, which is 8 tokens."""
    model = lively(tiny_model(name)).to(dtype)
    own, plain = AdaptedModel(copy.deepcopy(model)), AdaptedModel(model)
    pack(plain.base)
    runners = slot_runner(own), slot_runner(plain)
    own.hows = None
    assert own.plain(None) is None and plain.plain(None) is not None
    expected, logits = map(logits_of_steps, runners)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    assert float((logits - expected).abs().max()) <= tolerance * float(expected.abs().max())


def hooked(model: Any) -> None:
    model.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: output * 2)


def replaced(model: Any) -> None:
    layer = model.model.layers[0]
    layer.forward = lambda *args, **kwargs: type(layer).forward(layer, *args, **kwargs) * 2


def other_norm(model: Any) -> None:
    model.model.norm = nn.LayerNorm(64)


@pytest.mark.parametrize("change", [hooked, replaced, other_norm])
@torch.inference_mode()
def test_a_model_with_more_to_it_keeps_its_own_forward(change: Any) -> None:
    model = tiny_model("llama")
    plain = logits_of_steps(slot_runner(AdaptedModel(copy.deepcopy(model))))
    change(model)
    changed = AdaptedModel(model)
    logits = logits_of_steps(slot_runner(changed))
    assert changed.plain(None) is None
    assert not torch.allclose(logits, plain, atol=0.01)


@torch.inference_mode()
def test_an_adapter_has_a_forward_pass_of_its_own_until_another_comes(tmp_path: Path) -> None:
    """The second wraps layers that the first left alone."""
    pool = AdaptedModel(tiny_model("llama"))
    for number, target in enumerate(("q_proj", "down_proj")):
        write_adapter(pool.base, tmp_path / target, target, seed=number)
    pool.add("first", tmp_path / "q_proj")
    runner = slot_runner(pool)
    before, base = logits_of_steps(runner, "first"), logits_of_steps(runner)
    assert pool.plain("first") is not None
    pool.add("second", tmp_path / "down_proj")
    second = logits_of_steps(runner, "second")
    assert pool.plain("second") is not None
    assert torch.equal(logits_of_steps(runner, "first"), before) and torch.equal(logits_of_steps(runner), base)
    pool.hows = None
    torch.testing.assert_close(logits_of_steps(runner, "second"), second, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(second, base, atol=0.01) and not torch.allclose(before, base, atol=0.01)


def write_adapter(base: PreTrainedModel, folder: Path, target: str, *, seed: int) -> None:
    """A LoRA of random weights on one kind of layer."""
    torch.manual_seed(seed)
    with torch.inference_mode(False), torch.no_grad(), known_warnings():
        tuned = get_peft_model(copy.deepcopy(base), LoraConfig(r=4, target_modules=[target]))
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn_like(parameter) * 0.3
    tuned.save_pretrained(str(folder))


@torch.inference_mode()
def test_a_family_that_is_not_known_keeps_its_own_forward() -> None:
    pool = AdaptedModel(tiny_model("gemma2"))
    slot_runner(pool)
    assert pool.plain(None) is None


@pytest.mark.parametrize("form", ["fp32", "bf16", "8 bit", "4 bit"])
@torch.inference_mode()
def test_rows_are_alone_means_that_steps_of_several_tokens_are_those_of_one(form: str) -> None:
    model = lively(tiny_model("qwen3"))
    if form in ("fp32", "bf16"):
        pack(model.to(torch.float32 if form == "fp32" else torch.bfloat16))
    else:
        quantize(model, int(form[0]))
    pool = AdaptedModel(model)
    runner = slot_runner(pool)
    plain = pool.plain(None)
    assert plain is not None
    if not plain.rows_are_alone:
        pytest.skip("the kernels of this machine add up in another order for another number of rows")
    text = TEXTS[0]
    apart = sequence_of(text)
    runner.admit(apart)
    runner.extend([apart], [len(text) - 1])
    following = [*text[-1:], *range(5, 4 + ROWS)]
    single = torch.cat([runner.extend_by(apart, [token]) for token in following])
    for count in range(2, ROWS + 1):
        runner.cut(apart)
        assert runner.computed(apart) == len(text) - 1
        assert torch.equal(runner.extend_by(apart, following[:count]), single[:count])
