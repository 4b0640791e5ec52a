"""Features of a frozen tower, kept from one epoch to the next: a tile that was seen is not computed again.

Only the tiles of a batch that are not known reach the tower. Kept are the states of the very layers that the projector
reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from swift import tuners
from swift.core.errors import NotBuilt, SwiftError
from swift.core.log import log
from swift.data.bounded_store import BoundedStore
from swift.models.families import Images
from swift.plan.sft import SftPlan

FLAG = "--cache_vision_features"
Layers = Sequence[int | None]


def cache_features(model: nn.Module, plan: SftPlan, images: Images, *, epochs: float) -> None:
    """Keep the features of the model's tower, where that is asked for or worth it in so many `epochs`.

    Raises SwiftError where it is asked for and cannot be.
    """
    given = plan.train.cache_vision_features
    base: Any = tuners.base_model(model)
    towers = [base.get_submodule(path) for path in images.family.parts.tower]
    layers = images.family.layers_read(base.config)
    frozen = not any(parameter.requires_grad for tower in towers for parameter in tower.parameters())
    if given and not layers:
        raise NotBuilt(f"{FLAG} true is not built yet for {base.config.model_type}", where=FLAG, next="leave it out")
    if given and not frozen:
        raise SwiftError(f"{FLAG} true needs a frozen tower, and this run trains it", where=FLAG, next="leave it out")
    if given is False or not layers or not frozen or plan.data.pixels is None or (given is None and epochs <= 1):
        return
    (tower,) = towers
    TowerCache(tower, layers, plan.data.pixels.with_name("features"))
    log.info("features of the frozen tower are kept in %s", plan.data.pixels.with_name("features"))


class TowerCache:
    """Stands in for the forward pass of a tower, whose first input is `pixel_values` (tiles, 3, height, width).

    The pass of this one module is replaced, as accelerate does it: hooks of torch can change a call and not leave it
    out, and towers do not compute on no tile at all.
    """

    def __init__(self, tower: nn.Module, layers: Layers, folder: Path):
        self._layers = layers
        self._store = BoundedStore(folder)
        self._weights = _digest_of(tower)
        self._compute = tower.forward
        self._outputs: Any = None
        """The output of the last pass over tiles: its kind, and how many hidden states it has."""
        tower.forward = self._forward

    def _forward(self, pixel_values: Tensor, *args: Any, **given: Any) -> Any:
        """What the tower puts out for all tiles, in the layers that are read; only those not known are computed."""
        device = pixel_values.device
        autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        how = f"{self._weights} {pixel_values.dtype} {autocast}"
        names = [f"{how} {_digest(tile)}" for tile in pixel_values]
        kept = {number: self._read(name, device) for number, name in enumerate(names)}
        known = {number: states for number, states in kept.items() if states is not None}
        missing = [number for number in range(len(names)) if number not in known]
        states: list[Tensor] = []
        if missing or self._outputs is None:
            missing = missing or list(range(len(names)))
            output = self._compute(pixel_values[torch.tensor(missing, device=device)], *args, **given)
            self._outputs = type(output), len(output.hidden_states or ())
            states = [output.last_hidden_state if at is None else output.hidden_states[at] for at in self._layers]
            for place, number in enumerate(missing):
                if number not in known:
                    self._write(names[number], [each[place] for each in states])
        rows = {**known, **{number: [each[place] for each in states] for place, number in enumerate(missing)}}
        whole = [torch.stack([rows[at][which] for at in range(len(names))]) for which in range(len(self._layers))]
        return self._output(whole)

    def _output(self, states: Sequence[Tensor]) -> Any:
        """As the tower has it, with the states that are read and None for all others."""
        kind, count = self._outputs
        hidden: list[Tensor | None] = [None] * count
        last = None
        for layer, each in zip(self._layers, states, strict=True):
            if layer is None:
                last = each
            else:
                hidden[layer] = each
        return kind(last_hidden_state=last, hidden_states=tuple(hidden) or None)

    def _read(self, name: str, device: torch.device) -> list[Tensor] | None:
        data = self._store.read(name)
        if data is None:
            return None
        dtype, shape, values = data.split(b"\n", 2)
        whole = torch.frombuffer(bytearray(values), dtype=getattr(torch, dtype.decode()))
        return list(whole.view(*map(int, shape.split())).to(device))

    def _write(self, name: str, states: Sequence[Tensor]) -> None:
        whole = torch.stack(list(states)).detach().cpu().contiguous()
        head = f"{str(whole.dtype).removeprefix('torch.')}\n{' '.join(map(str, whole.shape))}\n"
        self._store.write(name, head.encode() + whole.view(torch.uint8).numpy().tobytes())


def _digest(tile: Tensor) -> str:
    raw = tile.detach().cpu().contiguous().view(torch.uint8).numpy()
    return f"{tuple(tile.shape)} {hashlib.blake2b(np.ascontiguousarray(raw).data, digest_size=20).hexdigest()}"


def _digest_of(tower: nn.Module) -> str:
    """Changes with every weight of a tower, and with how it computes."""
    digest = hashlib.blake2b(f"{tower} {torch.__version__}".encode(), digest_size=20)
    for name, value in sorted(tower.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
