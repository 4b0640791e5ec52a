"""`swift check` on a sound product passes, and each fault that is put into the product fails its check."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import swift.training.train
from swift import models, tuners
from swift.checking.checks import Checks
from swift.checking.subject import Subject, planned, subject_of
from swift.checking.verdict import Result
from swift.data import collator
from swift.engines import factory
from swift.training import artifacts
from swift.training.trainer import SwiftTrainer

IN_ONE_PROCESS = (
    "batch x accumulation",
    "flat = packed = padded",
    "gradient checkpointing on = off",
    "resumed = uninterrupted",
    "evaluated = by hand",
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


def labels_one_off(patch: pytest.MonkeyPatch, _: Path) -> None:
    predicted_at = collator._predicted_at
    patch.setattr(collator, "_predicted_at", lambda labels, follows: predicted_at(labels, follows)[1:])


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        (dropout_in_evaluation, "evaluated = by hand"),
        (labels_one_off, "evaluated = by hand"),
        (mean_of_means, "batch x accumulation"),
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


def test_layouts_of_a_model_that_gets_padded_rows_are_not_called_alike(
    check: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swift.training.train, "_keep_inside", lambda *_: False)  # as where attention leaks
    (result,) = check("flat = packed = padded")
    assert result.status == "skipped" and "padded" in result.detail
