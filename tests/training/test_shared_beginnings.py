"""What rows of a pass begin with alike is computed once, and nothing else changes."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from swift.cli import main
from swift.data.collator import flatten
from swift.data.packing import join
from swift.prompts.types import IGNORED
from swift.training.objectives.answer_log_probs import AnswerLogProbs
from swift.training.objectives.sft import SftObjective
from swift.training.passes import lay, passes_needed
from swift.training.preference_batches import answers
from swift.training.shared_beginnings import beginnings, flatten_shared, sized
from swift.training.varlen_attention import keep_inside_sequences
from training.kit import VOCABULARY, tiny_plan
from training.test_varlen_attention import models

Item = dict[str, Any]


def row(number: int, *parts: list[int], untrained: int | None = None, weighted: bool = False) -> Item:
    """A row of some tokens; all but the last part is untrained where nothing else is said."""
    ids = [token for part in parts for token in part]
    start = sum(map(len, parts[:-1])) if untrained is None else untrained
    item: Item = {"input_ids": ids, "labels": [IGNORED] * start + ids[start:], "row": number}
    if weighted:
        item["loss_scale"] = [1 + token % 3 for token in ids]
    return item


def tokens(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(3, VOCABULARY) for _ in range(count)]


SYSTEM, TOOLS, OTHER = tokens(20, 1), tokens(40, 2), tokens(30, 3)


def mixed(weighted: bool = False) -> list[Item]:
    """Two system texts, one of them with and without tools, rows without any, one twice, one that is all trained."""
    rows = [
        row(0, SYSTEM, tokens(5, 10), tokens(9, 11)),
        row(1, OTHER, tokens(3, 12), tokens(4, 13)),
        row(2, SYSTEM, TOOLS, tokens(6, 14), tokens(12, 15)),
        row(3, tokens(7, 16), tokens(8, 17)),
        row(4, SYSTEM, TOOLS, tokens(2, 18), tokens(3, 19)),
        row(5, SYSTEM, TOOLS, tokens(2, 18), tokens(3, 19)),
        row(6, OTHER, tokens(9, 20), tokens(5, 21)),
        row(7, SYSTEM, tokens(4, 22), tokens(30, 23), untrained=0),
        row(8, SYSTEM, tokens(4, 24), tokens(700, 25)),
        row(9, SYSTEM, TOOLS),
    ]
    return [{**each, "loss_scale": [1 + t % 3 for t in each["input_ids"]]} for each in rows] if weighted else rows


def of(model: PreTrainedModel, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Loss, hits and gradients."""
    model.zero_grad()
    sums = SftObjective(model).sums(model, {**batch, "items": 1})
    sums.loss.backward()
    gradients = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    return sums.loss.detach(), torch.stack(sums.metrics["acc"]), gradients


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", models())
def test_loss_and_gradient_are_those_of_rows_one_by_one(name: str, weighted: bool) -> None:
    model = models()[name]
    assert keep_inside_sequences(model)
    items = mixed(weighted)
    apart, shared = flatten(items), flatten_shared(items)
    assert shared["input_ids"].numel() < apart["input_ids"].numel() - 200
    assert shared["rows"] == apart["rows"]
    loss, hits, gradients = of(model, apart)
    for batch in (shared, flatten_shared([join(items[:4]), *items[4:6], join(items[6:])])):
        again, same_hits, same = of(model, batch)
        torch.testing.assert_close(again, loss, rtol=1e-6, atol=1e-6)
        assert torch.equal(same_hits, hits)
        for mine, theirs in zip(same, gradients, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)


def test_each_row_begins_with_the_one_that_has_most_in_common() -> None:
    items = sorted(mixed(), key=lambda item: item["input_ids"])
    left = dict(zip((item["row"] for item in items), beginnings(items), strict=True))
    with_tools = len(SYSTEM) + len(TOOLS)
    assert [left[number] for number in (9, 2, 4, 5)] == [0, with_tools, with_tools, with_tools]
    assert sorted((left[1], left[6])) == [0, len(OTHER)]
    assert left[3] == left[7] == 0  # nothing in common, and nothing that is not trained


def test_what_is_trained_and_what_it_is_predicted_from_stay_with_their_row() -> None:
    twice = [row(number, SYSTEM, tokens(5, 30), tokens(9, 31)) for number in range(2)]
    assert beginnings(twice) == [0, len(SYSTEM) + 5 - 1]
    untrained = [row(number, SYSTEM, untrained=len(SYSTEM)) for number in range(2)]
    assert beginnings(untrained) == [0, len(SYSTEM) - 1]


@pytest.mark.parametrize("seed", range(5))
def test_passes_are_filled_with_what_is_computed(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    rows = [row(i, SYSTEM, tokens(2, 60 + i), tokens(chance.randint(1, 9), 80 + i)) for i in range(24)]
    plan = tiny_plan(tmp_path, pass_tokens=60, shares_beginnings=True)
    sizes, room = sized(rows, plan)
    passes = [[rows[i] for i in numbers] for numbers in lay(sizes, passes_needed(sizes, room, 24), room)]
    assert sorted(item["row"] for items in passes for item in items) == list(range(24))
    assert all(flatten_shared(items)["input_ids"].numel() <= 60 for items in passes)
    apart, room = sized(rows, replace(plan, shares_beginnings=False))
    assert apart == [len(item["input_ids"]) for item in rows] and room.pass_tokens == 60
    assert 3 * len(passes) <= 2 * passes_needed(apart, room, 24)


def test_short_beginnings_are_left_where_they_are() -> None:
    items = [row(i, tokens(15, 1), tokens(10, 50 + i)) for i in range(4)]
    assert "prefix_lengths" not in flatten_shared(items)


def test_answers_to_one_prompt_are_predicted_as_one_by_one() -> None:
    prompts = [SYSTEM, [*SYSTEM, *TOOLS], OTHER]
    items = [row(0, prompt, tokens(size, 40 + size)) for prompt in prompts for size in (3, 1, 8, 5)]
    model = models()["llama with grouped keys"].eval()
    assert keep_inside_sequences(model)
    apart, shared = answers(items, True, 0), answers(items, True, 0, beginnings(items))
    saved = apart["input_ids"].numel() - shared["input_ids"].numel()
    assert saved == sum(3 * (len(prompt) - 1) for prompt in prompts)
    for name in ("targets", "answer"):
        assert torch.equal(shared[name], apart[name])
    assert torch.equal(shared["input_ids"][0, shared["last"]], apart["input_ids"][0, apart["last"]])
    with torch.no_grad():
        mine, theirs = (AnswerLogProbs(model)(model, batch).log_probs for batch in (shared, apart))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def with_system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    system = "You sort what is asked of you into one word, and give no reason for it. " * 2
    lines = [{"system": system, "query": f"Say {i}", "response": "so " * (i % 7) + "it"} for i in range(40)]
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def flags(model: Path, rows: Path, output: Path, **more: object) -> list[str]:
    given = {"max_steps": 3, "lora_dropout": 0, "batch_size": 4, "gradient_accumulation_steps": 2, "eval_steps": 3}
    given |= {"logging_steps": 1, "report_to": "none", "add_output_dir_suffix": "false", "dataset_test_ratio": 0.2}
    given |= {"model_id_or_path": model, "dataset": rows, "output_dir": output, **more}
    return ["sft", *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def logged(run: Path) -> list[dict[str, Any]]:
    names = ("loss", "grad_norm", "acc", "eval_loss", "eval_acc", "tokens")
    lines = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in names if name in line} for line in lines]


@pytest.mark.parametrize("how", [{}, {"micro_batching": "said"}, {"packing": "true", "max_length": 512}])
def test_a_run_learns_the_same(
    how: dict[str, object], with_system: Path, tiny_llama_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(tiny_llama_dir, with_system, tmp_path / "shared", **how)) == 0
    printed = capfd.readouterr()
    assert "begin with alike is computed once: " in printed.out + printed.err
    assert main(flags(tiny_llama_dir, with_system, tmp_path / "apart", share_prompts="false", **how)) == 0
    printed = capfd.readouterr()
    assert "begin with alike" not in printed.out + printed.err
    shared, apart = logged(tmp_path / "shared"), logged(tmp_path / "apart")
    assert len(shared) > 3
    for mine, theirs in zip(shared, apart, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"neftune_noise_alpha": 5}, "--neftune_noise_alpha"),
        ({"sft_type": "longlora"}, "--sft_type longlora"),
    ],
)
def test_what_cannot_share_says_so(
    given: dict[str, object],
    why: str,
    with_system: Path,
    tiny_llama_dir: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(flags(tiny_llama_dir, with_system, tmp_path / "run", share_prompts="true", **given)) == 2
    error = capfd.readouterr().err
    assert why in error and "--share_prompts" in error and "leave the flag out" in error


def test_rows_with_nothing_in_common_are_not_looked_at_again(
    tiny_llama_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    texts = ({"response": " ".join(map(str, tokens(30, i)))} for i in range(20))
    rows.write_text("".join(json.dumps(text) + "\n" for text in texts))
    words = flags(tiny_llama_dir, rows, tmp_path / "run", max_steps=1)
    assert main(["pt", *words[1:]]) == 0
    printed = capfd.readouterr()
    assert "begin with alike" not in printed.out + printed.err
