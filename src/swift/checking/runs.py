"""Short runs of the product's own training, each laid out in another way, and the numbers that they leave."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import Subset

from swift import tuners
from swift.checking import steps_by_hand
from swift.checking.by_hand import Ask
from swift.checking.formulas import Weighed
from swift.checking.subject import Subject
from swift.core.errors import Interrupted
from swift.data import Built
from swift.data.packing import PackedDataset
from swift.params.alignment import DEPENDS_ON_MICRO_BATCH
from swift.plan.train import TrainPlan
from swift.prompts.types import IGNORED
from swift.training import checkpoints
from swift.training.artifacts import saved_args
from swift.training.batches import Collate
from swift.training.loop import Run, train
from swift.training.objectives.answer_log_probs import AnswerLogProbs, TokenScores, token_counts
from swift.training.objectives.preference import SHIFT_FILE
from swift.training.objectives.sft import SftObjective
from swift.training.preference_batches import answers
from swift.training.prepare import Prepared
from swift.training.row_order import row_order
from swift.training.train import switch_off_dropout, with_model
from swift.training.trainer import SwiftTrainer

STEPS = 2
"""Of the runs that are compared: after the first the weights differ from what they were."""
INTERRUPTED_AT, UNINTERRUPTED = 1, 3
RATE, FULL_RATE = 1e-3, 1e-4
"""Learning rates of an adapter and of all weights: they move, and rounding is not blown up."""
FAR = 10
"""How much faster an adapter learns whose checkpoint is loaded elsewhere: each of its modules has to be missed."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the rows of an optimizer step reach the model; every step takes all of them."""

    batch_size: int
    accumulation: int
    pass_tokens: int | None = None
    packed: bool = False
    padded: bool = False
    asked: bool = False
    """A reference inside the model is asked in each step, as in runs that see a row once; else before training."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What a run leaves: one loss and one norm of the gradient a step, and what it trained before and after."""

    flat: bool
    """Rows lay end to end: the model was seen to keep its attention inside each."""
    losses: Sequence[float]
    gradients: Sequence[float]
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    alone: tuple[float, float] | None = None
    """Loss and norm of the gradient before the first step by the objective alone, where it was asked."""

    @property
    def moved(self) -> float:
        """The norm of all that the run changed."""
        return _distance(self.after, self.before)

    def differences(self, other: Numbers) -> dict[str, float]:
        """How far another run is off this one, as shares: its losses, its gradients, and what it did to the weights."""
        return {
            "loss": _most(self.losses, other.losses),
            "gradient": _most(self.gradients, other.gradients),
            "weights": _distance(self.after, other.after) / self.moved if self.moved else float("nan"),
        }

    def beside_the_objective(self) -> dict[str, float]:
        """How far the first step is off what the objective alone gives, as shares."""
        if self.alone is None:
            return {}
        loss, gradient = self.alone
        return {"loss": _most([loss], self.losses[:1]), "gradient": _most([gradient], self.gradients[:1] or [gradient])}


def numbers_of(subject: Subject, folder: Path, layout: Layout, *, alone: bool = False) -> Numbers:
    """Train `STEPS` steps without dropout, the rows laid out so; `alone` asks the objective before."""
    rows: Any = subject.rows
    if layout.packed:
        rows = PackedDataset(rows, max(int(rows.lengths.max()), subject.tokens // 2))
        layout = replace(layout, accumulation=len(rows))
    plan = replace(
        subject.plan.train,
        batch_size=layout.batch_size,
        accumulation=layout.accumulation,
        pass_tokens=layout.pass_tokens,
        learning_rate=_rate(subject),
    )
    run = _run(_asking(subject) if layout.asked else subject, plan, rows, folder, steps=STEPS)
    switch_off_dropout(run.model)
    if layout.padded:
        run = replace(run, collate=replace(cast(Any, run.collate), flat=False))
    asked = _alone(run) if alone else None
    return replace(_numbers(run)[0], alone=asked)


def _alone(run: Run) -> tuple[float, float]:
    """The loss of all rows and the norm of its gradient: the sums of the objective over its own denominators.

    A training step that scales either of them does so in every layout of rows, where no comparison shows it.
    """
    run.model.train()
    trained = [weight for weight in run.model.parameters() if weight.requires_grad]
    batch: Any = send_to_device(run.collate([run.train[number] for number in range(len(run.train))]), trained[0].device)
    with torch.autocast(trained[0].device.type, torch.bfloat16, enabled=run.plan.dtype == "bf16"):
        sums = run.objective.sums(run.model, batch)
    loss = (sums.loss / run.objective.denominator(batch).to(sums.loss.device)).sum()
    term = tuners.regularizer(run.model)
    loss = loss if term is None else loss + term
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    return loss.item(), sum(float(one.double().square().sum()) for one in gradients if one is not None) ** 0.5


def stepped(subject: Subject, folder: Path, reference: Ask) -> tuple[float, str]:
    """How far the weights are off after steps of half of the rows each, from those that are stepped by hand.

    -> the share, and the weights of which it is.
    """
    rows, half = subject.rows, len(subject.rows) // 2
    at_once = half if _together(subject) else max(1, half - 2)
    plan = replace(subject.plan.train, batch_size=at_once, accumulation=-(-half // at_once))
    run = _run(subject, plan, rows, folder, steps=steps_by_hand.OF)
    switch_off_dropout(run.model)
    run.model.train()
    orders = [row_order(len(rows), plan.data_seed + epoch) for epoch in range(steps_by_hand.STEPS)]
    steps = [[rows[number] for number in part] for order in orders for part in (order[:half], order[half:])]
    before = _weights(run.model, every=False)
    settings, rates = steps_by_hand.walk(subject, run.model, steps[: steps_by_hand.STEPS], reference)
    walked = _weights(run.model, every=False)
    _put({name: weight for name, weight in run.model.named_parameters() if name in before}, before)
    numbers = _numbers(replace(run, plan=settings.told(subject, run.plan), last_step=steps_by_hand.STEPS))[0]
    return steps_by_hand.furthest(walked, before, numbers.after, rates)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A run of three steps that saves each, with the user's own dropout, as it was never stopped."""

    run: Run
    """With its model as it ended."""
    numbers: Numbers
    trainer: SwiftTrainer
    rate: float
    """Its learning rate."""
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Of the last step."""
        return self.folder / f"checkpoint-{UNINTERRUPTED}"

    def evaluated(self, numbers: Sequence[int]) -> float:
        """The loss of an evaluation with the weights as they are, over some of the rows they were trained on."""
        self.trainer.eval_dataset = Subset(self.run.train, numbers)
        return self.trainer.evaluate()["eval_loss"]

    def shift(self, _rewards: Sequence[float]) -> float:
        """The mean of all rewards of the run, of a loss that keeps it."""
        kept = json.loads((self.checkpoint / SHIFT_FILE).read_text(encoding="utf-8"))
        return kept["total"] / kept["count"]

    @contextmanager
    def likelier(self, rows: Sequence[dict[str, Any]], more: bool) -> Iterator[None]:
        """The weights two steps from where they started, towards what rows of text train or away from it."""
        trained = {name: weight for name, weight in self.run.model.named_parameters() if name in self.numbers.after}
        _put(trained, self.numbers.before)
        optimizer = torch.optim.Adam(trained.values(), lr=self.rate)
        self.run.model.eval()
        for _ in range(STEPS):
            optimizer.zero_grad()
            (self._scores(rows).log_probs.sum() * (-1 if more else 1)).backward()
            optimizer.step()
        optimizer.zero_grad()
        yield
        _put(trained, self.numbers.after)

    def weighed(self, rows: Sequence[dict[str, Any]]) -> list[Weighed]:
        """The log-probabilities of what each row of text trains, by the model as it is, row by row."""
        self.run.model.eval()
        with torch.no_grad():
            told = [self._scores([row]) for row in rows]
        return [
            Weighed(scores.sums()[0].double().cpu(), float(token_counts(scores.batch)), len(scores.log_probs))
            for scores in told
        ]

    def _scores(self, rows: Sequence[dict[str, Any]]) -> TokenScores:
        model, collate = self.run.model, cast(Any, self.run.collate)
        batch: Any = send_to_device(answers(rows, collate.flat, collate.pad_id), next(model.parameters()).device)
        return AnswerLogProbs(tuners.base_model(model))(model, batch)


def whole(subject: Subject, folder: Path) -> Whole:
    """Train it."""
    run = _run(_asking(subject), _uninterrupted(subject, saves=True), subject.rows, folder, steps=UNINTERRUPTED)
    run = replace(run, val=run.train)
    numbers, trainer = _numbers(run)
    return Whole(run=run, numbers=numbers, trainer=trainer, rate=_far(subject), folder=folder)


def resumed(subject: Subject, of: Whole, folder: Path) -> Numbers:
    """The same run from its first checkpoint on."""
    checkpoint = of.folder / f"checkpoint-{INTERRUPTED_AT}"
    checkpoints.require(checkpoint, whole_state=True)
    plan = _uninterrupted(subject, saves=True)
    return _numbers(_run(_asking(subject), plan, subject.rows, folder, steps=UNINTERRUPTED, resume=checkpoint))[0]


def recomputed(subject: Subject, folder: Path) -> Numbers:
    """The same run with activations that are computed again, the very dropout of the first time included."""
    plan = replace(_uninterrupted(subject, saves=False), recompute=True)
    return _numbers(_run(_asking(subject), plan, subject.rows, folder, steps=UNINTERRUPTED))[0]


def _uninterrupted(subject: Subject, *, saves: bool) -> TrainPlan:
    """A step takes half of the rows, so their order counts too."""
    train, half = subject.plan.train, len(subject.rows) // 2
    return replace(
        train,
        group=train.group.replace(save_strategy="steps" if saves else "no", max_steps=UNINTERRUPTED),
        batch_size=half,
        eval_batch_size=len(subject.rows) if _together(subject) else half,
        learning_rate=_far(subject),
        save_steps=INTERRUPTED_AT,
        save_total_limit=None,
    )


def _together(subject: Subject) -> bool:
    """Whether the loss of a row depends on the others of its micro-batch."""
    alignment = subject.plan.alignment
    return alignment is not None and alignment.loss.loss_type in DEPENDS_ON_MICRO_BATCH


def _asking(subject: Subject) -> Subject:
    """The subject whose reference, where it lies in the model, is asked in each step, unless flags say otherwise."""
    alignment = subject.plan.alignment
    reference = None if alignment is None else alignment.reference
    if alignment is None or reference is None or reference.kind == "model" or reference.precompute is not None:
        return subject
    alignment = replace(alignment, reference=replace(reference, precompute=False))
    return replace(subject, prepared=replace(subject.prepared, plan=replace(subject.plan, alignment=alignment)))


def scores(run: Run, pairs: Sequence[dict[str, Any]]) -> list[float]:
    """The score of each better answer, and then of each worse one, by the reward model of the run."""
    device = next(run.model.parameters()).device
    run.model.eval()
    with torch.no_grad():
        moved: list[Any] = [send_to_device(run.collate([pair]), device) for pair in pairs]
        sums = [run.objective.sums(run.model, batch) for batch in moved]
    return [float(one.metrics[f"rewards/{side}"][0]) for side in ("chosen", "rejected") for one in sums]


def log_likelihoods(run: Run, rows: Sequence[dict[str, Any]], *, before: int = 0) -> list[float]:
    """The mean log-likelihood of the tokens that each conversation trains, by the model of the run, row by row.

    `before` is how many tokens are trained that stand before those of the row, as in front of a decoder's answers.
    """
    means = []
    device = next(run.model.parameters()).device
    run.model.eval()
    collate: Any = run.collate
    objective = run.objective
    if not isinstance(objective, SftObjective):
        collate = Collate(collate.flat, collate.pad_id)
        objective = SftObjective(tuners.base_model(run.model))
    with torch.no_grad():
        for row in rows:
            batch: Any = send_to_device(collate([row]), device)
            batch["predicted_at"] = batch["predicted_at"][before:]
            total = objective.sums(run.model, batch).loss
            means.append(-float(total) / len(batch["predicted_at"]))
    return means


def unweighted(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with every label that is the token of its place, each counting the same."""
    ids = row["input_ids"]
    labels = [label if label == token else IGNORED for label, token in zip(row["labels"], ids, strict=True)]
    shown = {"media": row["media"]} if "media" in row else {}
    return {"input_ids": ids, "labels": [IGNORED, *labels[1:]], "row": row["row"], **shown}


def _run(subject: Subject, plan: TrainPlan, rows: Any, folder: Path, *, steps: int, resume: Path | None = None) -> Run:
    folder.mkdir(parents=True)
    whole = replace(subject.plan, train=plan)
    prepared: Prepared = replace(
        subject.prepared, plan=whole, built=Built(rows, None, rows[0]), steps=steps, per_epoch=1
    )
    template = prepared.encoder.template_type
    arguments = saved_args(subject.args, whole, subject.machine, folder, template)
    return with_model(prepared, arguments, folder, resume)


def _rate(subject: Subject) -> float:
    return FULL_RATE if subject.plan.tuner.sft_type == "full" else RATE


def _far(subject: Subject) -> float:
    return _rate(subject) * (1 if subject.plan.tuner.sft_type == "full" else FAR)


def _numbers(run: Run) -> tuple[Numbers, SwiftTrainer]:
    every = run.plan.lisa is not None  # whose layers take turns, so none of them is trained all the time
    before = _weights(run.model, every)
    try:
        trainer = train(run)
    except Interrupted as stopped:  # its advice is how to go on with a run
        raise Interrupted("stopped by a signal", exit_code=stopped.exit_code) from stopped
    events = [event for event in trainer.state.log_history if "loss" in event]
    numbers = Numbers(
        flat=cast(Any, run.collate).flat,
        losses=[event["loss"] for event in events],
        gradients=[event["grad_norm"] for event in events if "grad_norm" in event],
        before=before,
        after=_weights(run.model, every),
    )
    return numbers, trainer


def _weights(model: nn.Module, every: bool) -> dict[str, Tensor]:
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if every or p.requires_grad}


@torch.no_grad()
def _put(trained: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, weight in trained.items():
        weight.copy_(values[name])


def _most(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference, as a share of the first."""
    if len(mine) != len(theirs):
        return float("nan")
    shares = [abs(a - b) / abs(a) if a else abs(a - b) for a, b in zip(mine, theirs, strict=True)]
    return float("nan") if any(share != share for share in shares) else max(shares, default=0.0)


def _distance(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    if mine.keys() != theirs.keys():
        return float("nan")
    return float(sum((mine[name].double() - theirs[name].double()).square().sum() for name in mine)) ** 0.5
