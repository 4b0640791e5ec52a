"""What `swift eval` asks, whom, and where the answers go."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swift.core.errors import SwiftError, raise_together
from swift.core.log import log
from swift.params.args import Args
from swift.params.groups import Evaluate, Generate, Vllm
from swift.params.groups.evaluate import ChoiceScore
from swift.plan.benchmarks import Benchmark, plan_benchmarks
from swift.plan.infer import InferPlan, plan_sampling, say_greedy

Pattern = Literal["choice", "open"]
PATTERNS: Mapping[str, Pattern] = {"ceval": "choice", "general_mcq": "choice", "general_qa": "open"}
"""The names of `--custom_eval_config` for how the files of a suite are read."""
FEW_SHOT = 5
"""Solved questions in front of each question, where the suite has so many."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One entry of `--custom_eval_config`: questions of one kind in one folder."""

    name: str
    pattern: Pattern
    folder: Path
    subsets: tuple[str, ...]
    """Empty takes every subset that is there."""


@dataclass(frozen=True, kw_only=True)
class RemotePlan:
    """The server that is measured instead of a model of this machine."""

    url: str
    token: str | None = field(repr=False)
    model: str | None
    is_chat: bool | None
    """None takes a chat model."""
    timeout: float
    """Seconds to wait until it answers."""
    max_model_len: int | None


@dataclass(frozen=True, kw_only=True)
class EvalPlan:
    """Everything `swift eval` does, decided before anything heavy is imported."""

    suites: tuple[Suite, ...]
    """Own questions."""
    benchmarks: tuple[Benchmark, ...]
    """Standard ones; there are none beside own questions."""
    infer: InferPlan | None
    """The model of this machine; None with a server."""
    remote: RemotePlan | None
    generate: Generate
    given: frozenset[str]
    """The flags of `generate` that were given, rather than left at their default."""
    rows: slice
    """Which questions of each subset are asked."""
    few_shot: int | None
    """Solved questions in front of each; None takes up to five of one's own, and what a benchmark says itself."""
    choice_scores: tuple[ChoiceScore, ...]
    output: Path
    """Folder of all runs of this name."""
    use_cache: bool
    concurrent: int
    """Questions under way at once."""
    compare: Path | None

    @property
    def short_letters(self) -> bool:
        """Whether an answer that is to be a letter is cut early."""
        return "max_new_tokens" not in self.given

    @property
    def shots(self) -> int:
        """Solved questions in front of each of one's own multiple-choice ones, where there are so many."""
        return FEW_SHOT if self.few_shot is None else self.few_shot

    @property
    def asks_choices(self) -> bool:
        """Whether there are multiple-choice questions."""
        return any(suite.pattern == "choice" for suite in self.suites)

    def summary(self) -> str:
        """The plan in a few lines."""
        lines = []
        if self.infer is not None:
            lines += [f"model:   {self.infer.model.summary()}", f"prompt:  template {self.infer.prompt.template_type}"]
        if self.remote is not None:
            kind = "completions of plain text" if self.remote.is_chat is False else "chat"
            lines.append(f"server:  {self.remote.url}, model {self.remote.model or 'the first it lists'}, {kind}")
        lines += [f"asked:   {each.name} ({each.path or each.task})" for each in self.benchmarks]
        for suite in self.suites:
            subsets = ", ".join(suite.subsets) or "every subset"
            lines.append(f"suite:   {suite.name} ({suite.pattern} questions) in {suite.folder}: {subsets}")
        if self.asks_choices:
            lines.append(f"choices: by {', '.join(self.choice_scores)}; the first is the score")
        lines.append(f"results: {self.output}")
        return "\n".join(lines)

    def facts(self) -> dict[str, str]:
        """What the report says of the run beside its scores."""
        facts = {"model": self.remote.url if self.remote is not None else ""}
        if self.infer is not None:
            model = self.infer.model
            facts = {"model": model.source, "adapter": model.adapter or "", "dtype": model.dtype or ""}
            facts["template"] = self.infer.prompt.template_type
        return {name: text for name, text in facts.items() if text}


def plan_eval(args: Args, infer: InferPlan | None) -> EvalPlan:
    """Decide what is asked; `infer` is the plan of the model where no server is measured. Raises SwiftError."""
    flags = args[Evaluate]
    benchmarks = _benchmarks(flags)
    if args.is_explicit("eval_backend") and flags.eval_backend != "Native":
        raise SwiftError(
            "questions are asked by this program itself",
            where=f"--eval_backend {flags.eval_backend}",
            next="leave it out; another harness can ask `swift deploy` at its URL",
        )
    compare = Path(flags.compare).expanduser() if flags.compare else None
    if compare is not None and not (compare / "questions.jsonl").is_file():
        raise SwiftError(f"{compare} holds no questions.jsonl", where="--compare", next="name the folder of a run")
    if not benchmarks:  # whose tasks say themselves how answers are sampled
        say_greedy(args[Generate], plan_sampling(args[Generate], {}))
    return EvalPlan(
        suites=read_config(Path(flags.custom_eval_config).expanduser()) if flags.custom_eval_config else (),
        benchmarks=benchmarks,
        infer=infer,
        remote=_remote(args, flags) if flags.eval_url else None,
        generate=args[Generate],
        given=frozenset(name for name in vars(args[Generate]) if args.is_explicit(name)),
        rows=_rows(flags.eval_limit),
        few_shot=flags.eval_few_shot,
        choice_scores=_choice_scores(flags.choice_scores),
        output=Path(flags.eval_output_dir).expanduser() / (flags.name or "default"),
        use_cache=flags.eval_use_cache,
        concurrent=flags.eval_nproc if flags.eval_url else flags.eval_batch_size,
        compare=compare,
    )


def _benchmarks(flags: Evaluate) -> tuple[Benchmark, ...]:
    """Those of `--eval_dataset`, unless there are own questions. Raises SwiftError where there is neither."""
    if flags.custom_eval_config:
        if flags.eval_dataset:
            log.warning("--eval_dataset is not asked: --custom_eval_config has own questions")
        return ()
    benchmarks = plan_benchmarks(flags.eval_dataset)
    if not benchmarks:
        raise SwiftError(
            "there are no questions",
            where="--custom_eval_config, --eval_dataset",
            next="name a benchmark, or a JSON list of your own suites; docs/evaluation.md has examples",
        )
    return benchmarks


def read_config(path: Path, flag: str = "--custom_eval_config") -> tuple[Suite, ...]:
    """The suites of a config file that `flag` names. Raises SwiftError for all that is wrong with it together."""
    try:
        entries = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SwiftError(f"{path} cannot be read", where=flag, why=str(error)) from error
    if not isinstance(entries, list) or not entries:
        raise SwiftError(
            f"{path} is not a list of suites",
            where=flag,
            next='write [{"name": …, "pattern": …, "dataset": …}]',
        )
    errors: list[SwiftError] = []
    suites: list[Suite] = []
    for number, entry in enumerate(entries, 1):
        try:
            suites.append(_suite(entry, f"{path}, entry {number}", path.parent))
        except SwiftError as error:
            errors.append(error)
    names = [suite.name for suite in suites]
    errors += [
        SwiftError(f"{path}: two suites are called {name}", next="give each a name of its own")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    raise_together(errors)
    return tuple(suites)


def _suite(entry: Any, where: str, home: Path) -> Suite:
    if not isinstance(entry, Mapping):
        raise SwiftError(f"{where}: it is no JSON object", next="write {name, pattern, dataset, subset_list}")
    unknown = sorted(entry.keys() - {"name", "pattern", "dataset", "subset_list"})
    if unknown:
        raise SwiftError(
            f"{where}: `{unknown[0]}` means nothing here", next="it has name, pattern, dataset, subset_list"
        )
    for key in ("name", "pattern", "dataset"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise SwiftError(f"{where}: `{key}` is missing or no text", next=f"add `{key}`")
    if entry["pattern"] not in PATTERNS:
        raise SwiftError(f"{where}: the pattern {entry['pattern']} is unknown", next=f"use {', '.join(PATTERNS)}")
    subsets = entry.get("subset_list") or []
    if not isinstance(subsets, list) or not all(isinstance(name, str) and name for name in subsets):
        raise SwiftError(f"{where}: `subset_list` is no list of names", next='write ["default"]')
    return Suite(
        name=entry["name"].strip(),
        pattern=PATTERNS[entry["pattern"]],
        folder=_folder(entry["dataset"], where, home),
        subsets=tuple(dict.fromkeys(subsets)),
    )


def _folder(text: str, where: str, home: Path) -> Path:
    """The folder of a suite, from the working directory or from where the config file lies."""
    given = Path(text).expanduser()
    for folder in (given, home / given):
        if folder.is_dir():
            return folder
        if folder.is_file():
            raise SwiftError(
                f"{where}: {text} is a file", next="name its folder, and the file in `subset_list`, without its ending"
            )
    raise SwiftError(f"{where}: there is no folder {text}", next=f"it is looked for in {Path.cwd()} and in {home}")


def _rows(limit: str | None) -> slice:
    """`10` is the first ten, `[2:5]` the third to the fifth. Raises SwiftError for anything else, and for none."""
    text = (limit or "").strip()
    if not text:
        return slice(None)
    match = re.fullmatch(r"(\d+)|\[?\s*(\d*)\s*:\s*(\d*)\s*\]?", text)
    if match is None:
        raise SwiftError(f"{limit} is neither a number nor a slice", where="--eval_limit", next="write 10 or [10:20]")
    number, low, high = match.groups()
    rows = slice(0, int(number)) if number else slice(int(low or 0), int(high) if high else None)
    if rows.stop is not None and rows.stop <= (rows.start or 0):
        raise SwiftError(f"{limit} leaves no question", where="--eval_limit", next="write 10 or [10:20]")
    return rows


def _choice_scores(names: tuple[ChoiceScore, ...]) -> tuple[ChoiceScore, ...]:
    if not names:
        raise SwiftError("a choice has to be scored somehow", where="--choice_scores", next="leave it out")
    return tuple(dict.fromkeys(names))


def _remote(args: Args, flags: Evaluate) -> RemotePlan:
    return RemotePlan(
        url=flags.eval_url or "",
        token=None if flags.eval_token == "EMPTY" else flags.eval_token,
        model=args.values["model_type"],
        is_chat=flags.eval_is_chat_model,
        timeout=float(flags.deploy_timeout),
        max_model_len=args[Vllm].max_model_len,
    )
