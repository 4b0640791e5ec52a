"""`--torch_compile`: norms and feed-forward blocks of the decoder layers as compiled code.

What lies around attention is a chain of small operations, each of which reads and writes the activations once more;
compiled, a chain is one pass. Attention is a kernel of its own already, and knows the lengths of its sequences, for
each set of which there would be another graph; so it stays as it is.
"""

from __future__ import annotations

import inspect

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.tuners import decoder_layers


def compile_layers(model: PreTrainedModel) -> None:
    """Compile the parts of each layer that are given hidden states and nothing else, when they are first used.

    Sizes are symbols, so that there is one graph for batches of any length. Raises SwiftError without a compiler.
    """
    _try(model.device)
    parts = [part for layer in decoder_layers(model) for part in layer.children() if _sees_one_tensor(part)]
    for part in parts:
        part.compile(dynamic=True)
    log.info("%d parts of layers are compiled in the first step, which takes a minute or more", len(parts))


def _sees_one_tensor(part: nn.Module) -> bool:
    return len(inspect.signature(part.forward).parameters) == 1 and any(True for _ in part.parameters())


def _try(device: torch.device) -> None:
    """Raise SwiftError where nothing can be compiled."""

    def chain(values: torch.Tensor) -> torch.Tensor:
        return values.sin() + 1

    try:
        torch.compile(chain)(torch.ones(8, device=device))
    except TorchDynamoException as error:
        raise SwiftError(
            "--torch_compile true finds no compiler that works",
            where="--torch_compile",
            why=str(error).partition("\n")[0],
            next="install a C++ compiler (g++ or clang), for a GPU Triton, or leave --torch_compile out",
        ) from error
