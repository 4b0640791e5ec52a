"""The model that the trained one is compared with: without its adapter, as it was at the start, or another one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
import transformers
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from swift import models, tuners
from swift.core.errors import NotBuilt, SwiftError
from swift.data.preprocess import code_digest
from swift.params.checkpoint_args import read_saved
from swift.plan.model import ModelPlan
from swift.plan.rlhf import ReferencePlan
from swift.plan.sft import SftPlan
from swift.training.objectives import Batch, Setting
from swift.training.objectives.answer_log_probs import AnswerLogProbs, TokenScores

FILE = "reference.safetensors"
"""The trained weights as they were at the start of the run, in its checkpoints."""


class Reference(Protocol):
    """Something that scores answers like the reference."""

    def sums(self, batch: Batch) -> Tensor:
        """(A) log-probabilities of the answers of a batch, fp32, without gradient."""
        ...

    def log_probs(self, batch: Batch) -> Tensor:
        """(N) those of their tokens. Not known to one that was asked before (`Scored`)."""
        ...

    def save(self, folder: Path) -> None:
        """Write into a checkpoint what a resumed run needs to have the same reference."""
        ...


def build_reference(
    setting: Setting, plan: ReferencePlan, answers: AnswerLogProbs, *, beforehand: bool = False
) -> Reference:
    """The reference of a run; `answers` scores with the trained model. Loads a second model where the plan has one.

    One that is asked `beforehand` is whole, so that processes need not ask it together.
    """
    if plan.kind == "model":
        return Scored() if setting.scored else OtherModel(setting, plan, answers.temperature, whole=beforehand)
    within = _within(setting, plan, answers)
    asked = not beforehand and not setting.scored
    if setting.plan.train.shards_weights and asked and isinstance(within, StartingWeights):
        raise NotBuilt(
            "a reference that is asked while training is not built yet where weights are shared out",
            where="--precompute_ref_log_probs",
            next="add --precompute_ref_log_probs true",
        )
    return Scored(within) if setting.scored else within


def identity(setting: Setting, plan: ReferencePlan) -> str:
    """Hex digest of all that decides how the reference scores a row: weights, how they are loaded, and code."""
    model, folder = _other(setting, plan) if plan.kind == "model" else (setting.plan.model, setting.source)
    facts = [
        code_digest("swift.models", "swift.training", "swift.training.objectives"),
        (transformers.__version__, torch.__version__),
        replace(model, entry=None, token=None, adapter=None),
        setting.plan.train.dtype,
        models.identity(folder),
    ]
    digest = hashlib.sha256(repr(facts).encode())
    if plan.kind != "model":
        within = _within(setting, plan, AnswerLogProbs(setting.base))
        for name, tensor in within.weights():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _within(setting: Setting, plan: ReferencePlan, answers: AnswerLogProbs) -> WithoutAdapter | StartingWeights:
    """A reference that is made of the trained model."""
    resumed = setting.continued
    stored = resumed / FILE if resumed is not None else None
    if stored is not None and stored.is_file():
        return StartingWeights(setting.model, answers, load_file(stored))
    if plan.kind == "start" and resumed is not None:
        raise SwiftError(
            f"{resumed} does not hold the reference it was trained against ({FILE})",
            where="--resume_from_checkpoint",
            next="add --resume_only_model true to start a new run from its weights",
        )
    if plan.kind == "start":
        return StartingWeights(setting.model, answers, None)
    return WithoutAdapter(setting.model, answers)


class WithoutAdapter:
    """The base below the adapter."""

    def __init__(self, model: nn.Module, answers: AnswerLogProbs):
        self._model, self._answers = model, answers

    @torch.no_grad()
    def sums(self, batch: Batch) -> Tensor:
        """See Reference."""
        return self._scores(batch).sums()

    def log_probs(self, batch: Batch) -> Tensor:
        """See Reference."""
        return self._scores(batch).log_probs

    @torch.no_grad()
    def _scores(self, batch: Batch) -> TokenScores:
        with evaluating(self._model), tuners.without_adapter(self._model):
            return self._answers(self._model, batch)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Nothing besides the base."""
        yield from ()

    def save(self, folder: Path) -> None:
        """Nothing: the base is the base."""


class StartingWeights:
    """The trained model with its trained weights put back to what they were at the start (or to `stored`)."""

    def __init__(self, model: nn.Module, answers: AnswerLogProbs, stored: Mapping[str, Tensor] | None):
        self._model, self._answers = model, answers
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if stored is not None and trained.keys() != stored.keys():
            raise SwiftError(f"{FILE} of the checkpoint does not fit the adapter", next="start a new run")
        self._pairs = [
            (p, p.detach().clone() if stored is None else stored[name].to(p.device, p.dtype))
            for name, p in trained.items()
        ]
        self._names = list(trained)

    @torch.no_grad()
    def sums(self, batch: Batch) -> Tensor:
        """See Reference."""
        return self._scores(batch).sums()

    def log_probs(self, batch: Batch) -> Tensor:
        """See Reference."""
        return self._scores(batch).log_probs

    @torch.no_grad()
    def _scores(self, batch: Batch) -> TokenScores:
        with evaluating(self._model), self._swapped():
            return self._answers(self._model, batch)

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        now = [p.data for p, _ in self._pairs]
        for p, start in self._pairs:
            p.data = start
        try:
            yield
        finally:
            for (p, _), data in zip(self._pairs, now, strict=True):
                p.data = data

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The trained weights as they were at the start, by name."""
        yield from zip(self._names, (start for _, start in self._pairs), strict=True)

    def save(self, folder: Path) -> None:
        """The weights of the start."""
        save_file({name: start.contiguous() for name, start in self.weights()}, folder / FILE, {"format": "pt"})


class Scored:
    """A reference that has been asked already: the rows bring its answers. `kept` is what checkpoints need of it."""

    def __init__(self, kept: Reference | None = None):
        self._kept = kept

    def sums(self, batch: Batch) -> Tensor:
        """See Reference."""
        return batch["reference"]

    def log_probs(self, batch: Batch) -> Tensor:
        """See Reference."""
        raise NotImplementedError("sums are all that is known of the rows")

    def save(self, folder: Path) -> None:
        """As the reference that was asked."""
        if self._kept is not None:
            self._kept.save(folder)


class OtherModel:
    """A frozen model of its own."""

    def __init__(self, setting: Setting, plan: ReferencePlan, temperature: float = 1.0, *, whole: bool = True):
        model_plan, folder = _other(setting, plan)
        self._model: PreTrainedModel = models.load_model(model_plan, folder)
        self._model.requires_grad_(False)
        self._model.eval()
        if setting.flat and not setting.keep_inside(self._model):
            raise SwiftError(
                f"the reference model {model_plan.source} cannot take the batches of the trained model",
                where="--ref_model_id_or_path",
                why="its attention cannot be kept inside sequences",
                next="take a reference of the same architecture",
            )
        self._answers = AnswerLogProbs(self._model, temperature)
        if not whole:
            setting.share_out(self._model)
        elif setting.plan.train.shards_weights:  # loaded on the host, for shares to come from
            nn.Module.to(self._model, PartialState().device)

    @torch.no_grad()
    def sums(self, batch: Batch) -> Tensor:
        """See Reference."""
        return self._answers(self._model, batch).sums()

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """See Reference."""
        return self._answers(self._model, batch).log_probs

    def save(self, folder: Path) -> None:
        """Nothing: `sft_args.json` names it."""


def _other(setting: Setting, plan: ReferencePlan) -> tuple[ModelPlan, Path]:
    """Which model, and the folder of its files."""
    if plan.model is not None:
        return plan.model, models.fetch(plan.model)
    start, source = setting.plan.model, reference_source(setting.plan, setting.resume)
    if source is None or source == start.source:
        return start, setting.source
    return replace(start, source=source, hub="local", entry=None), Path(source)


def reference_source(plan: SftPlan, resume: Path | None) -> str | None:
    """Folder or hub id of a reference that is a model of its own, as `sft_args.json` keeps it; None for any other.

    A resumed run goes on with the reference of its first part, which may have started from another checkpoint.
    """
    reference = plan.alignment and plan.alignment.reference
    if not reference or reference.kind != "model":
        return None
    if reference.model is not None:
        return reference.model.source
    if resume is None:
        return plan.model.source
    return str(resume) if plan.train.group.resume_only_model else read_saved(resume).get("ref_model_id_or_path")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and back."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def starts_equal(setting: Setting, plan: ReferencePlan) -> bool:
    """Whether policy and reference must agree before the first step."""
    return setting.continued is None and (plan.kind == "start" or plan.model is None)
