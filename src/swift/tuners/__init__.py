"""Makes a model trainable the planned way, and saves, loads and merges what was trained."""

from swift.tuners.adapter_loading import load
from swift.tuners.adapter_merging import merge
from swift.tuners.adapter_saving import save
from swift.tuners.attach import attach, base_model, on_step, regularizer, without_adapter
from swift.tuners.layers import decoder_layers
from swift.tuners.loraplus import loraplus_groups
from swift.tuners.unsloth_lora import go_on_with_unsloth

__all__ = [
    "attach",
    "base_model",
    "decoder_layers",
    "go_on_with_unsloth",
    "load",
    "loraplus_groups",
    "merge",
    "on_step",
    "regularizer",
    "save",
    "without_adapter",
]
