"""What the first steps of `swift rlhf` log with adapters, other references and other splits, in float64.

The losses are those of `test_first_step`; adapters are computed as W + s B A from the files of a checkpoint whose
learning rate was 0, so that it holds the weights of the first step.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.func import functional_call

from invariant.test_first_step import (
    ROWS,
    Case,
    Sums,
    Tokens,
    World,
    logged,
    loss_of_labelled,
    loss_of_pairs,
    one_thread,
    rows,
    summed,
    sums,
    world,
)
from swift.cli import main

__all__ = ["one_thread", "sums", "world"]  # fixtures
pytestmark = pytest.mark.slow
STILL = {"learning_rate": 0, "weight_decay": 0, "lora_rank": 4, "answer_samples": 0}
"""Flags of runs that change no weight."""


class Adapted:
    """The policy with the adapter of a checkpoint, differentiable in the adapter's weights."""

    def __init__(self, world: World, checkpoint: Path):
        self._model = world.policy
        config = json.loads((checkpoint / "adapter_config.json").read_text())
        tensors = load_file(checkpoint / "adapter_model.safetensors")
        self.weights = {name: tensor.double().requires_grad_() for name, tensor in tensors.items()}
        base = dict(self._model.named_parameters())
        self._changed: dict[str, Tensor] = {}
        for name, a in self.weights.items():
            if ".lora_A." in name:
                own = name.removeprefix("base_model.model.").replace(".lora_A", "")
                b = self.weights[name.replace("lora_A", "lora_B")]
                self._changed[own] = base[own].detach() + config["lora_alpha"] / config["r"] * (b @ a)

    def __call__(self, **inputs: Any) -> Any:
        return functional_call(self._model, self._changed, kwargs=inputs)

    def sums(self, world: World, kind: str, reference: Any) -> Sums:
        """The sums of the pairs of a kind; `reference` None is the adapted model itself as it is now."""
        pairs = world.sequences(kind)
        policy = [torch.stack([summed(self, pair[end]) for pair in pairs]) for end in (0, 1)]  # type: ignore[arg-type]
        other = [s.detach() for s in policy]
        if reference is not None:
            with torch.no_grad():
                other = [torch.stack([summed(reference, pair[end]) for pair in pairs]) for end in (0, 1)]
        counts = [torch.tensor([sum(pair[end].trained) for pair in pairs]).double() for end in (0, 1)]
        return Sums(*policy, *other, *counts)

    def gradient_norm(self, loss: Tensor) -> float:
        gradients = torch.autograd.grad(loss, list(self.weights.values()), allow_unused=True)
        return float(torch.stack([g.norm() for g in gradients if g is not None]).norm())


@pytest.fixture(scope="module")
def tuned(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter by `swift sft` to start from."""
    folder = tmp_path_factory.mktemp("sft")
    written = [{"query": row["query"], "response": row["response"]} for row in rows("dpo")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    flags = {"model_id_or_path": world.policy_folder, "dataset": folder / "rows.jsonl", "output_dir": folder / "run"}
    more = {"template_type": "smollm2", "max_steps": 2, "learning_rate": 0.05, "warmup_ratio": 0, "lora_rank": 4}
    last = {"add_output_dir_suffix": "false", "dataset_test_ratio": 0, "report_to": "none", "no_cache": "true"}
    words = [str(word) for name, value in {**flags, **more, **last}.items() for word in (f"--{name}", value)]
    assert main(["sft", *words]) == 0
    return folder / "run" / "checkpoint-2"


CASES: list[tuple[Case, str, dict[str, Any]]] = [
    (Case("dpo", {"beta": 0.3}), "fresh", {"share_prompts": "true", "micro_batching": "said"}),
    (Case("dpo", {"loss_type": "ipo", "rpo_alpha": 0.3}), "tuned", {"share_prompts": "true", "micro_batching": 64}),
    (Case("dpo", {"loss_type": "bco_pair", "beta": 0.5}), "tuned", {"precompute_ref_log_probs": "true"}),
    (Case("dpo", {"label_smoothing": 0.2}), "other", {"precompute_ref_log_probs": "false", "share_prompts": "true"}),
    (Case("dpo", {"loss_type": "nca_pair"}), "other", {"precompute_ref_log_probs": "true", "share_prompts": "false"}),
    (Case("cpo", {"cpo_alpha": 0.4}), "tuned", {"share_prompts": "true"}),
    (Case("simpo", {"simpo_gamma": 0.6}), "tuned", {"share_prompts": "false", "gradient_checkpointing": "true"}),
    (Case("orpo"), "tuned", {"share_prompts": "true", "micro_batching": "said"}),
]


@pytest.mark.parametrize(("case", "start", "flags"), CASES, ids=str)
def test_adapters(case: Case, start: str, flags: dict[str, Any], world: World, tuned: Path, tmp_path: Path) -> None:
    """A new adapter against the base, one that goes on against what it was, or either against another model."""
    given = {"sft_type": "lora", "lora_dropout": 0, **STILL, **flags}
    if start != "fresh":
        given |= {"resume_from_checkpoint": tuned, "resume_only_model": "true"}
        del given["lora_dropout"]
    reference = world.reference if start == "other" else None
    given["ref_model_id_or_path"] = world.reference_folder if reference is not None else None
    for batch, count in ((6, 1), (2, 3)):
        folder = tmp_path / str(batch)
        event = logged(world, case, folder, (batch, count), **given)
        model = Adapted(world, folder / "run" / "checkpoint-1")
        loss = loss_of_pairs(case, model.sums(world, case.kind, reference))
        assert event["loss"] == pytest.approx(loss.item(), abs=1e-4, rel=1e-5)
        assert event["grad_norm"] == pytest.approx(model.gradient_norm(loss), rel=1e-3)


def test_the_running_mean_of_bco_goes_on_over_steps(world: World, sums: Callable[[str], Sums], tmp_path: Path) -> None:
    """The second step shifts by the mean of the rewards of both."""
    case = Case("dpo", {"loss_type": "bco_pair", "beta": 0.5, "rpo_alpha": 0.0})
    logged(world, case, tmp_path / "run", (3, 1), **{**STILL, "max_steps": 2})
    lines = [json.loads(line) for line in (tmp_path / "run" / "run" / "logging.jsonl").read_text().splitlines()]
    first, second = [line["loss"] for line in lines if "grad_norm" in line]
    every = sums("dpo")
    r, q = 0.5 * (every.w - every.ref_w).detach(), 0.5 * (every.l - every.ref_l).detach()

    def mean_loss(some: list[int], known: list[int]) -> float:
        delta = (r[known].sum() + q[known].sum()) / (2 * len(known))
        return float((torch.nn.functional.softplus(delta - r) + torch.nn.functional.softplus(q - delta))[some].mean())

    expected = []
    for begun in map(list, combinations(range(ROWS), 3)):
        rest = [row for row in range(ROWS) if row not in begun]
        expected.append((mean_loss(begun, begun), mean_loss(rest, list(range(ROWS)))))
    assert any((first, second) == pytest.approx(pair, abs=1e-4) for pair in expected)


def test_the_kl_of_kto_is_that_of_each_micro_batch(world: World, tmp_path: Path) -> None:
    case = Case("kto", {"beta": 0.4, "undesirable_weight": 0.6})
    event = logged(world, case, tmp_path / "run", (3, 2), **STILL)
    sequences = [one for (one,) in world.sequences("kto")]

    def ratio(sequence: Tokens) -> Tensor:
        return summed(world.policy, sequence) - summed(world.reference, sequence)

    def foreign(row: int, other: int) -> float:
        one, two = sequences[row], sequences[other]
        ids = one.ids[: one.answer_start()] + two.ids[two.answer_start() :]
        return float(ratio(Tokens(ids, [False] * one.answer_start() + two.trained[two.answer_start() :])))

    with torch.no_grad():
        ratios = torch.stack([ratio(one) for one in sequences])
        mixed = {(a, b): foreign(a, b) for a in range(ROWS) for b in range(ROWS) if a != b}
    labels = [True, False] * 3
    known = []
    for order in permutations(range(ROWS)):
        total, kls = 0.0, []
        for group in (order[:3], order[3:]):
            kl = max(0.0, sum(mixed[group[i], group[(i + 1) % 3]] for i in range(3)) / 3)
            kls.append(kl)
            total += float(loss_of_labelled(case, ratios[list(group)], [labels[row] for row in group], kl)) / 2
        known.append((sum(kls) / 2, total))
    assert any((event["kl"], event["loss"]) == pytest.approx(pair, abs=1e-4) for pair in known)
    assert event["kl_rows"] == 3
