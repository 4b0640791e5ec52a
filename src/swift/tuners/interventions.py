"""ReFT (Wu et al., arXiv 2404.03592): low-rank changes of the hidden states between the layers, at all positions.

The six kinds are those of pyreft, which names them; R (rank, width) has orthonormal rows, h is a hidden state:

    Loreft    h + Rᵀ (act(W h + b) - R h)         equation 2
    Noreft    h + Pᵀ (act(W h + b) - P h - c)     P free, c with add_bias
    Consreft  h + Rᵀ (b - R h)
    Lobireft  h + Rᵀ b
    Direft    h + Rᵀ act(W h + b)                 equation 3
    Nodireft  h + Pᵀ act(W h + b)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from swift.core.errors import SwiftError
from swift.tuners.added import Added
from swift.tuners.layers import decoder_layers, layer_list

ARGS = ("act_fn", "add_bias", "dropout")
"""What `--reft_args` may set."""


class _Rotation(nn.Module):
    """R as the orthonormal factor of a free matrix (width, rank).

    pyreft's, torch's Householder parametrization, has signs on its diagonal that weight decay turns into zeros: after
    the first step such an intervention does nothing. Decay of this one changes nothing.
    """

    def __init__(self, width: int, rank: int):
        super().__init__()
        self.original = nn.Parameter(torch.empty(width, rank))
        nn.init.orthogonal_(self.original)

    def matrix(self) -> Tensor:
        """(rank, width), in the dtype of the free matrix."""
        return orthonormal(self.original.float()).T.to(self.original.dtype)


def orthonormal(free: Tensor) -> Tensor:
    """The orthonormal columns (width, rank) that a free matrix of that shape stands for, itself if it has such."""
    columns, triangle = torch.linalg.qr(free)
    return columns * triangle.diagonal().sign()


class Intervention(Added):
    """One of the six, said by what it learns and by what it takes away."""

    child = "reft_default"

    def __init__(self, width: int, settings: Mapping[str, Any]):
        super().__init__(settings)
        kind, rank, args = settings["intervention_type"].lower(), settings["r"], settings["args"]
        self.projects = kind.startswith(("noreft", "nodireft"))
        self.replaces = kind.startswith(("loreft", "noreft", "consreft"))
        self.constant = kind.startswith(("consreft", "lobireft"))
        if self.projects:
            self.proj_layer = nn.Linear(width, rank, bias=bool(args.get("add_bias", False)))
        else:
            self.rotate_layer = _Rotation(width, rank)
        self.learned_source: Any = nn.Parameter(torch.rand(rank)) if self.constant else nn.Linear(width, rank)
        self.act = ACT2FN[args.get("act_fn") or "linear"]
        self.dropout = nn.Dropout(float(args.get("dropout", 0.0)))

    def forward(self, output: Tensor) -> Tensor:
        """See Added."""
        weight, bias = self._inward()
        hidden = output.to(weight.dtype)
        change = self.learned_source if self.constant else self._learned(output).to(weight.dtype)
        if self.replaces:
            change = change - nn.functional.linear(hidden, weight, bias)
        return self.dropout(hidden + change @ weight).to(output.dtype)

    def go_on(self) -> str | None:
        """See Added. A rotation of zeros, which pyreft's decay leaves, changes nothing and has no gradient."""
        if self.projects or self.rotate_layer.original.any():
            return None
        nn.init.orthogonal_(self.rotate_layer.original)
        return "its rotation is zero, as weight decay leaves it in 2.5, and starts anew"

    def _learned(self, output: Tensor) -> Tensor:
        """In the dtype of its weights, which are bf16 in checkpoints of 2.5 whatever the rest is."""
        return self.act(self.learned_source(output.to(self.learned_source.weight.dtype)))

    def _inward(self) -> tuple[Tensor, Tensor | None]:
        """R or P, (rank, width), and c."""
        if self.projects:
            return self.proj_layer.weight, self.proj_layer.bias
        return self.rotate_layer.matrix(), None


def make(width: int, settings: Mapping[str, Any]) -> Intervention:
    """An intervention on hidden states of `width`. Raises SwiftError for settings that it does not have."""
    args = settings["args"]
    unknown = [name for name in args if name not in ARGS]
    if unknown:
        raise SwiftError(
            f"--reft_args does not take {unknown[0]}", where="--reft_args", next=f"it takes {', '.join(ARGS)}"
        )
    if args.get("act_fn") and args["act_fn"] not in ACT2FN:
        raise SwiftError(
            f"--reft_args: act_fn {args['act_fn']!r} is not an activation",
            where="--reft_args",
            next=f"one of {', '.join(sorted(ACT2FN))}",
        )
    if settings["r"] > width:
        raise SwiftError(
            f"--reft_rank {settings['r']} is above the width {width} of the hidden states", where="--reft_rank"
        )
    return Intervention(width, settings)


def places(model: PreTrainedModel, settings: Mapping[str, Any]) -> list[str]:
    """The layers that the settings name, or all."""
    start, number = layer_list(model, settings["layer_key"]), len(decoder_layers(model, settings["layer_key"]))
    wanted = settings["layers"] or range(number)
    outside = [layer for layer in wanted if not 0 <= layer < number]
    if outside:
        raise SwiftError(
            f"--reft_layers names layer {outside[0]} of a model with layers 0 to {number - 1}", where="--reft_layers"
        )
    return [f"{start}.{layer}" for layer in sorted(set(wanted))]
