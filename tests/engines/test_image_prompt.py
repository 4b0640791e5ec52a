"""Pictures in prompts of the engine: what is kept of one prompt serves another that shows the same, and no other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands.test_multimodal import noise
from tests.engines.test_vllm_media import media_side, prompt
from tests.fixtures.tiny_multimodal import write_tiny
from transformers import AutoModelForImageTextToText, AutoTokenizer

from swift.engines.base import Request, SamplingParams
from swift.engines.torch import TorchEngine
from swift.models.families import MediaProcessor
from swift.prompts.types import Media


async def likelihoods(engine: TorchEngine, images: MediaProcessor, tokenizer: Any, media: Media) -> list[float]:
    """Of the tokens of an answer."""
    sampling = SamplingParams(max_tokens=4, ignore_eos=True, logprobs=1)
    request = Request(id="x", prompt_ids=prompt(images, tokenizer, media), sampling=sampling, media=media)
    return [token.logprob async for delta in engine.stream(request) for token in delta.logprobs or []]


@pytest.mark.parametrize(
    "kind",
    ["llava_onevision", *(pytest.param(k, marks=pytest.mark.slow) for k in ("qwen2_5_vl", "qwen3_vl", "gemma3"))],
)
def test_a_picture_beside_others_is_not_taken_for_the_same_one_alone(
    kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path
) -> None:
    model = write_tiny(kind, tmp_path / "tiny", smollm2_tokenizer_dir)
    images, tokenizer = media_side(model), AutoTokenizer.from_pretrained(model)
    one, two = (str(noise(tmp_path / f"{size[0]}.png", *size)) for size in ((60, 100), (112, 56)))
    alone, both = Media(images=(one,)), Media(images=(one, two))

    def load() -> Any:
        return AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)

    async def asked(*shown: Media) -> list[list[float]]:
        engine = TorchEngine(load, tokenizer, images=images)
        answers = [await likelihoods(engine, images, tokenizer, media) for media in shown]
        await engine.close()
        return answers

    first, after, again = asyncio.run(asked(alone, both, alone))
    (fresh,) = asyncio.run(asked(both))
    assert len(fresh) == 4
    assert after == pytest.approx(fresh, abs=1e-5)
    assert again == pytest.approx(first, abs=1e-5)
