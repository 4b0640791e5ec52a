"""What is checked: the user's own run, cut short, on a few of the user's own rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from swift.catalog import Catalog, load_catalog
from swift.core.errors import SwiftError, raise_together
from swift.core.machine import Machine
from swift.core.probe import probe
from swift.data.dataset import ListDataset
from swift.params.args import Args
from swift.params.commands import with_training_command
from swift.params.groups import Data, Model
from swift.params.parse import read
from swift.plan.methods import METHODS
from swift.plan.mistakes import mistakes
from swift.plan.sft import SftPlan, plan_sft
from swift.prompts.types import IGNORED
from swift.training.preference_batches import end
from swift.training.prepare import Prepared, prepare

CUT_SHORT: Mapping[str, Any] = MappingProxyType(
    {
        "max_steps": 2,
        "batch_size": 1,
        "gradient_accumulation_steps": 1,
        "micro_batching": "said",
        "auto_find_batch_size": False,
        "rehearse": False,
        "gradient_checkpointing": False,
        "warmup_ratio": 0.0,
        "warmup_steps": 0,
        "dataset_test_ratio": 0.0,
        "val_dataset": (),
        "custom_val_dataset_path": (),
        "train_dataset_sample": -1,
        "train_dataset_mix_ratio": 0.0,
        "streaming": False,
        "lazy_tokenize": None,
        "packing": False,
        "test_oom_error": False,
        "dataloader_num_workers": 0,
        "dataloader_drop_last": False,
        "evaluation_strategy": "no",
        "predict_with_generate": False,
        "eval_after": None,
        "answer_samples": 0,
        "save_strategy": "no",
        "save_only_model": False,
        "resume_from_checkpoint": None,
        "push_to_hub": False,
        "logging_steps": 1,
        "report_to": (),
        "disable_tqdm": True,
        "neftune_noise_alpha": None,
    }
)
"""Flags that a check sets itself; all others are the user's."""
SAMPLE = 64
"""Rows of each data set that are looked at."""
MOST_ROWS, FEWEST_ROWS = 8, 4
TOKENS = {"cpu": 384}
"""Tokens of all rows together, where there are enough short ones; a step has to take seconds."""
TOKENS_OF_A_GPU = 8192


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The run in its parts, before any weights are loaded."""

    args: Args
    catalog: Catalog
    machine: Machine
    prepared: Prepared
    rows: ListDataset
    """4 to 8 rows, an even number, encoded as for training."""

    @property
    def plan(self) -> SftPlan:
        """The short run, fit to the model."""
        return self.prepared.plan

    @property
    def tokens(self) -> int:
        """Tokens of the rows together."""
        return int(self.rows.lengths.sum())

    def __str__(self) -> str:
        """`sft of smollm2-135m-instruct, lora, fp32 on cpu, 8 rows of 412 tokens`."""
        plan = self.plan
        return (
            f"{plan.method} of {plan.model.model_type}, {plan.tuner.sft_type}, {plan.model.dtype} on "
            f"{self.machine.device}, "
            f"{len(self.rows)} rows of {self.tokens} tokens"
        )


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The run as far as flags and machine decide it."""

    args: Args
    catalog: Catalog
    machine: Machine
    plan: SftPlan


def planned(words: Sequence[str]) -> Planned:
    """The short run of a command line: that of `swift sft` unless its first word or an --rlhf_type says otherwise.

    Raises SwiftError for its mistakes, all together.
    """
    parsed = read(with_training_command(words))
    raise_together([*parsed.errors, *mistakes(parsed.args, unsure=bool(parsed.errors))])
    return planned_of(parsed.args)


def planned_of(given: Args) -> Planned:
    """The short run of the arguments of a training command. Raises SwiftError."""
    args, machine = _shortened(given), probe()
    catalog = load_catalog(args[Model].custom_register_path, args[Data].custom_dataset_info)
    plan = plan_sft(args, catalog, machine)
    if METHODS[plan.method].kind == "prompt":
        raise SwiftError(
            f"swift check compares runs over the same answers, and {plan.method} makes its own",
            next="check the rows, model and tuner with swift check sft",
        )
    sampled = tuple(
        replace(spec, sample=SAMPLE if spec.sample < 0 else min(spec.sample, SAMPLE)) for spec in plan.data.train
    )
    plan = replace(plan, data=replace(plan.data, train=sampled))
    return Planned(args=args, catalog=catalog, machine=machine, plan=plan)


def subject_of(given: Planned) -> Subject:
    """Fetch the model's files, encode rows and choose among them. Raises SwiftError, also for too few rows."""
    prepared = prepare(given.plan, given.catalog, None, None)
    rows = _few(prepared.built.train, TOKENS.get(given.machine.device, TOKENS_OF_A_GPU))
    return Subject(args=given.args, catalog=given.catalog, machine=given.machine, prepared=prepared, rows=rows)


def _shortened(args: Args) -> Args:
    """The arguments with what a check sets; fp32 where no dtype is given, so that rounding hides nothing."""
    own = {name: value for name, value in CUT_SHORT.items() if name in args.values}
    if not args.is_explicit("dtype"):
        own["dtype"] = "fp32"
    return args.replace(values={**args.values, **own}, origins={**args.origins, **dict.fromkeys(own, "cli")})


def _few(rows: Any, budget: int) -> ListDataset:
    """Rows of different numbers of trained tokens, the shortest first, within the budget where four of them fit.

    Rows that train equally many tokens would hide a loss that is averaged over rows.
    """
    by_origin = {rows.origin(number): number for number in reversed(range(len(rows)))}
    numbers = sorted(by_origin.values(), key=lambda number: (rows.lengths[number], number))
    trained = {number: sum(label != IGNORED for label in chosen(rows[number])["labels"]) for number in numbers}
    distinct = list({trained[number]: number for number in reversed(numbers)}.values())
    distinct.sort(key=numbers.index)
    order = [*distinct, *(number for number in numbers if number not in set(distinct))]
    few: list[int] = []
    for number in order[:MOST_ROWS]:
        if len(few) >= FEWEST_ROWS and sum(rows.lengths[[*few, number]]) > budget:
            break
        few.append(number)
    if len(few) < FEWEST_ROWS:
        raise SwiftError(
            f"a check takes {FEWEST_ROWS} different rows, and {len(few)} can be used",
            where="--dataset",
            next="name a data set with more rows",
        )
    few = few[: len(few) // 2 * 2]
    return ListDataset([rows[number] for number in few], [rows.origin(number) for number in few])


def chosen(row: dict[str, Any]) -> dict[str, Any]:
    """The conversation of an encoded row; of a pair the one with the better answer."""
    return {**end(row, "chosen_"), "row": row["row"]} if "chosen_labels" in row else row
