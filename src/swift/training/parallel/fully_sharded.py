"""PyTorch's FSDP2: each process keeps a share of every weight, and fetches a layer's when it is computed."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from swift import tuners
from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError
from swift.plan.fsdp import CONFIG, FsdpPlan
from swift.training import optimizer_state
from swift.training.parallel import Groups, saved_names
from swift.training.parallel.gathered import Keep


class FullySharded:
    """Weights, gradients and optimizer are `DTensor`s."""

    gradients_stay = False
    wrapped = False

    def __init__(self, plan: FsdpPlan):
        self._plan = plan

    def after_optimizer(self, model: nn.Module) -> None:
        """See Parallel."""

    def before_optimizer(self, model: nn.Module) -> None:
        """See Parallel. Layer by layer: the device never has all of them."""
        device: Any = PartialState().device
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        policy = CPUOffloadPolicy(pin_memory=device.type != "cpu") if self._plan.offloads else OffloadPolicy()
        for layer in self._layers(model):
            fully_shard(layer, mesh=mesh, reshard_after_forward=self._plan.reshards, offload_policy=policy)
        fully_shard(model, mesh=mesh, offload_policy=policy)
        # What the head makes instead of logits is only read.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
        register_fsdp_forward_method(model, "generate")

    def frozen(self, model: nn.Module) -> None:
        """See Parallel."""
        self.before_optimizer(model)

    def _layers(self, model: nn.Module) -> list[nn.Module]:
        if not self._plan.layers:
            return list(tuners.decoder_layers(tuners.base_model(model)))
        layers = [module for module in model.modules() if type(module).__name__ in self._plan.layers]
        kinds = {type(module).__name__ for module in model.modules()}
        for name in self._plan.layers:
            if name not in kinds:
                raise SwiftError(
                    f"the model has no module of class {name}",
                    where=CONFIG,
                    next=suggestion(name, kinds) or "leave transformer_layer_cls_to_wrap out: decoder layers are taken",
                )
        return layers

    def weights(self, model: nn.Module, keep: Keep) -> dict[str, Tensor] | None:
        """See Parallel."""
        state = model.state_dict(keep_vars=True)
        whole: dict[int, Tensor] = {}
        named: dict[str, Tensor] = {}
        for name in saved_names(model):
            tensor = state[name]
            if id(tensor) not in whole:  # one that is tied to another stays so
                whole[id(tensor)] = keep(_whole(tensor))
            named[name] = whole[id(tensor)]
        return named

    def optimizer_state(self, optimizer: Any, model: nn.Module, groups: Groups, keep: Keep) -> dict[str, Any]:
        """See Parallel."""
        named = optimizer_state.by_name(optimizer.state_dict(), [name for names in groups for name in names])
        state = {
            name: {key: keep(_whole(value)) if isinstance(value, Tensor) else value for key, value in values.items()}
            for name, values in named["state"].items()
        }
        return {**named, "state": state}

    def load_optimizer_state(self, optimizer: Any, model: nn.Module, groups: Groups, stored: dict[str, Any]) -> None:
        """See Parallel."""
        parameters = dict(model.named_parameters())
        state = {
            name: {key: _shared_out(value, parameters[name]) for key, value in values.items()}
            for name, values in stored["state"].items()
            if name in parameters
        }
        whole = {**stored, "state": state}
        optimizer.load_state_dict(optimizer_state.by_number(whole, groups, optimizer.param_groups))


@torch.no_grad()
def _whole(tensor: Tensor) -> Tensor:
    """All of a tensor; every process brings its share."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _shared_out(value: Any, like: Tensor) -> Any:
    """This process's share of what an optimizer keeps for each number of a weight; what it keeps once stays."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(PartialState().device), like.device_mesh, like.placements)
