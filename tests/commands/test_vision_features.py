"""Kept features of a frozen tower: the losses of a run without them, and a tower that has nothing to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands.test_multimodal import write_rows
from tests.fixtures.tiny_multimodal import write_tiny
from torch import Tensor, nn

from swift.cli import main
from swift.models.families import family_of
from swift.training.vision_features import PatchTowerCache, TowerCache

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
KINDS = (
    "llava",
    "llava_next",
    "llava_onevision",
    "internvl",
    "paligemma",
    "gemma3",
    "deepseek_vl",
    "janus",
    "got_ocr2",
)
PATCHED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v")


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k == "llava" else pytest.mark.slow) for k in KINDS])
def test_a_tower_computes_each_tile_once_and_the_projector_reads_the_same(
    kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path
) -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder = write_tiny(kind, tmp_path / "tiny", smollm2_tokenizer_dir)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    family = family_of(AutoConfig.from_pretrained(folder))
    tower = model.get_submodule(family.parts.tower[0])
    (projector, *_) = (model.get_submodule(path) for path in family.parts.projector if "newline" not in path)
    read: list[Tensor] = []
    projector.register_forward_pre_hook(lambda _, args: read.append(args[0].detach().clone()))
    torch.manual_seed(0)
    side = 112 if kind == "got_ocr2" else 28
    tiles = torch.randn(5, 3, side, side)
    given: dict[str, Any] = {}
    if kind in ("llava_next", "llava_onevision"):
        tiles, given = torch.randn(2, 3, 3, 28, 28), {"image_sizes": torch.tensor([[28, 56], [28, 56]])}
    if kind == "llava_onevision":
        given["batch_num_images"] = torch.tensor([1, 1])
    features = lambda pixels: model.model.get_image_features(pixels, **given)  # noqa: E731
    with torch.no_grad():
        features(tiles)
        TowerCache(tower, family.layers_read(model.config), tmp_path / "features")
        computed: list[int] = []
        first = next(module for module in tower.modules() if isinstance(module, nn.Conv2d))
        first.register_forward_hook(lambda _, args, __: computed.append(len(args[0])))
        features(tiles)
        features(tiles)
        if kind == "llava":
            features(torch.cat([tiles[3:], torch.ones(1, 3, 28, 28), tiles[:1]]))
    assert computed == ([5, 1] if kind == "llava" else [6] if given else [5])
    assert torch.equal(read[0], read[1]) and torch.equal(read[0], read[2])
    if kind == "llava":
        assert torch.equal(read[3][0], read[0][3]) and torch.equal(read[3][3], read[0][0])


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k == "qwen3_vl" else pytest.mark.slow) for k in PATCHED])
def test_a_tower_of_patches_computes_each_image_once_and_what_is_behind_it_is_trained(
    kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path
) -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder = write_tiny(kind, tmp_path / "tiny", smollm2_tokenizer_dir)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    family = family_of(config)
    for name, weight in model.named_parameters():
        weight.requires_grad_(family.parts.part_of(name) != "tower")
    tower = model.model.visual
    torch.manual_seed(0)
    vision = config.vision_config
    grids = torch.tensor([[1, 2, 4], [1, 4, 4], [1, 4, 2]])
    pixels = torch.randn(32, 3 * vision.temporal_patch_size * vision.patch_size**2)

    def features(which: list[int]) -> tuple[Tensor, Tensor]:
        """What the decoder is given of some of the images, and a gradient of the projector."""
        model.zero_grad()
        own = torch.cat([pixels.split([8, 16, 8])[number] for number in which])
        output = tower(own, grid_thw=grids[which], return_dict=True)
        parts = [output.pooler_output, *(output.deepstack_features if kind == "qwen3_vl" else ())]
        torch.cat([part.flatten() for part in parts]).square().sum().backward()
        weights = [weight.grad for weight in tower.parameters() if weight.grad is not None]
        return torch.cat([part.detach().flatten() for part in parts]), torch.cat([grad.flatten() for grad in weights])

    batches = [[0, 1], [0, 1, 2], [2, 1], [0, 1, 2]]
    expected = [features(batch) for batch in batches]
    inside = [path.removeprefix("model.visual.") for path in family.parts.projector]
    PatchTowerCache(tower, family.blocks_read(config), tmp_path / "features", inside)
    computed: list[int] = []
    tower.blocks[0].norm1.register_forward_hook(lambda _, args, __: computed.append(len(args[0])))
    for batch, (values, gradients) in zip(batches, expected, strict=True):
        found, grown = features(batch)
        torch.testing.assert_close(found, values, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(grown, gradients, rtol=1e-4, atol=1e-4)
    assert computed == [24, 8]


RUNS = ("llava", "idefics3", "smolvlm", "qwen2_5_vl", "qwen3_vl")


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_losses_are_those_of_a_run_without_it(
    kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_tiny(kind, tmp_path / "tiny", smollm2_tokenizer_dir), write_rows(tmp_path)
    words = ["sft", "--model_id_or_path", str(model), "--template_type", "qwen2-vl", "--dataset", str(rows)]
    words += ["--dataset_test_ratio", "0", "--batch_size", "2", "--gradient_accumulation_steps", "1"]
    words += ["--num_train_epochs", "2", "--logging_steps", "1", "--warmup_ratio", "0", "--learning_rate", "0.003"]
    words += ["--add_output_dir_suffix", "false", "--save_only_model", "true", "--cache_dir", str(tmp_path / "tokens")]
    losses = []
    for number, more in enumerate(([], ["--cache_vision_features", "false"], ["--cache_vision_features"])):
        output = tmp_path / str(number)
        assert main([*words, "--output_dir", str(output), *more]) == 0
        assert ("features of the frozen tower are kept" in capsys.readouterr().err) == (number != 1)
        lines = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4) and losses[2] == pytest.approx(losses[1], abs=1e-4)
    assert len(losses[0]) == 4
    trained = ["--sft_type", "full", "--cache_vision_features", "true", "--output_dir", str(tmp_path / "full")]
    assert main([*words, *trained]) == 2
    assert "needs a frozen tower" in capsys.readouterr().err
