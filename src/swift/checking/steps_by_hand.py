"""The steps of a run once more, in plain torch: rows one by one, clipping, decay, AdamW and a schedule in closed form.

Of training nothing takes part but the model and its rows: what every layout of rows has in common behind the gradient,
and could have wrong together, shows here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from swift.checking import by_hand
from swift.checking.by_hand import Ask, Rows
from swift.checking.formulas import Weighed
from swift.checking.subject import Subject
from swift.models.value_head import NAME
from swift.params.groups import Optim
from swift.plan.methods import METHODS
from swift.plan.sft import plan_sft
from swift.plan.train import TrainPlan
from swift.prompts.types import IGNORED

STEPS, WARM_UP, OF = 3, 1, 5
"""Steps that are taken, those of them with a rising rate, and of how many steps the schedule is."""
RATE = 1e-2
"""High enough for each weight to move by far more than rounding, that of bf16 too."""
SCALE = 0.5
"""How much of a gradient clipping leaves, and what a step takes from a usual weight by its decay, beside the rate."""
UNMOVED = 0.1
"""What a weight moves at least, as a share of the rates, before its kind is judged by how far it moved."""
SLOW_EMBEDDING = 1e-6
"""LoRA+ leaves the rate of adapters of embeddings as it is in its reference."""
UNDECAYED = re.compile(r"bias|layernorm|rmsnorm|(^|[._])norm([.]|$)")
Weights = Mapping[str, Tensor]


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "constant_with_warmup": lambda _: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}
"""The share of the highest rate by the share of the steps that are done, of those behind the warm-up."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What steps are told: flags, where a few steps would show what is wrong; else numbers with which they do."""

    rate: float
    epsilon: float
    decay: float
    limit: float

    @classmethod
    def seen_in(cls, first: Weights, weights: Weights, given: Optim) -> Settings:
        """By the first gradient: AdamW is blind to its size unless epsilon is about as large."""
        size = _norm(first)
        number = sum(gradient.numel() for gradient in first.values())
        usual = _norm(weights) / sum(weight.numel() for weight in weights.values()) ** 0.5
        return cls(
            rate=RATE,
            epsilon=SCALE * size / number**0.5,
            decay=SCALE / usual if given.weight_decay else 0.0,
            limit=SCALE * size if given.max_grad_norm else 0.0,
        )

    def told(self, subject: Subject, plan: TrainPlan) -> TrainPlan:
        """The plan of a run to which the flags say the same."""
        args = subject.args.with_values(
            learning_rate=self.rate,
            adam_epsilon=self.epsilon,
            weight_decay=self.decay,
            max_grad_norm=self.limit,
            warmup_steps=WARM_UP,
        )
        own = plan_sft(args, subject.catalog, subject.machine).train
        return replace(plan, learning_rate=own.learning_rate, optim=own.optim)


def why_not(subject: Subject) -> str | None:
    """Why steps are not taken by hand; None where they are."""
    plan = subject.plan
    train = plan.train
    left_out = {
        f"the optimizer {train.optim.optim}": train.optim.optim not in ("adamw_torch", "adamw_torch_fused"),
        f"the schedule {train.scheduler}": train.scheduler not in SCHEDULES or bool(train.scheduler_kwargs),
        "a step of GaLore": train.galore is not None,
        "a step of layers that take turns": train.lisa is not None,
        "what AdaLoRA does to ranks": plan.tuner.sft_type == "adalora",
        "a step of DeepSpeed": train.zero is not None,
        "a step of FSDP": train.fsdp is not None,
        "a gradient that is scaled for fp16": train.dtype == "fp16",
        "the gradient of media": subject.prepared.images is not None,
        "a mean over all steps so far": train.group.loss_name == "long-ce",
    }
    reason = next((what for what, is_so in left_out.items() if is_so), None)
    return by_hand.why_not(subject) if reason is None else f"{reason} is not computed by hand"


def walk(
    subject: Subject, model: nn.Module, rows_of_steps: Sequence[Rows], reference: Ask
) -> tuple[Settings, dict[str, float]]:
    """Take the steps with the model's own weights. -> what to tell a run, and the rates of each weight together."""
    given, ratio = subject.args[Optim], subject.plan.tuner.lora_lr_ratio
    beta1, beta2 = given.adam_beta1, given.adam_beta2
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    decayed = decaying(model)
    moments: dict[str, tuple[int, Tensor, Tensor]] = {}
    rewards: list[float] = []
    settings: Settings | None = None
    rates = dict.fromkeys(weights, 0.0)

    def shift(more: Sequence[float]) -> float:
        rewards.extend(more)
        return sum(rewards) / len(rewards)

    for number, rows in enumerate(rows_of_steps):
        gradients = _gradients(subject, model, rows, reference, shift)
        settings = settings or Settings.seen_in(gradients, weights, given)
        norm = _norm(gradients)
        clip = min(1.0, settings.limit / norm) if settings.limit else 1.0
        share = _schedule(subject.plan.train.scheduler, number)
        for name, gradient in gradients.items():
            own, decays = settings.rate, name in decayed
            if ratio is not None:
                own, decays = _of_loraplus(name, weights[name], own, ratio, decayed)
            own *= share
            rates[name] += own
            steps, first, second = moments.get(name, (0, torch.zeros_like(gradient), torch.zeros_like(gradient)))
            steps += 1
            first = beta1 * first + (1 - beta1) * clip * gradient
            second = beta2 * second + (1 - beta2) * (clip * gradient) ** 2
            moments[name] = steps, first, second
            direction = first / (1 - beta1**steps) / ((second / (1 - beta2**steps)).sqrt() + settings.epsilon)
            with torch.no_grad():
                weights[name].sub_(own * (settings.decay if decays else 0.0) * weights[name] + own * direction)
    assert settings is not None
    return settings, rates


def decaying(model: nn.Module) -> set[str]:
    """The names of what has weight decay: all but biases and what is, or is called, a norm."""
    norms = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters(recurse=False)
    }
    return {name for name, _ in model.named_parameters() if not UNDECAYED.search(name.lower())} - norms


def furthest(by_hand: Weights, before: Weights, after: Weights, rates: Mapping[str, float]) -> tuple[float, str]:
    """How far a run is off, as a share of what the weights of a kind were moved, and the kind that is most."""
    kinds: dict[str, list[str]] = {}
    for name in by_hand:
        kinds.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    shares = {}
    for kind, names in kinds.items():
        off, moved = (_norm({name: one[name] - by_hand[name] for name in names}) for one in (after, before))
        least = UNMOVED * sum(by_hand[name].numel() * rates[name] ** 2 for name in names) ** 0.5
        rounded = _norm({name: by_hand[name] * torch.finfo(by_hand[name].dtype).eps for name in names})
        off = 0.0 if off <= rounded else off - rounded
        shares[kind] = off / max(moved, least) if moved or off else 0.0
    worst = max(shares, key=lambda kind: math.inf if math.isnan(shares[kind]) else shares[kind])
    return shares[worst], worst


def _schedule(name: str, step: int) -> float:
    if name == "constant":
        return 1.0
    return step / WARM_UP if step < WARM_UP else SCHEDULES[name]((step - WARM_UP) / (OF - WARM_UP))


def _of_loraplus(name: str, weight: Tensor, rate: float, ratio: float, decayed: set[str]) -> tuple[float, bool]:
    """The rate of a weight, and whether it decays: B and vectors learn faster (arXiv 2402.12354)."""
    if "lora_embedding" in name:
        return SLOW_EMBEDDING, True
    if "lora_B" in name or weight.ndim == 1:
        return ratio * rate, name in decayed
    return rate, True


def _gradients(
    subject: Subject, model: nn.Module, rows: Rows, reference: Ask, shift: Callable[[Sequence[float]], float]
) -> dict[str, Tensor]:
    """Of the loss over rows."""
    scores, half = METHODS[subject.plan.method].scores, subject.plan.train.dtype == "bf16"

    def ask(rows: Rows) -> list[Weighed]:
        return [_weighed(model, row, scores=scores, half=half) for row in rows]

    by_hand.by_hand(subject, rows, ask, reference, shift).backward()
    gradients = {name: weight.grad.float() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return gradients


def _weighed(model: nn.Module, row: dict[str, Any], *, scores: bool, half: bool) -> Weighed:
    """By the model itself, which is given one row and nothing else."""
    ids, labels = row["input_ids"], row["labels"]
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        output = model(input_ids=torch.tensor([ids], device=device), use_cache=False, output_hidden_states=scores)
        if scores:
            score = model.get_submodule(NAME)(output.hidden_states[-1][0, -1])
            return Weighed(score.double().cpu().squeeze(), 1.0, 1)
    places = [place for place, label in enumerate(labels) if place and label != IGNORED]
    logits = output.logits[0, -len(ids) :][[place - 1 for place in places]].float()
    taught = torch.tensor([labels[place] for place in places], device=device)
    counts = [row["loss_scale"][place] if row.get("loss_scale") else 1.0 for place in places]
    told = logits.log_softmax(-1).gather(-1, taught[:, None])[:, 0]
    summed = (told * torch.tensor(counts, device=device)).sum()
    return Weighed(summed.double().cpu(), sum(counts), len(places))


def _norm(tensors: Weights) -> float:
    return sum(float(tensor.detach().double().square().sum()) for tensor in tensors.values()) ** 0.5
