"""The ten checks, in the order of the report; each compares two ways of the product that must agree."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from swift.checking import by_hand, runs, steps_by_hand
from swift.checking.runs import Layout, Numbers, Whole, log_likelihoods, numbers_of, unweighted
from swift.checking.served import AT_ONCE, Served, prompt_fault, questions, served
from swift.checking.subject import Planned, Subject, chosen, subject_of
from swift.checking.verdict import Result, Verdict, judged
from swift.core.errors import Interrupted, SwiftError
from swift.core.launch import torchrun_words
from swift.core.log import log, muted
from swift.core.machine import Machine
from swift.core.optional_imports import installed
from swift.core.writable import require_writable
from swift.exporting.merge import merge
from swift.params.alignment import DEPENDS_ON_MICRO_BATCH
from swift.params.parse import parse
from swift.plan.merge import NOT_MERGED, plan_merge
from swift.plan.methods import METHODS
from swift.plan.sft import plan_sft
from swift.training import process_group
from swift.training.preference_batches import end
from swift.training.smaller_batches import memory_explained

ALLOWED = {
    "fp32": {
        **{"loss": 5e-5, "gradient": 1e-3, "weights": 2e-2},
        **{"log-likelihood": 1e-4, "written": 2e-4, "score": 1e-3, "evaluated": 1e-4},
        "steps": 2e-3,
    },
    "bf16": {
        **{"loss": 5e-3, "gradient": 1e-1, "weights": 5e-1},
        **{"log-likelihood": 1e-2, "written": 5e-2, "score": 1e-1, "evaluated": 2e-2},
        "steps": 2e-1,
    },
}
"""How far two ways may differ, as shares, by the precision; fp16 is judged as bf16."""
OF_GALORE = {"weights": 2e-1}
"""The directions that gradients are projected on follow from their smallest parts too, which rounding moves."""
AFTER_A_PAUSE = {"loss": 1e-6, "gradient": 1e-5, "weights": 1e-5}
"""A resumed run does the very same again, on a GPU up to the order of its sums."""
NEAR_0 = 1e-2
"""A smaller loss is judged by the difference itself: of one that is 0 there is no share."""
FEWER_TOKENS = 4
"""Of each prompt's answer that a merge compares by itself: here it is compared on the rows too."""
NUMBERS = "numbers.pt"
FAULTS = (SwiftError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
"""What a fault of the product shows as, where it is no difference; it fails the check that met it."""


class Skip(Exception):
    """A check has nothing to compare here."""


class Checks:
    """The runs that several checks share, each made once, and the checks. A context manager."""

    def __init__(self, subject: Subject, folder: Path, words: Sequence[str]):
        """`words` are the command line, for the processes that are started with it; runs write below `folder`."""
        self.subject = subject
        self._folder = folder
        self._words = list(words)
        self._open = ExitStack()
        self._runs = 0
        self._began = False
        allowed = ALLOWED["fp32" if subject.plan.model.dtype == "fp32" else "bf16"]
        self._allowed = {**allowed, **OF_GALORE} if subject.plan.train.galore is not None else allowed

    def __enter__(self) -> Checks:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def results(self, names: Sequence[str] = ()) -> list[Result]:
        """All checks, or only those that are named, one after the other.

        Raises SwiftError where no run can begin: what refuses the first would refuse each.
        """
        return [self._result(name, check) for name, check in self.checks.items() if not names or name in names]

    @property
    def checks(self) -> dict[str, Callable[[str], Result]]:
        """The checks by name."""
        loaded = "adapter" if self.subject.plan.tuner.sft_type != "full" else "checkpoint"
        return {
            "batch x accumulation": self._batches,
            "flat = packed = padded": self._layouts,
            "gradient checkpointing on = off": self._recomputed,
            "one process = two": self._processes,
            "resumed = uninterrupted": self._resumed,
            "evaluated = by hand": self._evaluated,
            "steps = by hand": self._stepped,
            f"{loaded} saved = loaded": self._loaded,
            "merged = adapter": self._merged,
            "prompt of training = of the server": self._prompts,
        }

    def _result(self, name: str, check: Callable[[str], Result]) -> Result:
        log.info("checking: %s", name)
        started = time.monotonic()
        try:
            with muted(), memory_explained(self.subject.plan.train):
                result = check(name)
        except Skip as reason:
            result = Result(name=name, status="skipped", detail=str(reason))
        except Interrupted:
            raise
        except FAULTS as fault:
            if isinstance(fault, SwiftError) and not self._began:
                raise
            what = fault.what if isinstance(fault, SwiftError) else f"{type(fault).__name__}: {fault}"
            result = Result(name=name, status="failed", detail=" ".join(what.split()))
        return replace(result, seconds=time.monotonic() - started)

    # What several checks share.

    @cached_property
    def _plain(self) -> Numbers:
        """All rows in one flat batch."""
        layout = Layout(batch_size=len(self.subject.rows), accumulation=1)
        numbers = runs.numbers_of(self.subject, self._new_folder(), layout, alone=self._gradients_are_plain)
        self._began = True
        return numbers

    @cached_property
    def _whole(self) -> Whole:
        whole = runs.whole(self.subject, self._new_folder())
        self._began = True
        return whole

    @cached_property
    def _served(self) -> Served:
        return self._open.enter_context(served(self.subject, self._whole.checkpoint))

    @cached_property
    def _in_memory(self) -> list[float]:
        if self._scores:
            return runs.scores(self._whole.run, self._rows)
        images = self.subject.prepared.images
        before = 0 if images is None else len(images.family.opening[1:])
        return log_likelihoods(self._whole.run, self._texts, before=before)

    @property
    def _scores(self) -> bool:
        return METHODS[self.subject.plan.method].scores

    @property
    def _rows(self) -> list[dict[str, Any]]:
        return [self.subject.rows[number] for number in range(len(self.subject.rows))]

    @property
    def _texts(self) -> list[dict[str, object]]:
        return [unweighted(chosen(row)) for row in self._rows]

    def _new_folder(self) -> Path:
        self._runs += 1
        return self._folder / f"run-{self._runs}"

    def _numbers(self, layout: Layout) -> Numbers:
        return numbers_of(self.subject, self._new_folder(), layout)

    @property
    def _gradients_are_plain(self) -> bool:
        """Whether a step takes the gradient of all that is trained: layers of LISA take turns, fp16 is scaled."""
        train = self.subject.plan.train
        return train.lisa is None and train.galore is None and train.dtype != "fp16"

    def _against_plain(self, name: str, what: str, *layouts: Layout) -> Result:
        plain = self._plain
        if not plain.moved > 0:
            raise ValueError("two steps of training change no weight")
        differences = plain.beside_the_objective()
        for layout in layouts:
            for key, value in plain.differences(self._numbers(layout)).items():
                differences[key] = _larger(differences.get(key, 0.0), value)
        return judged(name, what, differences, self._allowed)

    # The checks.

    def _batches(self, name: str) -> Result:
        self._require_separate_rows()
        rows = len(self.subject.rows)
        half = max(int(self.subject.rows.lengths.max()), self.subject.tokens // 2)
        return self._against_plain(
            name,
            f"{rows} x 1 = 1 x {rows} = 1 x {rows} laid together",
            Layout(batch_size=1, accumulation=rows, asked=True),
            Layout(batch_size=1, accumulation=rows, pass_tokens=half),
        )

    def _layouts(self, name: str) -> Result:
        rows = len(self.subject.rows)
        padded = Layout(batch_size=rows, accumulation=1, padded=True)
        if not self._plain.flat:
            raise Skip("this model does not keep its attention inside rows that lie end to end, and gets padded ones")
        if self.subject.plan.alignment is not None:  # such rows are not packed
            return self._against_plain(name, "flat = padded", padded)
        return self._against_plain(name, "three ways", Layout(batch_size=1, accumulation=1, packed=True), padded)

    def _recomputed(self, name: str) -> Result:
        allowed = AFTER_A_PAUSE if self.subject.machine.device == "cpu" else self._allowed
        whole = self._whole.numbers
        again = runs.recomputed(self.subject, self._new_folder())
        return judged(name, "three steps", whole.differences(again), allowed)

    def _require_separate_rows(self) -> None:
        alignment = self.subject.plan.alignment
        if alignment is not None and alignment.loss.loss_type in DEPENDS_ON_MICRO_BATCH:
            raise Skip(f"the loss {alignment.loss.loss_type} compares the rows of a micro-batch with each other")

    def _require_texts(self) -> None:
        if self.subject.plan.alignment is not None and self.subject.prepared.images is not None:
            raise Skip("of pairs that show something it is compared by swift check sft")

    def _processes(self, name: str) -> Result:
        self._require_separate_rows()
        machine = self.subject.machine
        if machine.device != "cpu" and machine.device_count < 2:
            raise Skip(f"one {machine.device} device is here")
        try:
            plan_sft(self.subject.args, self.subject.catalog, machine_of_two(self.subject))
        except SwiftError as refused:
            raise Skip(refused.what) from None
        numbers = self._of_two_processes()
        return judged(name, "1 x all rows = 2 x half of them", self._plain.differences(numbers), self._allowed)

    def _of_two_processes(self) -> Numbers:
        folder = self._new_folder()
        folder.mkdir(parents=True)
        threads = str(max(1, (os.cpu_count() or 1) // 2))
        env = {"OMP_NUM_THREADS": threads, **os.environ, "NPROC_PER_NODE": "2", "SWIFT_CHECK_FOLDER": str(folder)}
        with (folder / "log").open("w") as output:
            words = torchrun_words(["check", *self._words], env)
            code = subprocess.run(words, env=env, stdout=output, stderr=output, check=False).returncode
        if code:
            last = [line for line in (folder / "log").read_text(errors="replace").splitlines() if line.strip()][-1:]
            raise ValueError(f"two processes ended with exit code {code}: {' '.join(last)}")
        return Numbers(**torch.load(folder / NUMBERS, weights_only=True))

    def _resumed(self, name: str) -> Result:
        allowed = AFTER_A_PAUSE if self.subject.machine.device == "cpu" else self._allowed
        again = runs.resumed(self.subject, self._whole, self._new_folder())
        return judged(name, "steps 2 and 3", self._whole.numbers.differences(again), allowed)

    def _evaluated(self, name: str) -> Result:
        if (reason := by_hand.why_not(self.subject)) is not None:
            raise Skip(reason)
        whole, rows = self._whole, self._rows
        ask = self._served.scored if self._scores else self._served.weighed
        mine = whole.evaluated(range(len(rows)))
        with by_hand.reference_of(self.subject, lambda: self._served) as reference:
            compute = partial(by_hand.by_hand, self.subject, reference=reference, shift=whole.shift)
            share = _share(mine, float(compute(rows, ask)))
            detail = f"{mine:.6g} by the formula over what the server tells"
            if numbers := by_hand.cornered(self.subject, rows):
                few, sides = [rows[number] for number in numbers], []
                for more in (True, False):
                    with whole.likelier(by_hand.beyond_the_corner(self.subject, few), more):
                        sides.append(whole.evaluated(numbers))
                        share = _larger(share, _share(sides[-1], float(compute(few, whole.weighed))))
                detail += f", {sides[0]:.6g} and {sides[1]:.6g} on both sides of its corner"
        return judged(name, detail, {"evaluated": share}, self._allowed)

    def _stepped(self, name: str) -> Result:
        if (reason := steps_by_hand.why_not(self.subject)) is not None:
            raise Skip(reason)
        with by_hand.reference_of(self.subject, lambda: self._served) as reference:
            share, most = runs.stepped(self.subject, self._new_folder(), reference)
        return judged(name, f"{steps_by_hand.STEPS} steps, most off {most}", {"steps": share}, self._allowed)

    def _loaded(self, name: str) -> Result:
        self._require_texts()
        return self._alike(name, self._served, written=True)

    def _merged(self, name: str) -> Result:
        plan = self.subject.plan
        self._require_texts()
        if plan.tuner.sft_type == "full":
            raise Skip("all weights are trained: there is no adapter")
        if plan.model.quant is not None:
            raise Skip("the base is quantized, and an adapter is merged into its full weights")
        if plan.tuner.sft_type in NOT_MERGED:
            raise Skip(f"{plan.tuner.sft_type} is more than another weight and is not merged")
        args = parse(["merge-lora", "--ckpt_dir", str(self._whole.checkpoint), "--dtype", plan.model.dtype])
        merged = merge(plan_merge(args, self.subject.catalog, self.subject.machine), new_tokens=FEWER_TOKENS)
        with served(self.subject, merged) as again:
            return self._alike(name, again)

    def _prompts(self, name: str) -> Result:
        if not (installed("fastapi") and installed("prometheus_client")):
            raise Skip("needs the server: pip install 'swift-llm[serve]'")
        if self._scores:
            raise Skip("a reward model gives scores, and no answers")
        self._require_texts()
        asked = questions(self.subject)
        if not asked:
            raise Skip("no row has a prompt of text")
        prompts = self._served.prompts([one.conversation for one, _ in asked if one.conversation is not None])
        for (question, row), prompt in zip(asked, prompts, strict=True):
            if (fault := prompt_fault(self.subject, prompt, row)) is not None:
                return Result(name=name, status="failed", detail=f"{question.origin}: {fault}")
        return Result(name=name, status="passed", detail=f"token for token in {len(asked)} rows")

    def _alike(self, name: str, served: Served, *, written: bool = False) -> Result:
        if self._scores:
            told = served.scores([end(row, side) for side in ("chosen_", "rejected_") for row in self._rows])
            largest = max(map(abs, self._in_memory))
            differences = {
                "score": _largest([abs(a - b) / largest for a, b in zip(self._in_memory, told, strict=True)])
            }
            return judged(name, "as trained", differences, self._allowed)
        told = served.log_likelihoods(self._texts)
        shares = [abs(a - b) / abs(a) for a, b in zip(self._in_memory, told, strict=True)]
        more = {"written": self._written(served)} if written and self.subject.prepared.images is None else {}
        return judged(name, "as trained", {"log-likelihood": _largest(shares), **more}, self._allowed)

    def _written(self, served: Served) -> float:
        """How likely answers are to the engine, which writes them token by token, and to the model that was trained."""
        answers = served.written(self._texts[:AT_ONCE])
        read = log_likelihoods(self._whole.run, [row for row, _ in answers])
        return _largest([abs(a - b) / max(abs(a), 1.0) for a, (_, b) in zip(read, answers, strict=True)])


def verdict_of(given: Planned, words: Sequence[str], names: Sequence[str] = ()) -> Verdict:
    """All checks of a run, or those that are named; `words` are its command line behind `swift check`."""
    started = time.monotonic()
    root = given.plan.train.output_dir
    require_writable(root, "--output_dir")
    subject = subject_of(given)
    log.info("swift check: %s", subject)
    with (
        tempfile.TemporaryDirectory(prefix=".tmp-check-", dir=root) as scratch,
        Checks(subject, Path(scratch), words) as checks,
    ):
        results = checks.results(names)
    command = shlex.join(["swift", "check", *words])
    return Verdict(subject=str(subject), results=results, command=command, seconds=time.monotonic() - started)


def machine_of_two(subject: Subject) -> Machine:
    """The machine as each of two processes sees it."""
    return replace(subject.machine, world_size=2, local_world_size=2)


def one_of_two(given: Planned, folder: Path) -> None:
    """What each of the two processes does: its half of the rows; the first leaves the numbers in `folder`."""
    with process_group.joined(given.plan.train), muted():
        subject = subject_of(given)
        rows = len(subject.rows) // 2
        numbers = numbers_of(subject, folder / f"rank-{subject.machine.rank}", Layout(batch_size=rows, accumulation=1))
        if subject.machine.first:
            torch.save(vars(numbers), folder / NUMBERS)


def _share(mine: float, theirs: float) -> float:
    return abs(mine - theirs) / max(abs(mine), NEAR_0)


def _largest(values: Sequence[float]) -> float:
    return float("nan") if any(value != value for value in values) else max(values)


def _larger(one: float, other: float) -> float:
    return _largest([one, other])
