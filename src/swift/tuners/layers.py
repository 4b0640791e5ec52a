"""Where the decoder layers of a language model are, and what stands in them."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError

ATTENTION = ("self_attn", "attention", "self_attention", "attn", "linear_attn", "mixer")
MLP = ("mlp", "feed_forward", "ffn", "feedforward", "block_sparse_moe", "moe")
"""Names that model families give the two halves of a layer."""
OUTPUTS = frozenset(
    {"o_proj", "down_proj", "c_proj", "out_proj", "dense", "dense_4h_to_h", "fc2", "wo", "w2", "fc_out"}
)
"""Names of the projections that write into the residual stream."""


def layer_list(model: PreTrainedModel, key: str | None = None) -> str:
    """Path of the `nn.ModuleList` with the decoder layers; `key` names it where the user did (`--reft_layer_key`).

    It is the outermost list below the decoder with as many members as the configuration has layers. Raises SwiftError
    when there is none.
    """
    lists = {path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    if key is not None:
        path = next((path for path in lists if path == key or path.endswith(f".{key}")), None)
        if path is None:
            raise SwiftError(
                f"{type(model).__name__} has no list of layers called {key}",
                where="--reft_layer_key",
                next=suggestion(key, lists) or f"it has {', '.join(lists)}",
            )
        return path
    number = model.config.get_text_config().num_hidden_layers
    decoder = {id(module) for module in model.get_decoder().modules()}
    fitting = [path for path, layers in lists.items() if len(layers) == number and id(layers) in decoder]
    if not fitting:
        raise SwiftError(
            f"the layers of {type(model).__name__} are not found",
            why=f"no list of modules in it has {number} members",
            next="leave out what goes by layers: --sft_type llamapro, adapter or reft, --lisa_activated_layers, "
            "--torch_compile",
        )
    return min(fitting, key=lambda path: path.count("."))


def decoder_layers(model: PreTrainedModel, key: str | None = None) -> nn.ModuleList:
    """The decoder layers, first to last."""
    layers = model.get_submodule(layer_list(model, key))
    assert isinstance(layers, nn.ModuleList)
    return layers


def parts(model: PreTrainedModel, names: tuple[str, ...]) -> list[str]:
    """Paths of the one part of each layer that is called by one of `names`. Raises SwiftError for a layer without."""
    start = layer_list(model)
    paths = []
    for number, layer in enumerate(decoder_layers(model)):
        name = next((name for name, _ in layer.named_children() if name in names), None)
        if name is None:
            raise SwiftError(
                f"layer {number} of {type(model).__name__} has no {' or '.join(names)}",
                where="--sft_type adapter",
                why=f"it consists of {', '.join(name for name, _ in layer.named_children())}",
                next="use --sft_type lora",
            )
        paths.append(f"{start}.{number}.{name}")
    return paths
