"""python bench/eval.py [--model FOLDER] [--questions N] [--shots N]

How fast multiple-choice questions are scored by the texts of their options: `swift eval` (the harness's task on our
engine) against lm-evaluation-harness with its own `hf` model, one request at a time and at its best batch size, in one
process, fp32, on the same questions. Model loading and the making of prompts do not count. Needs the extra `eval`.
Prints the ratios; exit code 1 when an answer differs, or a bar is missed: 3 times as fast as one at a time, 1.2 times
as fast as the best batch size.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

BATCHES = (4, 16, 64)
BARS = (3.0, 1.2)
ROUNDS = 2
KINDS = {
    "an animal that lives in the sea": ("whale", "octopus", "shark", "seal", "crab"),
    "a metal found in the ground": ("gold", "iron", "copper", "silver", "zinc"),
    "an instrument played with strings": ("violin", "guitar", "harp", "cello", "banjo"),
    "a planet that goes around the sun": ("Mars", "Venus", "Saturn", "Jupiter", "Neptune"),
    "a tree that loses its leaves": ("oak", "maple", "birch", "beech", "willow"),
    "a city on the coast of Europe": ("Lisbon", "Barcelona", "Naples", "Helsinki", "Dublin"),
    "a food made out of milk": ("cheese", "butter", "yogurt", "cream", "curd"),
}
TASK = """task: kinds
dataset_path: json
dataset_kwargs: {{data_files: {{train: {rows}, test: {rows}}}}}
test_split: test
fewshot_split: train
fewshot_config: {{sampler: first_n}}
num_fewshot: {shots}
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def questions(count: int) -> list[dict[str, Any]]:
    """Made-up questions with four options, each option a phrase."""
    draw = random.Random(0)
    rows = []
    for _ in range(count):
        kind = draw.choice(list(KINDS))
        thing = draw.choice(KINDS[kind])
        options = [kind, *draw.sample([other for other in KINDS if other != kind], 3)]
        draw.shuffle(options)
        place = draw.choice(("a museum", "a school", "a library", "a market", "a garden"))
        text = (
            f"A visitor of {place} reads the word {thing} on a sign and asks the guide what it means. "
            f"The guide explains it in one short phrase. Which of them describes the word {thing} best?"
        )
        rows.append({"question": text, "choices": options, "answer": options.index(kind)})
    return rows


def main() -> int:
    """Measure and print. -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model folder; SmolLM2-135M-Instruct without it")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.getLogger("lm_eval").setLevel(logging.ERROR)

    from swift.core.optional_imports import installed
    from train import smollm2

    if not installed("lm_eval"):
        print("not measured: it needs lm-evaluation-harness (pip install 'swift-llm[eval]')")
        return 0
    model = given.model or smollm2()
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in questions(given.questions)))
        task = Path(folder) / "kinds.yaml"
        task.write_text(TASK.format(rows=rows, shots=given.shots))
        return compare(model, task, given.batches)


def compare(model: Path, task: Path, batches: Sequence[int]) -> int:
    """Ours and theirs take turns. -> exit code."""
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=1)
    seconds: dict[str, list[float]] = {}
    answers: dict[str, list[tuple[float, bool]]] = {}
    with our_model(model, task) as (ours, requests):

        def run(name: str) -> float:
            start = time.perf_counter()
            if name == "ours":
                answers[name] = ours.loglikelihood(requests)
            else:
                theirs.batch_size_per_gpu = int(name.split()[1])
                answers[name] = theirs.loglikelihood(requests, disable_tqdm=True)
            seconds.setdefault(name, []).append(time.perf_counter() - start)
            return seconds[name][-1]

        ours.loglikelihood(requests[:8])  # both have read their weights once
        theirs.loglikelihood(requests[:8], disable_tqdm=True)
        best = min((f"hf {size}" for size in batches), key=run)
        for _ in range(ROUNDS):
            for name in ("ours", "hf 1", best):
                run(name)
    for name, each in seconds.items():
        print(f"{name:6} {min(each):7.2f} s ({', '.join(f'{one:.2f}' for one in each)})")
    ratios = [min(seconds[name]) / min(seconds["ours"]) for name in ("hf 1", best)]
    furthest = max(abs(a[0] - b[0]) for a, b in zip(answers["ours"], answers["hf 1"], strict=True))
    same = picks(answers["ours"]) == picks(answers["hf 1"])
    print(
        f"{ratios[0]:.2f} times as fast as one at a time (bar: {BARS[0]}), {ratios[1]:.2f} times as fast as {best} "
        f"(bar: {BARS[1]}); answers {'equal' if same else 'DIFFER'}, log-likelihoods within {furthest:.1e}"
    )
    return int(not same or any(ratio < bar for ratio, bar in zip(ratios, BARS, strict=True)))


@contextmanager
def our_model(model: Path, task: Path) -> Iterator[tuple[Any, list[Any]]]:
    """Our engine as a model of the harness, as `swift eval` makes it, and the requests of the task."""
    from swift.catalog import load_catalog
    from swift.core.probe import probe
    from swift.engines.factory import prepare
    from swift.evaluation.harness import EngineLM
    from swift.evaluation.harness_answerers import LocalHarness
    from swift.evaluation.harness_tasks import load_tasks
    from swift.evaluation.run_folder import new_run
    from swift.params.parse import parse
    from swift.plan.evaluation import plan_eval
    from swift.plan.infer import plan_infer

    words = ["--model_id_or_path", str(model), "--template_type", "default-generation", "--dtype", "fp32"]
    args = parse(["eval", *words, "--eval_dataset", str(task), "--eval_output_dir", str(task.parent / "out")])
    catalog = load_catalog()
    infer = plan_infer(args, catalog, probe(), answers_rows=False)
    plan = plan_eval(args, infer)
    tasks = load_tasks(plan)
    (made,) = tasks.tasks.values()
    made.build_all_requests()
    with new_run(plan.output, datetime.now()) as run, ExitStack() as stack:
        answerer = LocalHarness(plan, infer, prepare(infer, catalog))
        yield EngineLM(tasks, answerer, {}, run, plan.concurrent, stack), made.instances


def picks(answers: list[tuple[float, bool]]) -> list[int]:
    """The likeliest of each four options."""
    values = [value for value, _ in answers]
    return [max(range(4), key=values[at : at + 4].__getitem__) for at in range(0, len(values), 4)]


if __name__ == "__main__":
    sys.exit(main())
