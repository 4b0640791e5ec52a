"""Images and videos for LMDeploy: what its own classes make of them, and that it answers as the model itself does.

Its operators for CUDA are the one part that does not run here: see `lmdeploy_on_cpu`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.engines.shown_media import OF_THE_HUB, media_side, prompt, write_pictures
from tests.fixtures.tiny_multimodal import write_tiny
from transformers import AutoModelForImageTextToText, AutoTokenizer

from engines.lmdeploy_environment import ITS_WARNINGS, needs_lmdeploy
from swift.core.errors import NotBuilt, SwiftError
from swift.engines.base import Engine, Request, SamplingParams
from swift.engines.given_media import require_same_places, require_taken
from swift.engines.lmdeploy import LmdeployEngine, LmdeploySettings
from swift.engines.lmdeploy_media import REASONS, TAKEN, items_of, require_decoder
from swift.prompts.types import Media

pytestmark = ITS_WARNINGS
DECODERS = {"llava": "LlamaForCausalLM", "llava_next": "LlamaForCausalLM", "internvl": "Qwen2ForCausalLM"}
LLAVA = (
    *OF_THE_HUB,
    ("^model.language_model", "language_model.model"),
    ("^lm_head", "language_model.lm_head"),
    ("^model.(?=multi|image_newline)", ""),
)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    return write_pictures(tmp_path)


def as_of_the_hub(kind: str, folder: Path, change: Callable[[dict[str, Any]], None] = lambda config: None) -> Path:
    """Names of weights and of the decoder's class as models on the hub have them."""
    config = json.loads((folder / "config.json").read_text())
    if kind in DECODERS:
        config["text_config"]["architectures"] = [DECODERS[kind]]
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    if kind in ("llava", "llava_next", "gemma3"):
        weights = load_file(folder / "model.safetensors")
        for old, new in LLAVA:
            weights = {re.sub(old, new, name): value for name, value in weights.items()}
        if config.get("tie_word_embeddings"):
            weights = {name: value for name, value in weights.items() if "lm_head" not in name}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def shown(kind: str, pictures: list[str]) -> list[Media]:
    media = [Media(), *(Media(images=each) for each in ((pictures[0],), (pictures[2],), (pictures[2], pictures[1])))]
    if "videos" in TAKEN.get({"qwen3_vl": "Qwen3VL"}.get(kind, ""), ()):
        frames = (pictures[2], pictures[0], pictures[1], pictures[2])
        media.append(Media(images=(pictures[1],), videos=(frames,), order=("videos", "images")))
    return media


def of_the_model(folder: Path, images: Any, ids: tuple[int, ...], media: Media) -> torch.Tensor:
    """Log-probabilities that the model itself gives."""
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    row = torch.tensor([ids])
    inputs = images.inputs([media], row) if media.any else {}
    places = images.family.positions(model, row, inputs, torch.ones_like(row))
    with torch.inference_mode():
        told = model(input_ids=row, **inputs, **({} if places is None else {"position_ids": places}))
    return told.logits[0].log_softmax(-1)


@needs_lmdeploy
@pytest.mark.parametrize("kind", ["llava", "llava_next", "internvl", "qwen2_5_vl", "qwen3_vl"])
def test_answers_about_media_are_those_of_the_model(
    kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.engines.lmdeploy_on_cpu import put_on_cpu

    from swift.engines.torch import TorchEngine

    folder = as_of_the_hub(kind, write_tiny(kind, tmp_path / kind, smollm2_tokenizer_dir))
    # Larger than the processor's own bounds, as a checkpoint of --model_kwargs has them: several windows of a tower.
    images = media_side(folder, {"max_pixels": 336 * 336} if kind.startswith("qwen") else None)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    media = shown(kind, pictures)

    async def about(engine: Engine) -> list[Any]:
        told = []
        for number, each in enumerate(media):
            ids = prompt(images, tokenizer, each)
            sampling = SamplingParams(max_tokens=6, ignore_eos=True, logprobs=1)
            request = Request(id=str(number), prompt_ids=ids, sampling=sampling, media=each)
            deltas = [delta async for delta in engine.stream(request)]
            told.append([(one.token_id, one.logprob) for delta in deltas for one in delta.logprobs])
        await engine.close()
        return told

    async def both() -> tuple[list[Any], list[Any]]:
        def load() -> Any:
            return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)

        ours = await about(TorchEngine(load, tokenizer, images=images))
        put_on_cpu(monkeypatch)
        return await about(await LmdeployEngine.start(folder, tokenizer, LmdeploySettings(), images=images)), ours

    theirs, ours = asyncio.run(both())
    assert len({str(each) for each in ours}) == len(media)
    for one, other in zip(theirs, ours, strict=True):
        assert [token for token, _ in one] == [token for token, _ in other]
        assert [likely for _, likely in one] == pytest.approx([likely for _, likely in other], abs=1e-5)


@needs_lmdeploy
def test_its_input_processor_is_given_the_pixels_of_training(
    tmp_path: Path, smollm2_tokenizer_dir: Path, pictures: list[str]
) -> None:
    from lmdeploy.pytorch.models.llava import LLavaInputProcessor  # pyright: ignore

    folder = write_tiny("llava", tmp_path / "tiny", smollm2_tokenizer_dir)
    images = media_side(folder)
    media = Media(images=(pictures[2], pictures[0]))
    ids = prompt(images, AutoTokenizer.from_pretrained(folder), media)
    made = LLavaInputProcessor(None, torch.float32).preprocess_input(list(ids), items_of(images, ids, media))
    assert made.input_ids == list(ids)
    given = made.input_multimodals["image"]
    whole = images.inputs([media], torch.tensor([ids]))
    assert torch.equal(torch.cat([each.data for each in given]), whole["pixel_values"])
    places = [place for each in given for place in range(each.start, each.end)]
    assert [number for number, token in enumerate(ids) if token == images.family.token] == places


@needs_lmdeploy
@pytest.mark.parametrize("kind", ["qwen2_vl", "gemma3"])
def test_families_that_are_not_given_would_be_answered_otherwise(
    kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once this fails for one, LMDeploy has mended it."""
    from tests.engines.lmdeploy_on_cpu import load, logits, put_on_cpu

    def as_the_hub_has_it(config: dict[str, Any]) -> None:
        if kind == "gemma3":
            config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
            config["text_config"]["rope_parameters"]["full_attention"] |= {"rope_type": "linear", "factor": 8.0}

    folder = as_of_the_hub(kind, write_tiny(kind, tmp_path / kind, smollm2_tokenizer_dir), as_the_hub_has_it)
    images = media_side(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    put_on_cpu(monkeypatch)
    model = load(str(folder))
    apart = []
    for media in (Media(), Media(images=(pictures[0],))):
        ids = prompt(images, tokenizer, media)
        theirs = logits(model, ids, items_of(images, ids, media)).log_softmax(-1)
        apart.append(float((theirs - of_the_model(folder, images, ids, media)).abs().max()))
    assert apart[0] < 1e-5
    assert apart[1] > 5e-5
    if kind == "gemma3":
        assert not torch.equal(theirs, logits(model, ids, items_of(images, ids, media)).log_softmax(-1))


def test_what_lmdeploy_is_not_given_is_refused(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    llava = media_side(write_tiny("llava", tmp_path / "llava", smollm2_tokenizer_dir))
    qwen = media_side(write_tiny("qwen2_vl", tmp_path / "qwen", smollm2_tokenizer_dir))
    two = Media(images=("a.png", "b.png"))
    assert require_taken("LMDeploy", TAKEN, REASONS, llava, two, {}) is llava
    with pytest.raises(SwiftError, match="2 images, and --limit_mm_per_prompt allows 1"):
        require_taken("LMDeploy", TAKEN, REASONS, llava, two, {"image": 1})
    with pytest.raises(NotBuilt, match="LMDeploy is not given images of Qwen2VL") as caught:
        require_taken("LMDeploy", TAKEN, REASONS, qwen, two, {})
    assert "QuickGELU" in str(caught.value.why)


def test_a_configuration_without_what_lmdeploy_goes_by_is_refused(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    folder = write_tiny("llava", tmp_path / "llava", smollm2_tokenizer_dir)
    images, config = media_side(folder), json.loads((folder / "config.json").read_text())
    require_same_places("LMDeploy", images, config)
    with pytest.raises(SwiftError, match="does not name the class of its decoder"):
        require_decoder(images, config)
    config["text_config"]["architectures"] = ["LlamaForCausalLM"]
    require_decoder(images, config)
    require_decoder(None, config)
