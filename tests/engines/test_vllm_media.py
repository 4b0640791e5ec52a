"""Images and videos for vLLM: what it is given, and that it answers about them as the model itself does."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.engines.shown_media import OF_THE_HUB, media_side, prompt, write_pictures
from tests.fixtures.tiny_multimodal import write_tiny
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from swift.core.errors import NotBuilt, SwiftError
from swift.engines.base import Engine, Request, SamplingParams
from swift.engines.given_media import limits_of, require_same_places, require_taken
from swift.engines.vllm_media import REASONS, TAKEN, require_adapted
from swift.prompts.types import Media

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM has an environment of its own: make test-vllm"
)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    return write_pictures(tmp_path)


def test_each_medium_by_itself_is_what_all_are_together(
    tmp_path: Path, smollm2_tokenizer_dir: Path, pictures: list[str]
) -> None:
    model = write_tiny("qwen2_vl", tmp_path / "tiny", smollm2_tokenizer_dir)
    images = media_side(model)
    frames = (pictures[1],) * 4
    media = Media(images=(pictures[2], pictures[0]), videos=(frames,), order=("images", "images", "videos"))
    ids = prompt(images, AutoTokenizer.from_pretrained(model), media)
    apart = images.apart(ids, media)
    whole = images.inputs([media], torch.tensor([ids]))
    assert [one.kind for one in apart] == ["images", "images", "videos"]
    for name in ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"):
        own = torch.cat([one.inputs[name] for one in apart if name in one.inputs])
        assert torch.equal(own, whole[name]), name
    places = [place for one in apart for place in one.places]
    assert [ids[place] for place in places] == [each for each in ids if each in images.tokens.values()]
    assert len({one.digest for one in apart}) == 3
    assert images.apart(ids, media)[0].digest == apart[0].digest


def test_what_vllm_is_not_given_is_refused(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    qwen = media_side(write_tiny("qwen2_vl", tmp_path / "qwen", smollm2_tokenizer_dir))
    gemma = media_side(write_tiny("gemma3", tmp_path / "gemma", smollm2_tokenizer_dir))
    two = Media(images=("a.png", "b.png"))
    assert require_taken("vLLM", TAKEN, REASONS, qwen, two, {"image": 2, "video": 0}) is qwen
    with pytest.raises(SwiftError, match="2 images, and --limit_mm_per_prompt allows 1"):
        require_taken("vLLM", TAKEN, REASONS, qwen, two, {"image": 1})
    with pytest.raises(SwiftError, match="1 videos, and --limit_mm_per_prompt allows 0"):
        require_taken("vLLM", TAKEN, REASONS, qwen, Media(videos=("a.mp4",)), {"video": 0})
    with pytest.raises(NotBuilt, match="not given images of Gemma3") as caught:
        require_taken("vLLM", TAKEN, REASONS, gemma, two, {})
    assert "see each other" in str(caught.value.why)
    with pytest.raises(SwiftError, match="counts by kind of media"):
        limits_of({"images": 2})
    with pytest.raises(NotBuilt, match="not given audios of a model of text"):
        require_taken("vLLM", TAKEN, REASONS, None, Media(audios=("a.wav",)), {})


def test_places_that_vllm_would_lay_out_otherwise_are_refused(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    model = write_tiny("qwen3_vl", tmp_path / "qwen3", smollm2_tokenizer_dir)
    images, config = media_side(model), AutoConfig.from_pretrained(model).to_dict()
    require_same_places("vLLM", images, config)
    del config["text_config"]["rope_parameters"]["mrope_interleaved"]
    require_same_places("vLLM", None, config)
    with pytest.raises(SwiftError, match="does not say mrope_interleaved"):
        require_same_places("vLLM", images, config)


def test_adapters_on_parts_that_vllm_would_leave_out_are_refused(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    llava = media_side(write_tiny("llava", tmp_path / "llava", smollm2_tokenizer_dir))
    qwen = media_side(write_tiny("qwen2_vl", tmp_path / "qwen", smollm2_tokenizer_dir))
    (tmp_path / "adapter").mkdir()

    def adapter(*modules: str) -> Path:
        tensors = {f"base_model.model.model.{module}.lora_A.weight": torch.ones(1) for module in modules}
        save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors")
        return tmp_path / "adapter"

    decoder = "language_model.layers.0.mlp.up_proj"
    require_adapted(llava, adapter(decoder))
    require_adapted(qwen, adapter(decoder, "visual.merger.mlp.0", "visual.blocks.0.attn.qkv"))
    with pytest.raises(SwiftError, match="in the projector of the model"):
        require_adapted(llava, adapter(decoder, "multi_modal_projector.linear_1"))
    with pytest.raises(SwiftError, match="in the tower of the model"):
        require_adapted(llava, adapter(decoder, "vision_tower.encoder.layers.0.mlp.fc1"))


def heads_for_vllm(text: dict[str, Any]) -> None:
    """Its attention on a CPU wants heads of 32 numbers."""
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    if "head_dim" in text:
        text["head_dim"] = 32
    if "rope_parameters" in text:
        text["rope_parameters"] = {**text["rope_parameters"], "mrope_section": [4, 6, 6]}


ADAPTED = {"qwen2_vl": r".*(merger\.mlp\.0|blocks\.\d\.mlp\.fc1|layers\.\d\.mlp\.up_proj)"}
ADAPTED["qwen3_vl"] = r".*(merger.*\.linear_fc1|blocks\.\d\.mlp\.linear_fc1|layers\.\d\.mlp\.up_proj)"
ADAPTED |= dict.fromkeys(("idefics3", "smolvlm"), r".*text_model\.layers\.\d\.mlp\.up_proj")
OF_DECODERS = r".*language_model\.layers\.\d\.mlp\.up_proj"
ADAPTED |= dict.fromkeys(("llava", "internvl", "pixtral"), OF_DECODERS)
"""What a LoRA is on: parts of all that vLLM puts it on."""


def write_adapter(kind: str, model: Path, folder: Path) -> Path:
    import peft

    torch.manual_seed(1)
    base = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    tuned = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, target_modules=ADAPTED[kind]))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    tuned.save_pretrained(str(folder))
    return folder


@needs_vllm
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("kind", ADAPTED)
def test_answers_about_media_are_those_of_the_model(
    kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path, pictures: list[str]
) -> None:
    """Among them pictures larger than the processor's own bounds, as a checkpoint of --model_kwargs has them."""
    from swift.engines.torch import TorchEngine
    from swift.engines.vllm import VllmEngine, VllmSettings

    folder = write_tiny(kind, tmp_path / kind, smollm2_tokenizer_dir, change=heads_for_vllm)
    if kind == "llava":
        weights = load_file(folder / "model.safetensors")
        for old, new in OF_THE_HUB:
            weights = {re.sub(old, new, name): value for name, value in weights.items()}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    images = media_side(folder, {"max_pixels": 224 * 224} if kind == "qwen2_vl" else None)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    shown = [(pictures[0],), (pictures[2],), (pictures[2], pictures[1]), (pictures[0],)]
    media = [Media(images=each) for each in shown]
    if kind.startswith("qwen"):
        media.append(Media(images=(pictures[1],), videos=((pictures[2],) * 4,), order=("videos", "images")))

    adapters = {"first": write_adapter(kind, folder, tmp_path / "adapter")}

    async def about(engine: Engine) -> list[Any]:
        told = []
        for number, (adapter, each) in enumerate(itertools.product((None, *adapters), media)):
            ids, sampling = prompt(images, tokenizer, each), SamplingParams(max_tokens=8, ignore_eos=True)
            request = Request(id=str(number), prompt_ids=ids, sampling=sampling, media=each, adapter=adapter)
            answer = [token async for delta in engine.stream(request) for token in delta.token_ids]
            (likely,) = await engine.log_probs(ids, [(5, 6, 7)], adapter, media=each)
            told.append((answer, [one.logprob for one in likely]))
        await engine.close()
        return told

    async def both() -> tuple[list[Any], list[Any]]:
        settings = VllmSettings(
            dtype="fp32",
            max_model_len=1024,
            max_num_seqs=4,
            enforce_eager=True,
            adapts_all=kind.startswith("qwen"),
            mm_processor_kwargs={"size": images.facts["size"]},
        )
        theirs = await about(await VllmEngine.start(folder, tokenizer, settings, adapters, images=images))

        def load() -> Any:
            return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)

        return theirs, await about(TorchEngine(load, tokenizer, adapters=adapters, images=images))

    theirs, ours = asyncio.run(both())
    assert len({str(likely) for _, likely in ours}) == 2 * (len(media) - 1)  # one picture is shown twice
    assert [answer for answer, _ in theirs] == [answer for answer, _ in ours]
    for (_, one), (_, other) in zip(theirs, ours, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
