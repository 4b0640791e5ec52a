"""NCCL with the one device that there is: what a run sends goes through it, and comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from swift.plan.fsdp import FsdpPlan
from swift.training.batches import Collate
from swift.training.objectives import Batch
from swift.training.objectives.sft import SftObjective
from swift.training.parallel.fully_sharded import FullySharded
from swift.training.parallel.gathered import Gathered
from swift.training.parallel.sequence import SequenceGroup
from swift.training.varlen_attention import keep_inside_sequences
from training.kit import Rows, tiny_model


@pytest.fixture
def nccl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not dist.is_nccl_available():
        pytest.skip("this PyTorch has no NCCL")
    torch.cuda.set_device(0)
    dist.init_process_group("cuda:nccl,cpu:gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


Found = tuple[float, dict[str, Tensor]]
"""A loss and its gradients by name, whole and on the CPU."""


def four_rows() -> Batch:
    rows = Rows(4)
    return Collate(True, 0)([rows[number] for number in range(4)])


def gradients(model: PreTrainedModel, objective: SftObjective, batch: Batch, device: str) -> Found:
    batch = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    loss = objective.sums(model, batch).loss
    loss.backward()
    of_weights = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    whole = {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in of_weights.items()}
    return loss.item(), {name: gradient.cpu() for name, gradient in whole.items()}


def same(mine: Found, theirs: Found) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    assert mine[0] == pytest.approx(theirs[0], rel=1e-4)
    assert mine[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(mine[1][name], gradient, rtol=1e-3, atol=1e-4)


@pytest.fixture
def expected() -> Found:
    model = tiny_model(head_dim=32)
    assert keep_inside_sequences(model)
    return gradients(model, SftObjective(model), four_rows(), "cpu")


@pytest.mark.parametrize("offloads", [False, True])
def test_fully_sharded(nccl: None, offloads: bool, expected: Found, tmp_path: Path) -> None:
    model = tiny_model(head_dim=32)
    assert keep_inside_sequences(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    objective = SftObjective(model)  # tries the model, which has to be whole
    engine = FullySharded(FsdpPlan(reshards=True, offloads=offloads, layers=()))
    engine.before_optimizer(model)
    same(gradients(model, objective, four_rows(), "cuda"), expected)
    weights = engine.weights(model, Gathered(tmp_path))
    assert weights is not None
    for name, tensor in before.items():
        assert torch.equal(weights[name], tensor)


def test_a_row_in_stretches(nccl: None, expected: Found) -> None:
    model = tiny_model(head_dim=32).cuda()
    assert keep_inside_sequences(model)
    group = SequenceGroup(1, model.config)
    same(gradients(model, SftObjective(model), group.share(four_rows()), "cuda"), expected)
    parts = torch.arange(6.0, device="cuda", requires_grad=True)
    group.sum(parts).square().sum().backward()
    assert parts.grad is not None and torch.equal(parts.grad, 2 * parts.detach())
