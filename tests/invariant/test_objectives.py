"""Every alignment loss against its formula, written a second time in float64, and against its own splits."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax
from transformers import PreTrainedModel

from swift.params.alignment import ALGORITHMS
from swift.plan.rlhf import LossPlan
from swift.training.objectives import Batch, Objective
from swift.training.objectives.answer_log_probs import AnswerLogProbs
from swift.training.objectives.cpo import cpo
from swift.training.objectives.dpo import dpo
from swift.training.objectives.kto import KtoObjective
from swift.training.objectives.orpo import log1mexp, orpo
from swift.training.objectives.preference import PairObjective
from swift.training.preference_batches import CollatePairs, CollateUnpaired
from swift.training.varlen_attention import keep_inside_sequences
from training.kit import VOCABULARY, tiny_model

METHODS = {"dpo": dpo, "cpo": cpo, "simpo": cpo, "orpo": orpo}


def case(algorithm: str, loss: str = "", **numbers: Any) -> LossPlan:
    return LossPlan(**{"algorithm": algorithm, "loss_type": loss or algorithm, "beta": 0.3, **numbers})


PAIR_CASES = [
    *(case("dpo", loss) for loss in ALGORITHMS["dpo"].losses if loss != "exo_pair"),
    *(case("dpo", loss, label_smoothing=0.2) for loss in ALGORITHMS["dpo"].smoothed),
    case("dpo", "sigmoid", nll_weight=0.7),
    case("dpo", "exo_pair", label_smoothing=1e-3, nll_weight=1.0),
    *(case("cpo", loss, nll_weight=0.7, simpo_gamma=0.5) for loss in ALGORITHMS["cpo"].losses),
    *(case("cpo", loss, label_smoothing=0.2, simpo_gamma=0.5) for loss in ALGORITHMS["cpo"].smoothed),
    case("simpo", beta=2.0, simpo_gamma=1.0, nll_weight=1.0),
    case("orpo", nll_weight=1.0),
]
OVER_MICRO_BATCHES = ("aot", "aot_pair")
ENDS = ("chosen", "rejected")


def name_of(plan: LossPlan) -> str:
    return f"{plan.algorithm}-{plan.loss_type}-{plan.label_smoothing:g}-{plan.nll_weight:g}"


@dataclass(frozen=True)
class Frozen:
    """A reference that is a model of its own."""

    model: PreTrainedModel

    @torch.no_grad()
    def sums(self, batch: Batch) -> Tensor:
        return AnswerLogProbs(self.model)(self.model, batch).sums()

    def save(self, folder: Path) -> None:
        return


def float64_model(seed: int = 0) -> PreTrainedModel:
    """A tiny model in float64, its weights moved by `seed` so that no two agree."""
    model = tiny_model().double()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    assert keep_inside_sequences(model)
    return model


def tokens(rng: random.Random, low: int, high: int) -> list[int]:
    return [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(low, high))]


def pairs(count: int = 6, seed: int = 0, *, trained_prompt: bool = False) -> list[dict[str, Any]]:
    """Pairs after common prompts; some answers begin alike. `trained_prompt` trains a piece of the prompt as well."""
    rng = random.Random(seed)
    made = []
    for row in range(count):
        prompt, begin = tokens(rng, 17, 30), tokens(rng, 1, 2) if row % 2 else []
        before = [-100] * (len(prompt) - 4) + (prompt[-4:-2] if trained_prompt else [-100] * 2) + [-100] * 2
        item: dict[str, Any] = {"row": row}
        for end in ("chosen", "rejected"):
            answer = begin + tokens(rng, 2, 9)
            item |= {f"{end}_input_ids": prompt + answer, f"{end}_labels": before + answer}
        made.append(item)
    return made


# The formulas once more, from the papers: every number from one sequence at a time, with all its logits.


def summed(model: nn.Module, ids: list[int], labels: list[int]) -> tuple[Tensor, int]:
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
    wanted = torch.tensor(labels[1:])
    kept = wanted != -100
    picked = log_softmax(logits[kept], -1).gather(1, wanted[kept][:, None])
    return picked.sum(), int(kept.sum())


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def preference(plan: LossPlan, w: Tensor, l: Tensor, rw: Tensor, rl: Tensor, delta: float) -> Tensor:  # noqa: E741
    """Loss of one pair from policy and reference log-probabilities (sums, or means for losses on means)."""
    b, e = plan.beta, plan.label_smoothing
    x = b * ((w - rw) - (l - rl))

    def binary(x: Tensor) -> Tensor:
        return -(1 - e) * torch.log(sigmoid(x)) - e * torch.log(sigmoid(-x))

    if plan.algorithm == "orpo":
        odds_w, odds_l = torch.exp(w) / (1 - torch.exp(w)), torch.exp(l) / (1 - torch.exp(l))
        return -b * torch.log(sigmoid(torch.log(odds_w / odds_l)))
    formulas: dict[str, Callable[[], Tensor]] = {
        "sigmoid": lambda: binary(x),
        "hinge": lambda: torch.clamp(1 - x, min=0),
        "ipo": lambda: (x / b - 1 / (2 * b)) ** 2,
        "exo_pair": lambda: sigmoid(x) * torch.log(sigmoid(x) / (1 - e)) + sigmoid(-x) * torch.log(sigmoid(-x) / e),
        "nca_pair": lambda: (
            -torch.log(sigmoid(b * (w - rw)))
            - torch.log(sigmoid(-b * (w - rw))) / 2
            - torch.log(sigmoid(-b * (l - rl))) / 2
        ),
        "robust": lambda: (-(1 - e) * torch.log(sigmoid(x)) + e * torch.log(sigmoid(-x))) / (1 - 2 * e),
        "bco_pair": lambda: -torch.log(sigmoid(b * (w - rw) - delta)) - torch.log(sigmoid(-b * (l - rl) + delta)),
        "sppo_hard": lambda: (w - rw - 1 / (2 * b)) ** 2 + (l - rl + 1 / (2 * b)) ** 2,
        "apo_zero": lambda: 1 - sigmoid(b * (w - rw)) + sigmoid(b * (l - rl)),
        "apo_down": lambda: sigmoid(b * (w - rw)) + 1 - sigmoid(x),
        "simpo": lambda: binary(x - plan.simpo_gamma),
    }
    return formulas[plan.loss_type]()


def oracle(plan: LossPlan, policy: nn.Module, reference: nn.Module, rows: list[dict[str, Any]]) -> Tensor:
    ends = [[summed(policy, r[f"{e}_input_ids"], r[f"{e}_labels"]) for e in ENDS] for r in rows]
    free = plan.algorithm != "dpo"
    with torch.no_grad():
        refs = [[summed(reference, r[f"{e}_input_ids"], r[f"{e}_labels"])[0] for e in ENDS] for r in rows]
    mean = plan.algorithm in ("orpo", "simpo") or plan.loss_type in ("ipo", "simpo")
    values = []
    for (chosen, rejected), ref in zip(ends, refs, strict=True):
        scale = [chosen[1], rejected[1]] if mean else [1, 1]
        compared = [0 * r if free else r / s for r, s in zip(ref, scale, strict=True)]
        values.append([chosen[0] / scale[0], rejected[0] / scale[1], *compared])
    rewards = torch.stack([plan.beta * (v[0] - v[2] + v[1] - v[3]) for v in values])
    delta = rewards.detach().sum().item() / (2 * len(values))
    if plan.loss_type in OVER_MICRO_BATCHES:
        w, l, rw, rl = (torch.stack(column) for column in zip(*values, strict=True))  # noqa: E741
        if plan.loss_type == "aot":
            x = (w - l).sort().values - (rw - rl).sort().values
        else:
            x = (w - rw).sort().values - (l - rl).sort().values
        e = plan.label_smoothing
        losses = -(1 - e) * torch.log(sigmoid(plan.beta * x)) - e * torch.log(sigmoid(-plan.beta * x))
    else:
        losses = torch.stack([preference(plan, *v, delta) for v in values])
    nll = -sum(chosen[0] for chosen, _ in ends) / sum(chosen[1] for chosen, _ in ends)
    return losses.mean() + plan.nll_weight * nll


# What is tested: an optimizer step of any split.


def step(objective: Objective, model: nn.Module, batches: list[Batch]) -> tuple[Tensor, Tensor]:
    """Loss and gradient of an optimizer step over micro-batches, as the Trainer divides them."""
    model.zero_grad()
    divisor = torch.stack([objective.denominator(batch) for batch in batches]).sum(0)
    objective.begin_step(model, batches)
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches:
        loss = (objective.sums(model, batch).loss / divisor).sum()
        loss.backward()
        total += loss.detach()
    return total, torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])


def assert_equal(loss: Tensor, gradient: Tensor, expected_loss: Tensor, expected_gradient: Tensor) -> None:
    """Equal but for the normalisation layers, which compute in fp32 whatever the model is in."""
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=1e-8)
    assert (gradient - expected_gradient).norm() <= 1e-5 * expected_gradient.norm()


@pytest.fixture(scope="module")
def policy() -> PreTrainedModel:
    return float64_model(1)


@pytest.fixture(scope="module")
def reference() -> PreTrainedModel:
    return float64_model(2)


@pytest.mark.parametrize("plan", PAIR_CASES, ids=name_of)
def test_pairs(plan: LossPlan, policy: PreTrainedModel, reference: PreTrainedModel) -> None:
    rows = pairs(trained_prompt=plan.algorithm == "orpo")
    expected = oracle(plan, policy, reference, rows)
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(expected, list(policy.parameters()))])
    frozen = Frozen(reference) if plan.algorithm == "dpo" else None
    splits = ((6,),) if plan.loss_type in OVER_MICRO_BATCHES else ((6,), (2, 4), (1,) * 6)
    for flat, share in ((True, True), (True, False), (False, False)):
        collate = CollatePairs(flat, 0, share)
        for sizes in splits if share else splits[:1]:
            taken = iter(rows)
            batches = [collate([next(taken) for _ in range(size)]) for size in sizes]
            objective = PairObjective(METHODS[plan.algorithm], plan, AnswerLogProbs(policy), frozen)
            loss, grad = step(objective, policy, batches)
            assert_equal(loss, grad, expected.detach(), gradient)


def test_sharing_takes_fewer_tokens_and_reaches_into_the_answers() -> None:
    rows = pairs()
    apart, shared = CollatePairs(True, 0)(rows), CollatePairs(True, 0, True)(rows)
    assert shared["input_ids"].numel() < 0.75 * apart["input_ids"].numel()
    assert torch.equal(apart["targets"], shared["targets"])


@pytest.mark.parametrize("loss", ALGORITHMS["kto"].losses)
@pytest.mark.parametrize("flat", [True, False])
def test_kto(loss: str, flat: bool, policy: PreTrainedModel, reference: PreTrainedModel) -> None:
    plan = case("kto", loss, desirable_weight=1.3, undesirable_weight=0.6)
    labels = [True, False, 1, 0, True, False]
    rows = [
        {"input_ids": p["chosen_input_ids"], "labels": p["chosen_labels"], "label": label, "row": p["row"]}
        for p, label in zip(pairs(), labels, strict=True)
    ]

    def kl_of(batch: list[dict[str, Any]]) -> float:
        total = 0.0
        for number, row in enumerate(batch):
            other = batch[(number + 1) % len(batch)]
            prompt = [t for t, y in zip(row["input_ids"], row["labels"], strict=True) if y == -100]
            answer = [t for t, y in zip(other["input_ids"], other["labels"], strict=True) if y != -100]
            mixed = prompt + answer, [-100] * len(prompt) + answer
            with torch.no_grad():
                total += float(summed(policy, *mixed)[0] - summed(reference, *mixed)[0])
        return max(0.0, total / len(batch)) if loss == "kto" else 0.0

    for size in (6, 3):
        losses = []
        for start in range(0, 6, size):
            kl = kl_of(rows[start : start + size])
            for row in rows[start : start + size]:
                with torch.no_grad():
                    ref = summed(reference, row["input_ids"], row["labels"])[0]
                r = summed(policy, row["input_ids"], row["labels"])[0] - ref
                if row["label"]:
                    losses.append(1.3 * (1 - sigmoid(0.3 * (r - kl))))
                else:
                    losses.append(0.6 * (1 - sigmoid(0.3 * (kl - r))))
        expected = torch.stack(losses).mean()
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(expected, list(policy.parameters()))])
        collate = CollateUnpaired(flat, 0, None, loss == "kto")
        batches = [collate(rows[start : start + size]) for start in range(0, 6, size)]
        value, grad = step(KtoObjective(plan, AnswerLogProbs(policy), Frozen(reference)), policy, batches)
        assert_equal(value, grad, expected.detach(), gradient)


def test_the_kl_of_kto_weighs_tokens_as_its_rewards_do() -> None:
    items = [
        {
            "input_ids": [5, 6, 7, 8],
            "labels": [-100, -100, 7, 8],
            "loss_scale": [0.0, 0.0, 2.0, 0.5],
            "label": 1,
            "row": 0,
        },
        {"input_ids": [9, 4], "labels": [-100, 4], "loss_scale": [0.0, 3.0], "label": 0, "row": 1},
    ]
    batch = CollateUnpaired(True, 0)(items)
    assert batch["kl"]["targets"].tolist() == [4, 7, 8]
    assert batch["kl"]["weights"].tolist() == [3.0, 2.0, 0.5]


def test_log1mexp_near_both_ends() -> None:
    log_p = torch.tensor([-1e-12, -1e-6, -0.5, -0.7, -30.0], dtype=torch.float64)
    expected = [math.log(-math.expm1(float(x))) if x > -1 else math.log1p(-math.exp(float(x))) for x in log_p]
    torch.testing.assert_close(log1mexp(log_p), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    assert torch.isfinite(log1mexp(torch.zeros(1)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
