"""GPTQ and AWQ by gptqmodel, in a process of its own: the library writes logs where it stands, and draws.

Run as `python -m swift.exporting.gptqmodel_process REQUEST`, in a folder for what it leaves behind.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

PROGRESS = "progress.jsonl"


class _Progress:
    """Writes a line for each layer that is done."""

    def layer_complete(self, *, layer_idx: int, submodule_finalized: bool) -> None:
        if submodule_finalized:
            with Path(PROGRESS).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"layer": layer_idx}) + "\n")


def quantize(request: dict[str, Any]) -> None:
    """Quantize `source` to `bits` with `method` on the token ids `rows`, and save it as `target`."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(os.cpu_count() or 1))
    import torch
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig  # pyright: ignore[reportMissingImports]  # an extra

    torch.manual_seed(request["seed"])
    awq = request["method"] == "awq"
    config = QuantizeConfig(
        bits=request["bits"],
        group_size=request["group_size"],
        desc_act=False,
        true_sequential=False,  # one pass over a layer instead of four; the paper's own default
        **({"method": "awq", "format": "gemm"} if awq else {}),
    )
    device = request["device_map"]
    place = {"device_map" if device == "auto" else "device": device}
    model = GPTQModel.load(request["source"], config, **place)
    model.layer_callback = _Progress()
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in request["rows"]]
    backend = {"backend": BACKEND.AWQ_TORCH} if awq and device == "cpu" else {}
    model.quantize(
        rows, batch_size=request["batch_size"], calibration_sort=None, calibration_data_min_length=1, **backend
    )
    model.save(request["target"])


if __name__ == "__main__":
    quantize(json.loads(Path(sys.argv[1]).read_text("utf-8")))
