"""`swift check` on a sound product passes, and each fault that is put into the product fails its check."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.engines.architectures import tiny_model
from transformers import AutoModelForCausalLM

import swift.training.train
from swift import models, tuners
from swift.checking.checks import Checks
from swift.checking.formulas import PAIRED, Weighed, number, paired
from swift.checking.steps_by_hand import decaying, furthest
from swift.checking.subject import Subject, planned, subject_of
from swift.checking.verdict import Result
from swift.data import collator
from swift.engines import factory
from swift.plan.rlhf import LossPlan
from swift.training import artifacts
from swift.training.objectives import orpo
from swift.training.objectives.dpo import LOSSES, dpo
from swift.training.objectives.kto import KtoObjective
from swift.training.objectives.pairs import Pairs
from swift.training.objectives.reference import evaluating
from swift.training.preference_batches import CollateUnpaired
from swift.training.trainer import SwiftTrainer

IN_ONE_PROCESS = (
    "batch x accumulation",
    "flat = packed = padded",
    "gradient checkpointing on = off",
    "resumed = uninterrupted",
    "evaluated = by hand",
    "steps = by hand",
    "adapter saved = loaded",
    "merged = adapter",
    "prompt of training = of the server",
)


@pytest.fixture(scope="module")
def words(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command line with rows of one turn and of several, with a system text and without."""
    folder = tmp_path_factory.mktemp("check")
    rows = [{"query": f"Say {i}", "response": "so " * (i % 7) + f"{i}"} for i in range(12)]
    rows[3] |= {"system": "Be short.", "history": [["Who are you?", "A model."]]}
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model_id_or_path", str(tiny_llama_dir), "--dataset", str(folder / "rows.jsonl")]
    return [*words, "--lora_dropout", "0.1", "--output_dir", str(folder / "output")]


@pytest.fixture(scope="module")
def subject(words: list[str]) -> Subject:
    """What is checked."""
    return subject_of(planned(words))


@pytest.fixture
def check(subject: Subject, words: list[str], tmp_path: Path) -> Callable[..., list[Result]]:
    """Runs the named checks."""

    def results(*names: str) -> list[Result]:
        with Checks(subject, tmp_path, words) as checks:
            return checks.results(names)

    return results


def test_a_sound_product_passes(check: Callable[..., list[Result]], subject: Subject) -> None:
    assert len(subject.rows) == 8
    results = check(*IN_ONE_PROCESS)
    assert [(result.name, result.status) for result in results] == [(name, "passed") for name in IN_ONE_PROCESS]
    assert all(value < 1e-4 for result in results for name, value in result.differences.items() if name != "weights")
    assert results[-1].detail == "token for token in 12 rows", "of all rows, not of the few that are trained on"


def mean_of_means(patch: pytest.MonkeyPatch, _: Path) -> None:
    whole = SwiftTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
        return whole(self, model, inputs, num_items_in_batch=len(inputs["predicted_at"]) * self._passes_of_step)

    patch.setattr(SwiftTrainer, "compute_loss", compute_loss)


def leaking_packed_rows(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setattr(collator, "segments", lambda item: [len(item["input_ids"])])


def another_base(patch: pytest.MonkeyPatch, folder: Path) -> None:
    decided = artifacts.decided

    def wrong(plan: Any) -> dict[str, Any]:
        model = AutoModelForCausalLM.from_pretrained(plan.model.source)
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.mul_(1.05)
        model.save_pretrained(folder / "other")
        for file in Path(plan.model.source).iterdir():
            if file.suffix != ".safetensors":
                shutil.copy(file, folder / "other")
        return {**decided(plan), "model_id_or_path": str(folder / "other")}

    patch.setattr(artifacts, "decided", wrong)


def another_base_that_nobody_compares(patch: pytest.MonkeyPatch, folder: Path) -> None:
    another_base(patch, folder)
    patch.setattr(models, "check_base", lambda *_: True)


def dropped_module(patch: pytest.MonkeyPatch, _: Path) -> None:
    save = tuners.save

    def forgetful(model: Any, folder: Path, *rest: Any, **named: Any) -> None:
        save(model, folder, *rest, **named)
        tensors = load_file(folder / "adapter_model.safetensors")
        kept = {name: tensor for name, tensor in tensors.items() if "layers.1.self_attn.v_proj" not in name}
        assert len(kept) < len(tensors)
        save_file(kept, folder / "adapter_model.safetensors", {"format": "pt"})

    patch.setattr(tuners, "save", forgetful)


def another_template(patch: pytest.MonkeyPatch, _: Path) -> None:
    build = factory.build_encoder
    patch.setattr(factory, "build_encoder", lambda plan, *rest: build(replace(plan, template_type="qwen"), *rest))


def another_template_that_nobody_compares(patch: pytest.MonkeyPatch, folder: Path) -> None:
    another_template(patch, folder)
    patch.setattr(factory, "require_same_template", lambda *_: None)


def dropout_in_evaluation(patch: pytest.MonkeyPatch, _: Path) -> None:
    loss_over = SwiftTrainer._loss_over

    def noisy(self: Any, model: Any) -> dict[str, float]:
        return loss_over(self, model.train())

    patch.setattr(SwiftTrainer, "_loss_over", noisy)


def training_loss_scaled(patch: pytest.MonkeyPatch, _: Path) -> None:
    whole = SwiftTrainer.compute_loss
    patch.setattr(SwiftTrainer, "compute_loss", lambda *given, **named: 1.01 * whole(*given, **named))


def labels_one_off(patch: pytest.MonkeyPatch, _: Path) -> None:
    predicted_at = collator._predicted_at
    patch.setattr(collator, "_predicted_at", lambda labels, follows: predicted_at(labels, follows)[1:])


def clipped_before_the_mean(patch: pytest.MonkeyPatch, _: Path) -> None:
    whole = SwiftTrainer.training_step

    def training_step(self: Any, model: Any, *rest: Any) -> torch.Tensor:
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        before = [weight.grad for weight in trained]
        model.zero_grad()
        loss = whole(self, model, *rest)
        torch.nn.utils.clip_grad_norm_(trained, self.args.max_grad_norm)
        for weight, gradient in zip(trained, before, strict=True):
            if gradient is not None:
                weight.grad += gradient
        return loss

    patch.setattr(SwiftTrainer, "training_step", training_step)


def last_batch_lost(patch: pytest.MonkeyPatch, _: Path) -> None:
    whole = SwiftTrainer.training_step

    def training_step(self: Any, model: Any, *rest: Any) -> torch.Tensor:
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        before = [None if weight.grad is None else weight.grad.clone() for weight in trained]
        loss = whole(self, model, *rest)
        if self.accelerator.sync_gradients and all(gradient is not None for gradient in before):
            for weight, gradient in zip(trained, before, strict=True):
                weight.grad = gradient
        return loss

    patch.setattr(SwiftTrainer, "training_step", training_step)


def told_otherwise(name: str, value: Any) -> Callable[[pytest.MonkeyPatch, Path], None]:
    """A setting of the optimizer that is not what the flags say."""

    def fault(patch: pytest.MonkeyPatch, _: Path) -> None:
        settings = SwiftTrainer.get_optimizer_cls_and_kwargs

        def others(*given: Any) -> tuple[Any, dict[str, Any]]:
            kind, own = settings(*given)
            return kind, {**own, name: value(own[name])}

        patch.setattr(SwiftTrainer, "get_optimizer_cls_and_kwargs", staticmethod(others))

    return fault


def no_decay(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setattr(SwiftTrainer, "get_decay_parameter_names", lambda *_: [])


def a_weight_left_out(patch: pytest.MonkeyPatch, _: Path) -> None:
    create = SwiftTrainer.create_optimizer

    def forgetful(self: Any, *given: Any) -> torch.optim.Optimizer:
        optimizer = create(self, *given)
        optimizer.param_groups[-1]["params"].pop()
        return optimizer

    patch.setattr(SwiftTrainer, "create_optimizer", forgetful)


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        (told_otherwise("lr", lambda rate: 2 * rate), "steps = by hand"),
        (told_otherwise("betas", lambda betas: betas[::-1]), "steps = by hand"),
        (clipped_before_the_mean, "steps = by hand"),
        (last_batch_lost, "steps = by hand"),
        pytest.param(no_decay, "steps = by hand", marks=pytest.mark.slow),
        pytest.param(a_weight_left_out, "steps = by hand", marks=pytest.mark.slow),
        (dropout_in_evaluation, "evaluated = by hand"),
        (labels_one_off, "evaluated = by hand"),
        (mean_of_means, "batch x accumulation"),
        (training_loss_scaled, "batch x accumulation"),
        (leaking_packed_rows, "flat = packed = padded"),
        pytest.param(another_base, "adapter saved = loaded", marks=pytest.mark.slow),
        (another_base_that_nobody_compares, "adapter saved = loaded"),
        pytest.param(another_base_that_nobody_compares, "merged = adapter", marks=pytest.mark.slow),
        pytest.param(dropped_module, "resumed = uninterrupted", marks=pytest.mark.slow),
        (dropped_module, "adapter saved = loaded"),
        pytest.param(another_template, "prompt of training = of the server", marks=pytest.mark.slow),
        (another_template_that_nobody_compares, "prompt of training = of the server"),
    ],
)
def test_a_fault_fails_its_check(
    fault: Callable[[pytest.MonkeyPatch, Path], None],
    caught_by: str,
    check: Callable[..., list[Result]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    fault(monkeypatch, tmp_path)
    (result,) = check(caught_by)
    assert result.status == "failed", result.line()


@pytest.fixture(scope="module")
def words_of_kto(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command line with good and bad answers."""
    folder = tmp_path_factory.mktemp("check-kto")
    rows = [{"query": f"Say {i}", "response": "so " * (i % 7) + f"{i}", "label": bool(i % 2)} for i in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["kto", "--model_id_or_path", str(tiny_llama_dir), "--dataset", str(folder / "rows.jsonl")]
    return [*words, "--output_dir", str(folder / "output")]


def sound(_: pytest.MonkeyPatch) -> None:
    """Nothing is wrong."""


def doubled_kl(patch: pytest.MonkeyPatch) -> None:
    distance = KtoObjective._distance
    patch.setattr(KtoObjective, "_distance", lambda *given: 2 * distance(*given))


def kl_below_0(patch: pytest.MonkeyPatch) -> None:
    def distance(self: Any, model: Any, batch: Any) -> torch.Tensor:
        reference = self._reference.sums(batch)
        with evaluating(model):
            return (self._answers(model, batch).sums() - reference).mean()

    patch.setattr(KtoObjective, "_distance", distance)


def kl_of_the_rows_own_answers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CollateUnpaired, "_with_answer_of", lambda _self, item, _other: item)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (sound, "passed"),
        (doubled_kl, "failed"),
        (kl_below_0, "failed"),
        (kl_of_the_rows_own_answers, "failed"),
    ],
)
def test_a_kl_of_kto_is_seen_on_both_sides_of_0(
    fault: Callable[[pytest.MonkeyPatch], None],
    status: str,
    words_of_kto: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    fault(monkeypatch)
    with Checks(subject_of(planned(words_of_kto)), tmp_path, words_of_kto) as checks:
        (result,) = checks.results(["evaluated = by hand"])
    assert result.status == status, result.line()
    assert fault is not sound or result.differences["evaluated"] < 1e-5


@pytest.mark.slow
def test_odds_of_orpo_are_seen_where_answers_are_likely(
    smollm2_dir: Path, words_of_kto: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [{"query": f"Say {i}", "response": "so " * (i % 7) + f"{i}", "rejected_response": "no"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["orpo", "--model_id_or_path", str(smollm2_dir), "--model_type", "smollm2-135m-instruct"]
    words += ["--dataset", str(tmp_path / "rows.jsonl"), "--output_dir", str(tmp_path / "output")]
    monkeypatch.setattr(orpo, "log1mexp", torch.zeros_like)
    with Checks(subject_of(planned(words)), tmp_path, words) as checks:
        (result,) = checks.results(["evaluated = by hand"])
    assert result.status == "failed", result.line()


@pytest.mark.parametrize("loss_type", sorted(LOSSES))
def test_a_loss_by_hand_is_that_of_training(loss_type: str) -> None:
    loss = LossPlan(algorithm="dpo", loss_type=loss_type, beta=0.3, label_smoothing=0.1)
    logs = torch.tensor([[-3.0, -6.0, -2.0], [-9.0, -4.0, -3.5], [-5.0, -3.0, -7.0], [-8.0, -2.0, -1.0]]).double()
    chosen, rejected, *reference = (tuple(Weighed(one, 4.0, 4) for one in each) for each in logs)
    mine, theirs = (list(zip(*ends, strict=True)) for ends in ((chosen, rejected), reference))
    tokens = torch.full((3,), 4.0)
    pairs = Pairs(logs[0], logs[1], tokens, tokens, logs[2], logs[3])
    told = float(paired(mine, theirs, loss, 0.2))
    assert told == pytest.approx(dpo(pairs, loss, torch.tensor(0.2)).losses.mean().item(), rel=1e-6)


def test_answers_of_probability_1_and_0_have_odds() -> None:
    certain, never = Weighed(number(0.0), 4.0, 4), Weighed(number(-4e4), 4.0, 4)
    loss = LossPlan(algorithm="orpo", loss_type="orpo", beta=0.1)
    for mine, expected in (((certain, certain), math.log(2)), ((certain, never), 0.0), ((never, certain), 1e4)):
        assert float(PAIRED["orpo"](mine, mine, loss)) / loss.beta == pytest.approx(expected, rel=2e-3)


def test_layouts_of_a_model_that_gets_padded_rows_are_not_called_alike(
    check: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swift.training.train, "_keep_inside", lambda *_: False)  # as where attention leaks
    (result,) = check("flat = packed = padded")
    assert result.status == "skipped" and "padded" in result.detail


@pytest.mark.parametrize("name", ["llama", "mamba", "xlstm", "dbrx"])
def test_what_decays_by_hand_is_what_decays_in_training(name: str) -> None:
    model = tiny_model(name)
    assert decaying(model) == set(SwiftTrainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]


@pytest.mark.parametrize(("off", "share"), [(6e-8, 0.0), (1e-3, 0.1), (math.nan, math.nan)])
def test_rounding_of_a_weight_is_no_difference_and_what_is_no_number_is_one(off: float, share: float) -> None:
    one = {"layers.0.weight": torch.ones(4), "layers.1.weight": torch.ones(4), "other.weight": torch.ones(4)}
    before = {name: weight - 1e-2 for name, weight in one.items()}
    told, kind = furthest(one, before, {**one, "other.weight": one["other.weight"] + off}, dict.fromkeys(one, 1e-2))
    assert told == pytest.approx(share, rel=1e-3, nan_ok=True) and (kind == "other.weight" or not share)
