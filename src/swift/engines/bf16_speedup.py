"""How much faster one row is in bf16 than in fp32 on this CPU: tried with the layers that answers use."""

from __future__ import annotations

import time

from swift.core.quick_imports import quick_imports

WEIGHTS = 2**24
"""Numbers in the layers that are timed, 64 MiB of fp32: more than the caches of most CPUs keep of a model."""
TRIES = 4


def bf16_speedup(inputs: int, outputs: int) -> float:
    """Of linear layers with so many inputs and outputs; 0 for a CPU without instructions for bf16. Takes 0.1-0.3 s."""
    with quick_imports():
        import torch  # most plans fail or end without a measurement
        from torch import nn

        from swift.engines.packed_linear import PackedLinear, multiplies_bf16

    if not multiplies_bf16():
        return 0.0
    outputs = max(1, min(outputs, WEIGHTS // inputs))
    count = max(1, WEIGHTS // (inputs * outputs))

    def packed(dtype: torch.dtype) -> list[PackedLinear]:
        layer = nn.Linear(inputs, outputs, bias=False, device="meta")
        layer.weight = nn.Parameter(torch.ones(outputs, inputs, dtype=dtype), requires_grad=False)
        return [PackedLinear(layer) for _ in range(count)]

    def seconds(layers: list[PackedLinear], dtype: torch.dtype) -> float:
        row = torch.ones(1, inputs, dtype=dtype)
        start = time.perf_counter()
        for layer in layers:
            layer(row)
        return time.perf_counter() - start

    threads = torch.get_num_threads()
    # By one thread: a team of threads that was once used here would be in the way of the engine's, and on a busy
    # machine a team waits for its slowest, which is no news of the layers.
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            fp32, bf16 = packed(torch.float32), packed(torch.bfloat16)
            # Turn by turn, and the best of each: a neighbour's busy moment is nobody's.
            times = [(seconds(fp32, torch.float32), seconds(bf16, torch.bfloat16)) for _ in range(TRIES)]
    finally:
        torch.set_num_threads(threads)
    return min(slow for slow, _ in times) / min(fast for _, fast in times)
