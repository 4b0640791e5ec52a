"""Adapters of multimodal models made with transformers 4, whose modules had other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fixtures.tiny_multimodal import write_tiny
from transformers import AutoModelForImageTextToText

from swift import tuners
from swift.core.errors import SwiftError

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
OLD = {
    "llava": (
        ("model.language_model.", "language_model.model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ),
    "qwen2_vl": (("model.language_model.", "model."), ("model.visual.", "visual.")),
}
"""Names of today, and of then."""
LAYERS = {
    "llava": r"(language_model|multi_modal_projector)(?!.*lm_head).*",
    "qwen2_vl": r"(model|visual)\..*(q_proj|up_proj|fc1|mlp\.0)",
}
"""How adapters of then named what they are on."""


@pytest.mark.parametrize("kind", OLD)
def test_an_older_adapter_is_put_where_it_belongs(kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    model = write_tiny(kind, tmp_path / "model", smollm2_tokenizer_dir)

    def base() -> Any:
        return AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()

    on = r".*(q_proj|up_proj|linear_1|visual.*fc1|visual.*mlp\.0)"
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=on, alpha_pattern={r"layers\.0\..*up_proj": 20})
    tuned: Any = peft.get_peft_model(base(), config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    tuned.save_pretrained(str(tmp_path / "adapter"))
    fields = tmp_path / "adapter" / "adapter_config.json"
    fields.write_text(json.dumps({**json.loads(fields.read_text()), "target_modules": LAYERS[kind]}))
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    today = load_file(file)
    save_file({_then(kind, name): tensor for name, tensor in today.items()}, file, {"format": "pt"})
    merged, expected = tuners.merge(tuners.load(base(), tmp_path / "adapter")), tuned.merge_and_unload()
    assert len(today) > 8
    for (name, one), (_, other) in zip(merged.state_dict().items(), expected.state_dict().items(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name
    save_file({name.replace("layers.0", "layers.7"): t for name, t in today.items()}, file, {"format": "pt"})
    with pytest.raises(SwiftError, match="does not fit the base model"):
        tuners.load(base(), tmp_path / "adapter")


def _then(kind: str, name: str) -> str:
    path = name.removeprefix("base_model.model.")
    for today, then in OLD[kind]:
        if path.startswith(today):
            return f"base_model.model.{then}{path.removeprefix(today)}"
    return name
