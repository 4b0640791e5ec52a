"""bitsandbytes' 8 bit layer in the mode it trains in, for good: only the weights are quantized."""

from __future__ import annotations

from typing import Any

from bitsandbytes.nn.modules import Linear8bitLt


class WeightOnly8bit(Linear8bitLt):
    """A layer with the weights of another. In training mode whatever the model around it is in."""

    def __init__(self, layer: Any):
        bias = layer.bias is not None
        super().__init__(layer.in_features, layer.out_features, bias, has_fp16_weights=False, device="meta")
        self.weight, self.bias, self.state = layer.weight, layer.bias, layer.state
        self.init_8bit_state()  # the first forward would do it, and PEFT's DoRA reads the scales before

    def train(self, mode: bool = True) -> WeightOnly8bit:
        """Stay in training mode: evaluation would quantize activations too."""
        super().train(True)
        return self

    def init_8bit_state(self) -> None:
        """Keep the scales: PEFT's DoRA gives the weights back without theirs."""
        weight: Any = self.weight
        if weight.SCB is not None:
            super().init_8bit_state()
