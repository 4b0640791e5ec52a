"""What a process of a run holds of weights, gradients and optimizer, counted at its tensors in the first step."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from training.process import CONTEXT


def start_measured(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> BaseProcess:
    """Train a step (two passes or more) of `swift sft WORDS` as one of several processes -> `folder`/RANK.json."""
    process = CONTEXT.Process(target=_measured, args=(list(words), str(folder), dict(environment)))
    process.start()
    return process


def _measured(words: list[str], folder: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sys.stderr = sys.stdout = open(f"{folder}/{environment['RANK']}.log", "w", buffering=1)  # noqa: SIM115
    import torch

    torch.set_num_threads(1)
    from swift.catalog import load_catalog
    from swift.core.probe import probe
    from swift.params.parse import parse
    from swift.plan.sft import plan_sft
    from swift.training import process_group
    from swift.training.loop import build
    from swift.training.memory_estimate import estimate
    from swift.training.prepare import prepare
    from swift.training.train import with_model

    catalog = load_catalog()
    plan = plan_sft(parse(["sft", *words]), catalog, probe())
    with process_group.joined(plan.train):
        prepared = prepare(plan, catalog, None, None)
        expected = estimate(prepared.plan, prepared.source, 100, steps=1, per_epoch=1)
        assert expected is not None
        run = with_model(prepared, {}, Path(folder), None)
        trainer = build(run)
        held: dict[str, int] = {}
        trainer.add_callback(_watch(trainer, held))
        trainer.train()
        result = {"estimate": asdict(expected), "held": held}
        Path(folder, f"{environment['RANK']}.json").write_text(json.dumps(result))


def _watch(trainer: Any, held: dict[str, int]) -> Any:
    from transformers import TrainerCallback

    shares: dict[int, int] = {}

    def _note(optimizer: Any, *args: Any) -> None:  # once for each group
        pieces = [weight for group in optimizer.param_groups for weight in group["params"]]
        shares.update((id(piece), _bytes([piece.grad])) for piece in pieces if piece.grad is not None)
        held["gradients"] = sum(shares.values())

    class Watch(TrainerCallback):
        """Counts between two passes of a step, and once more when the optimizer has its state."""

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            """ZeRO-2 hands the optimizer its shares of the gradients, and keeps others for as long as it adds up."""
            inner = vars(trainer.optimizer.optimizer)
            if "single_partition_of_fp32_groups" in inner:
                inner["optimizer"].register_step_pre_hook(_note)

        def on_substep_end(self, *args: Any, **kwargs: Any) -> None:
            """Gradients are there."""
            model = trainer.accelerator.unwrap_model(trainer.model)
            parameters = list(model.parameters())
            held["weights"] = _bytes(map(_share, parameters)) + _bytes(_packed(model))
            held["gradients"] = _bytes(_gradients(trainer.optimizer, parameters))

        def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            """The step is done."""
            held["optimizer"] = _bytes(_states(trainer.optimizer))

    return Watch()


def _packed(model: Any) -> Iterable[Any]:
    """Weights of frozen layers that are kept in oneDNN's order, forward and backward, and are no parameters."""
    from torch import Tensor

    from swift.engines.packed_linear import PackedLinear

    layers = [module for module in model.modules() if isinstance(module, PackedLinear)]
    return [value for layer in layers for value in vars(layer._packed).values() if isinstance(value, Tensor)]


def _share(parameter: Any) -> Any:
    """The part of a weight that is here, by the names of ZeRO-3 and of DTensor."""
    from torch.distributed.tensor import DTensor

    if isinstance(parameter, DTensor):
        return parameter.to_local()
    return vars(parameter).get("ds_tensor", parameter)


def _gradients(optimizer: Any, parameters: list[Any]) -> Iterable[Any]:
    inner = vars(optimizer.optimizer)
    stage_3 = inner.get("_DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition")
    if stage_3 is not None:
        return list(stage_3.values())
    return [_share(parameter.grad) for parameter in parameters if parameter.grad is not None]


def _states(optimizer: Any) -> Iterable[Any]:
    """What the optimizer keeps for each number, and the copies of the weights that ZeRO steps."""
    inner = optimizer.optimizer
    own = vars(inner).get("optimizer", inner)
    yield from (
        _share(value)
        for values in own.state.values()
        for value in values.values()
        if hasattr(value, "dim") and value.dim()
    )
    yield from vars(inner).get("single_partition_of_fp32_groups", ())
    yield from vars(inner).get("fp32_partitioned_groups_flat", ())


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
