"""New layers in multimodal models: images come in at layers of certain numbers, which stay theirs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fixtures.tiny_multimodal import SPECIAL, tiny_config
from transformers import AutoModelForImageTextToText, PreTrainedModel

from swift.core.errors import SwiftError
from swift.tuners.llamapro import deepen, placed


def without_weights(kind: str, layers: int, reached: list[int]) -> PreTrainedModel:
    def change(text: dict[str, Any]) -> None:
        text["num_hidden_layers"] = layers

    config, _ = tiny_config(kind, 2000, [*SPECIAL.values()].index, change)
    if kind == "qwen3_vl":
        config.vision_config.deepstack_visual_indexes = reached
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def test_no_new_layer_stands_among_those_that_the_tower_reaches() -> None:
    with pytest.raises(SwiftError, match=r"first 2 layers, and a new one would be number 2") as told:
        deepen(without_weights("qwen3_vl", 4, [0, 1]), placed(4, 4, None))
    assert "--llamapro_num_groups" in str(told.value)
    deeper = without_weights("qwen3_vl", 4, [0, 1])
    deepen(deeper, placed(4, 2, None))
    assert deeper.config.get_text_config().num_hidden_layers == 6
    deepen(without_weights("qwen2_vl", 4, []), placed(4, 4, None))


def test_layers_that_look_at_images_are_told_by_their_numbers() -> None:
    with pytest.raises(SwiftError, match="cannot put layers into MllamaForConditionalGeneration") as told:
        deepen(without_weights("mllama", 4, []), placed(4, 2, None))
    assert "named by their numbers" in str(told.value)
