"""Features of a frozen tower, kept from one epoch to the next: a picture that was seen is not computed again.

Only what is not known of a batch reaches the tower. Kept are the states of the very layers that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swift import tuners
from swift.core.errors import NotBuilt, SwiftError
from swift.core.log import log
from swift.models.families import MediaProcessor
from swift.plan.sft import SftPlan
from swift.training.feature_store import FeatureStore

FLAG = "--cache_vision_features"
Layers = Sequence[int | None]


def cache_features(model: nn.Module, plan: SftPlan, images: MediaProcessor, *, epochs: float) -> None:
    """Keep the features of the model's tower, where that is asked for or worth it in so many `epochs`.

    Raises SwiftError where it is asked for and cannot be.
    """
    given, family = plan.train.cache_vision_features, images.family
    base: Any = tuners.base_model(model)
    layers, blocks = family.layers_read(base.config), family.blocks_read(base.config)
    of_tower = (weight for name, weight in base.named_parameters() if family.parts.part_of(name) == "tower")
    frozen = not any(weight.requires_grad for weight in of_tower)
    if given and not layers and not blocks:
        raise NotBuilt(
            f"{FLAG} true is not built for {base.config.model_type}",
            where=FLAG,
            why="what its decoder is given of one image cannot be told from what it is given of others",
            next="leave it out",
        )
    if given and not frozen:
        raise SwiftError(f"{FLAG} true needs a frozen tower, and this run trains it", where=FLAG, next="leave it out")
    if plan.train.shards_weights:  # the processes fetch the tower together, so each computes it every time
        if given:
            raise NotBuilt(f"{FLAG} true is not built where weights are shared out", where=FLAG, next="leave it out")
        return
    worth = given or (given is None and epochs > 1)
    if not worth or not (layers or blocks) or not frozen or plan.data.pixels is None:
        return
    folder = plan.data.pixels.with_name("features")
    path, *_ = family.parts.tower
    tower = base.get_submodule(path)
    if layers:
        TowerCache(tower, layers, folder)
    else:
        inside = [each.removeprefix(f"{path}.") for each in family.parts.projector if each.startswith(f"{path}.")]
        PatchTowerCache(tower, blocks, folder, inside)
    log.info("features of the frozen tower are kept in %s", folder)


class TowerCache:
    """Stands in for the forward pass of a tower, whose first input is `pixel_values` (tiles, 3, height, width).

    The pass of this one module is replaced, as accelerate does it: hooks of torch can change a call and not leave it
    out, and towers do not compute on no tile at all.
    """

    def __init__(self, tower: nn.Module, layers: Layers, folder: Path):
        self._layers = layers
        self._store = FeatureStore(tower, folder)
        self._compute = tower.forward
        self._outputs: Any = None
        """The output of the last pass over tiles: its kind, and how many hidden states it has."""
        tower.forward = self._forward

    def _forward(self, pixel_values: Tensor, **given: Any) -> Any:
        """What the tower puts out for all tiles, in the layers that are read; only those not known are computed."""
        device, count = pixel_values.device, len(pixel_values)
        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        masks = {name: value for name, value in tensors.items() if value.shape[:1] == (count,)}
        names = self._store.names(list(zip(pixel_values, *masks.values(), strict=True)))
        kept = {number: self._store.read(name, device) for number, name in enumerate(names)}
        known = {number: states for number, states in kept.items() if states is not None}
        missing = [number for number in range(count) if number not in known]
        states: list[Tensor] = []
        if missing or self._outputs is None:
            missing = missing or list(range(count))
            at = torch.tensor(missing, device=device)
            output = self._compute(pixel_values[at], **given | {name: mask[at] for name, mask in masks.items()})
            self._outputs = type(output), len(output.hidden_states or ())
            states = [output.last_hidden_state if at is None else output.hidden_states[at] for at in self._layers]
            for place, number in enumerate(missing):
                if number not in known:
                    self._store.write(names[number], [each[place] for each in states])
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


class PatchTowerCache:
    """Stands in for the blocks of a tower that is given the patches of all images in one row, and how many each has.

    What such a tower does behind its blocks may be trained, so it is computed each time, from what the blocks put out.
    """

    def __init__(self, tower: nn.Module, read: Sequence[int], folder: Path, trained: Sequence[str]):
        """`read` are the numbers of the blocks whose output is used by others than the next one."""
        self._read = read
        self._store = FeatureStore(tower, folder, trained)
        self._compute = tower.forward
        self._seen: dict[int, Tensor] | None = None
        self._shown: dict[int, Tensor] | None = None
        tower.forward = self._forward
        blocks: Any = tower.blocks
        for number, block in enumerate(blocks):
            block.forward = partial(self._block, number, block.forward)

    def _forward(self, hidden_states: Tensor, grid_thw: Tensor, **given: Any) -> Any:
        """`hidden_states` (patches, values), `grid_thw` (images, 3)."""
        patches = hidden_states.split(grid_thw.prod(-1).tolist())
        names = self._store.names(list(zip(patches, grid_thw, strict=True)))
        kept = [self._store.read(name, hidden_states.device) for name in names]
        missing = [number for number, states in enumerate(kept) if states is None]
        if not missing:
            return self._replayed(kept, hidden_states, grid_thw, given)
        if len(missing) == len(names):
            return self._computed(names, hidden_states, grid_thw, given)[1]
        with torch.no_grad():
            some = torch.cat([patches[number] for number in missing]), grid_thw[missing]
            states, _ = self._computed([names[number] for number in missing], *some, given)
        for number, each in zip(missing, states, strict=True):
            kept[number] = each
        return self._replayed(kept, hidden_states, grid_thw, given)

    def _computed(
        self, names: Sequence[str], patches: Tensor, grids: Tensor, given: dict[str, Any]
    ) -> tuple[list[list[Tensor]], Any]:
        """The states of images that are not known, which are kept, and what the tower puts out for them."""
        self._seen = {}
        try:
            output = self._compute(patches, grids, **given)
            counts = grids.prod(-1).tolist()
            states = list(map(list, zip(*(self._seen[block].split(counts) for block in self._read), strict=True)))
        finally:
            self._seen = None
        for name, each in zip(names, states, strict=True):
            self._store.write(name, each)
        return states, output

    def _replayed(self, kept: Sequence[Any], patches: Tensor, grids: Tensor, given: dict[str, Any]) -> Any:
        """What the tower puts out where the states of all images are known."""
        self._shown = {block: torch.cat([each[at] for each in kept]) for at, block in enumerate(self._read)}
        try:
            return self._compute(patches, grids, **given)
        finally:
            self._shown = None

    def _block(self, number: int, compute: Any, hidden_states: Tensor, **given: Any) -> Tensor:
        if self._shown is not None:
            return self._shown.get(number, hidden_states)
        output: Tensor = compute(hidden_states, **given)
        if self._seen is not None and number in self._read:
            self._seen[number] = output.detach()
        return output
