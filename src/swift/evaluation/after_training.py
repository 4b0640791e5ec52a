"""`--eval_after`: own questions for the base and for the tuned model, when a training has ended."""

from __future__ import annotations

import gc
import json
import shlex
from pathlib import Path

import torch

from swift.catalog import Catalog, load_catalog
from swift.core.errors import CheckFailed, Interrupted
from swift.core.log import log
from swift.core.probe import probe
from swift.evaluation.questions import read_suites
from swift.evaluation.run import evaluate
from swift.params.args import Args
from swift.params.groups import Data, Model
from swift.params.parse import parse
from swift.plan.evaluation import FEW_SHOT, plan_eval, read_config
from swift.plan.infer import plan_infer
from swift.training.run_dir import LOG, append


def require_questions(config: Path) -> None:
    """Raise SwiftError for questions that could not be asked, by file and line: before the training, not after it."""
    read_suites(read_config(config, "--eval_after"), slice(None), FEW_SHOT)


def evaluate_after(config: Path, checkpoint: Path, run_dir: Path) -> None:
    """Ask the base, then the tuned model, and print both side by side; their reports lie in `run_dir`/eval,
    and what changed stands in the log of the run.

    The weights of the training are let go of before. Raises CheckFailed, which names the checkpoint and how to ask it
    again, whatever goes wrong: the training is done, and stays so. Raises Interrupted on Ctrl-C.
    """
    words = ["--ckpt_dir", str(checkpoint), "--custom_eval_config", str(config)]
    again = shlex.join(["swift", "eval", *words])
    log.info("asking the base and the tuned model the questions of %s", config)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        args = parse(["eval", *words, "--eval_output_dir", str(run_dir / "eval")])
        catalog = load_catalog(args[Model].custom_register_path, args[Data].custom_dataset_info)
        base = _ask(args.with_values(ckpt_dir=None, name="base"), catalog)
        tuned = _ask(args.with_values(name="tuned", compare=str(base)), catalog)
        changes = json.loads((tuned / "report.json").read_text("utf-8"))["comparison"]["changes"]
        append(run_dir / LOG, {"eval_after": {"base": str(base), "tuned": str(tuned), "scores": changes}})
    except Interrupted as error:
        raise Interrupted(error.what, exit_code=error.exit_code, next=again) from error
    except Exception as error:  # a lack of memory, a driver, a bug: none of them may cost the training
        raise CheckFailed(
            "the training is done, and the questions after it were not answered",
            where=f"--eval_after {config}",
            why=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            next=f"the checkpoint is whole; {again}",
        ) from error


def _ask(args: Args, catalog: Catalog) -> Path:
    plan = plan_eval(args, plan_infer(args, catalog, probe(), answers_rows=False))
    log.info("%s model:\n%s", args.values["name"], plan.summary())
    return evaluate(plan, args, catalog)
