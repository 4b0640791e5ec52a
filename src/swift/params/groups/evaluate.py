"""Measuring a model on benchmarks."""

from __future__ import annotations

from typing import Annotated, Literal

from swift.params.flag import Basic, Deprecated, Exists, Ours, Range
from swift.params.frozen import Frozen

ChoiceScore = Literal["letter", "text", "generated"]


class Evaluate(Frozen):
    """Measuring a model on benchmarks."""

    eval_dataset: Annotated[tuple[str, ...], Basic()] = ()
    """Standard benchmarks: our names, those of lm-evaluation-harness, task files (task.yaml) or folders of them;
    needs the extra `eval`. Ignored when custom_eval_config is set."""
    eval_limit: str | None = None
    """Rows per sub dataset: an integer or a slice such as [10:20]; None means all."""
    eval_backend: Literal["Native", "OpenCompass"] = "OpenCompass"
    """Harness that runs the benchmarks."""
    name: str = ""
    """Label of the run: results go to {eval_output_dir}/{name}, by default eval_outputs/default, in a directory
    named by time."""
    eval_url: str | None = None
    """OpenAI-compatible endpoint to evaluate instead of a model of this machine."""
    eval_token: str = "EMPTY"
    """Token of eval_url; not given, SWIFT_EVAL_TOKEN is read."""
    eval_is_chat_model: bool | None = None
    """With eval_url: whether the served model is a chat model (False: base model)."""
    custom_eval_config: Annotated[str | None, Exists()] = None
    """JSON list of own suites of questions: {name, pattern, dataset, subset_list}; see docs/evaluation.md."""
    eval_use_cache: bool = False
    """Take over the answers of earlier runs of this name to the same questions, and ask only the rest."""
    eval_output_dir: str = "eval_outputs"
    """Directory of the results."""
    eval_batch_size: Annotated[int, Range(1)] = 8
    """Questions under way at once in the engine."""
    eval_nproc: Annotated[int, Range(1)] = 16
    """Requests under way at once at eval_url."""
    choice_scores: Annotated[tuple[ChoiceScore, ...], Ours()] = ("letter", "text", "generated")
    """How a multiple-choice question is answered: by the likeliest letter, by the likeliest text of an option (a byte),
    by the letter in the written answer. The first is the score."""
    compare: Annotated[str | None, Ours()] = None
    """Folder of an earlier evaluation of the same questions, to compare with question by question."""
    deploy_timeout: Annotated[int, Range(1)] = 1800
    """Seconds to wait for the server at eval_url to come up."""
    eval_few_shot: Annotated[int | None, Deprecated("", works=True), Range(0)] = None
    """Solved questions before each multiple-choice question; None takes up to five, and what a benchmark
    says itself."""
