"""DeepSpeed's ZeRO: each process keeps a share of the optimizer and steps a share of every weight."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import Tensor, nn

from swift.compat.deepspeed_shm_comm import compile_nothing
from swift.core.optional_imports import need
from swift.plan.deepspeed import ZeroPlan
from swift.training import optimizer_state
from swift.training.parallel import Groups, saved_names
from swift.training.parallel.gathered import Keep
from swift.training.parallel.replicated import Replicated

OFFLOADED = "offload_optimizer"
MASTER = "fp32_weight"
"""The name, beside the optimizer's own, of what a weight of 16 bits is stepped in."""


def prepare_process(device: str) -> None:
    """Tell accelerate and DeepSpeed, before either is set up, what the processes have joined for."""
    need("deepspeed", extra="deepspeed", why="--deepspeed")
    if device == "cpu":
        compile_nothing(need("deepspeed.ops", extra="deepspeed", why="--deepspeed"))
    PartialState().distributed_type = DistributedType.DEEPSPEED
    # Names that PyTorch has given new ones.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # transformers counts micro-batches itself, and says so to accelerate alone.
    logging.getLogger("accelerate.accelerator").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "accumulation steps mismatch" not in record.getMessage()


class Zero(Replicated):
    """Stages 1 and 2: weights are whole in every process."""

    gradients_stay = False

    def optimizer_state(self, optimizer: Any, model: nn.Module, groups: Groups, keep: Keep) -> dict[str, Any]:
        """See Parallel."""
        tools: Any = need("deepspeed.utils", extra="deepspeed", why="--deepspeed")
        zero = optimizer.optimizer
        self.link(zero)
        pieces, counts = _kinds(zero.optimizer, self.pieces(zero)[0])
        state: dict[str, dict[str, Any]] = {}
        for name, parameter in _named(model, groups):
            state[name] = {key: keep(tools.safe_get_full_optimizer_state(parameter, key)) for key in pieces}
            state[name] |= {key: torch.as_tensor(value).detach().cpu().clone() for key, value in counts.items()}
            if parameter.dtype != torch.float32:
                state[name][MASTER] = keep(tools.safe_get_full_fp32_param(parameter))
        settings = [{name: value for name, value in group.items() if name != "params"} for group in zero.param_groups]
        named = [{**own, "params": names} for own, names in zip(settings, groups, strict=True)]
        return {"state": state if pieces or counts else {}, "param_groups": named}

    def load_optimizer_state(self, optimizer: Any, model: nn.Module, groups: Groups, stored: dict[str, Any]) -> None:
        """See Parallel."""
        tools: Any = need("deepspeed.utils", extra="deepspeed", why="--deepspeed")
        zero = optimizer.optimizer
        settings = optimizer_state.by_number(stored, groups, zero.param_groups)["param_groups"]
        for group, own in zip(zero.param_groups, settings, strict=True):
            group |= {name: value for name, value in own.items() if name != "params"}
        states: Mapping[str, Mapping[str, Tensor]] = stored["state"]
        if not states:
            return
        like = {name: value for name, value in next(iter(states.values())).items() if isinstance(value, Tensor)}
        pieces = [name for name, value in like.items() if value.dim() and name != MASTER]
        for piece in self.pieces(zero):
            zero.optimizer.state[piece] |= {name: torch.zeros_like(piece) for name in pieces}
            zero.optimizer.state[piece] |= _counts(zero.optimizer, like)
        self.link(zero)
        for name, parameter in _named(model, groups):
            for key in pieces:
                tools.safe_set_full_optimizer_state(parameter, states[name][key].to(parameter.device), key)
            if MASTER in states[name] and parameter.dtype != torch.float32:
                tools.safe_set_full_fp32_param(parameter, states[name][MASTER].to(parameter.device))

    def pieces(self, zero: Any) -> list[Tensor]:
        """The flat shares of this process, as the optimizer steps them."""
        return list(zero.single_partition_of_fp32_groups)

    def link(self, zero: Any) -> None:
        """Let each parameter know its share of the state; DeepSpeed does it for the first group that is stepped."""
        tools: Any = need("deepspeed.utils", extra="deepspeed", why="--deepspeed")
        for parameters, piece in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
            tools.lazy_init_hp_params_optimizer_state(parameters, piece, zero.optimizer.state)


class Zero3(Zero):
    """Stage 3: weights too."""

    def __init__(self, plan: ZeroPlan):
        self._plan = plan

    def after_optimizer(self, model: nn.Module) -> None:
        """See Parallel. Weight by weight: the device never has all of them."""
        deepspeed: Any = need("deepspeed", extra="deepspeed", why="--deepspeed")
        deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
        device = PartialState().device
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module.register_buffer(name, buffer.to(device), name not in module._non_persistent_buffers_set)
        deepspeed.zero.Init(module=model, config_dict_or_path=dict(self._plan.config))

    def frozen(self, model: nn.Module) -> None:
        """See Parallel."""
        deepspeed: Any = need("deepspeed", extra="deepspeed", why="--deepspeed")
        self.after_optimizer(model)
        zero = {name: value for name, value in self._plan.config["zero_optimization"].items() if name != OFFLOADED}
        # Its hooks fetch the weights of a module when it is called; they hold what they need of the engine.
        deepspeed.initialize(model=model, config={"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero})

    def weights(self, model: nn.Module, keep: Keep) -> dict[str, Tensor] | None:
        """See Parallel."""
        zero: Any = need("deepspeed", extra="deepspeed", why="--deepspeed").zero
        state = model.state_dict(keep_vars=True)
        whole: dict[int, Tensor] = {}
        named: dict[str, Tensor] = {}
        for name in saved_names(model):
            tensor = state[name]
            if id(tensor) not in whole:  # one that is tied to another stays so
                with zero.GatheredParameters([tensor]):
                    whole[id(tensor)] = keep(tensor)
            named[name] = whole[id(tensor)]
        return named

    def pieces(self, zero: Any) -> list[Tensor]:
        """See Zero."""
        return list(zero.fp32_partitioned_groups_flat)

    def link(self, zero: Any) -> None:
        """See Zero. Parameters know it here."""


def _kinds(optimizer: Any, piece: Tensor) -> tuple[list[str], dict[str, Any]]:
    """What the optimizer keeps for each number, by name, and what it keeps once (its count of steps)."""
    own = {key: value for key, value in optimizer.state[piece].items() if value is not None}
    pieces = [key for key, value in own.items() if isinstance(value, Tensor) and value.shape == piece.shape]
    return pieces, {key: value for key, value in own.items() if key not in pieces}


def _counts(optimizer: Any, like: Mapping[str, Tensor]) -> dict[str, Any]:
    """What is kept once, as this optimizer keeps it: DeepSpeed's own count in Python."""
    counts = {name: value for name, value in like.items() if not value.dim()}
    if isinstance(optimizer, need("deepspeed.ops.adam", extra="deepspeed", why="--deepspeed").DeepSpeedCPUAdam):
        return {name: int(value) for name, value in counts.items()}
    return {name: value.clone() for name, value in counts.items()}


def _named(model: nn.Module, groups: Groups) -> list[tuple[str, nn.Parameter]]:
    parameters = dict(model.named_parameters())
    return [(name, parameters[name]) for names in groups for name in names]
