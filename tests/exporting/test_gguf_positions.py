"""Positions that were stretched: llama.cpp computes them as transformers does, in short texts and in long ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.exporting.gguf_models import LINEAR, LLAMA3, LONGROPE, MODELS, SMALL, YARN, small_model
from tests.exporting.gguf_tokenizers import small_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, PreTrainedTokenizerFast

from swift.engines.llama_server import LlamaServer
from swift.engines.llamacpp import room
from swift.models.gguf.file import write_gguf

pytest.importorskip("xllamacpp")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "settings", "context"),
    [
        ("llama, tied", {"rope_parameters": LINEAR}, 1024),
        ("llama, tied", {"rope_parameters": LLAMA3}, 1024),
        ("llama, biases", {"rope_parameters": {**YARN, "original_max_position_embeddings": 64}}, 1024),
        ("mistral", {"rope_parameters": {**YARN, "original_max_position_embeddings": 64}}, 1024),
        ("qwen2", {"rope_parameters": {**YARN, "original_max_position_embeddings": 64}}, 1024),
        ("qwen3", {"rope_parameters": {**LINEAR, "rope_theta": 1e6}}, 1024),
        ("gemma2", {"rope_parameters": YARN}, 1024),
        ("gemma3", {}, 1024),
        ("phi3, long", {}, 511),
        ("phi3, long", {"rope_parameters": {**LONGROPE, "attention_factor": 1.3}}, 511),
        ("phi3, long", {}, 1024),
    ],
)
def test_positions_within_and_beyond_the_original_context(
    tmp_path: Path, model: str, settings: dict[str, Any], context: int
) -> None:
    """LongRoPE goes by the size of the context in llama.cpp: up to the original one it is that of short texts."""
    folder, file = small_tokenizer("smollm", tmp_path / "model"), tmp_path / "model.gguf"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    small_model(model, folder, len(tokenizer), **settings)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    write_gguf(folder, reference.config, tokenizer, file, type="f32", name="small", ends=[2])
    whole = tokenizer.encode("a")[-1]
    server = LlamaServer(file, context=context, places=1)
    for length in (20, 90, 300, 500, 700, 1000):
        short = "long" in model and length <= LONGROPE["original_max_position_embeddings"]
        if length >= context or (short and context > LONGROPE["original_max_position_embeddings"]):
            continue
        ids = torch.randint(4, len(tokenizer), (length,), generator=torch.manual_seed(length)).tolist()
        asked = {"n_predict": 1, "n_probs": len(tokenizer), "temperature": 0, "logit_bias": [[whole, 1e9]]}
        (told,) = server.post("/completion", {"prompt": ids, **asked})["completion_probabilities"]
        with torch.no_grad():
            expected = reference(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        for each in told["top_logprobs"][:50]:
            assert each["logprob"] == pytest.approx(expected[each["id"]].item(), abs=1e-2), (length, each)
    server.end()


def test_longrope_is_run_where_its_short_factors_are_taken(caplog: pytest.LogCaptureFixture) -> None:
    """In a context that is longer than the original one llama.cpp takes the long factors for short texts too."""
    fields = Phi3Config(**{**SMALL, **MODELS["phi3, long"][1]}).to_dict()
    assert room(fields, given=None, most=1)[0] == 511  # the engine has one more
    assert room(fields, given=511, most=1)[0] == 511 and "PyTorch" not in caplog.text
    assert room(fields, given=600, most=1)[0] == 600
    assert "otherwise than PyTorch does" in caplog.text
    plain: dict[str, Any] = dict(SMALL)
    assert room(LlamaConfig(**plain).to_dict(), given=None, most=1)[0] == 1024
