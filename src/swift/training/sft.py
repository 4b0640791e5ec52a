"""A fine-tuning run from its plan: rows, model, tuner, Trainer, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils.logging import disable_progress_bar

from swift import data, models, tuners
from swift.catalog import Catalog
from swift.core.log import log
from swift.core.machine import Machine
from swift.data.ledger import FILE_NAME, Ledger
from swift.data.stream import StreamDataset
from swift.hub.checkpoint_uploader import Pusher
from swift.params.args import Args
from swift.params.checkpoint_args import read_saved
from swift.plan.sft import SftPlan
from swift.plan.train import PushPlan
from swift.prompts.encode import Encoder, build_encoder
from swift.prompts.parity import say_differences_from_own, write_certificate
from swift.training import process_group
from swift.training.artifacts import ARGS, example, model_info, saved_args, write_json
from swift.training.generation_eval import Answers
from swift.training.objectives.sft import SftObjective
from swift.training.run import Run, finish, train
from swift.training.run_dir import make_run_dir
from swift.training.training_arguments import check_names
from swift.tuners.adapter_files import Card


def train_sft(
    args: Args, plan: SftPlan, catalog: Catalog, machine: Machine, run_dir: Path, resume: Path | None
) -> None:
    """Encode, load, train, save. Everything that can be wrong with flags or rows shows before weights are loaded."""
    check_names(plan.train)
    disable_progress_bar()
    source = models.fetch(plan.model)
    tokenizer = models.load_tokenizer(plan.model, source)
    encoder = build_encoder(plan.prompt, tokenizer, catalog)
    say_differences_from_own(encoder)
    if machine.first:
        make_run_dir(run_dir)
    ledger = _ledger(plan, run_dir, machine)
    with process_group.first_ahead():
        built = data.build(plan.data, encoder, ledger)
    rows = built.train
    steps = plan.train.max_steps if isinstance(rows, StreamDataset) else plan.train.steps(len(rows))[1]
    if resume is not None and not plan.train.resume_only_model:
        say_differences(resume, args)
        if nothing_left(resume, steps):
            return
    log.info("first example, what is trained in ⟦⟧:\n%s", example(built.first, tokenizer))

    kind, seed = encoder.template_type, plan.data.seed
    record = saved_args(
        args, model=plan.model, train=plan.train, machine=machine, run=run_dir, template_type=kind, seed=seed
    )
    if machine.first:
        write_json(run_dir / ARGS, record)
    set_seed(plan.train.seed)
    model = load(plan, source, resume, steps)
    log.info(model_info(model))

    card = Card(
        model=plan.model,
        tuner=plan.tuner,
        template_type=encoder.template_type,
        system=plan.prompt.system,
        base=models.identity(source),
    )
    val: Any = built.val
    pad_id: Any = tokenizer.pad_token_id
    run = Run(
        plan=plan.train,
        tuner=plan.tuner,
        folder=run_dir,
        model=model,
        make_objective=lambda base: SftObjective(base, plan.train.accuracy, plan.train.acc_steps),
        train=rows,
        val=val,
        pad_id=pad_id,
        save_into=saver(model, card, tokenizer, encoder, record),
        resume=resume,
        evaluator=_answers(plan, val, tokenizer, encoder),
        pusher=_pusher(plan.train.push) if machine.first else None,
        lengths=None if rows.lengths is None else rows.lengths.tolist(),
        val_lengths=() if val is None else None if val.lengths is None else val.lengths.tolist(),
        where=rows.origin,
    )
    try:
        trainer = train(run)
    finally:
        ledger.close()
    finish(trainer, run)


ORDER = ("dataset", "val_dataset", "dataset_test_ratio", "seed", "dataset_seed", "batch_size", "max_length", "packing")
"""Flags that decide which rows come when."""


def say_differences(resume: Path, args: Args) -> None:
    """Warn where a resumed run is told something that makes its rows come in another order than the first part had."""
    saved = read_saved(resume)
    for name in ORDER:
        now, before = args.values[name], saved.get(name)
        now = list(now) if isinstance(now, tuple) else now
        if name in saved and now is not None and now != before:
            log.warning("the checkpoint was trained with --%s %s, now it is %s: rows may repeat", name, before, now)


def nothing_left(resume: Path, steps: int) -> bool:
    """Whether the checkpoint has done all steps of the run; says so, and how to go further."""
    state = json.loads((resume / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    done = state["global_step"]
    if done < steps:
        log.info("going on after step %d of %d", done, steps)
        return False
    log.info(
        "nothing left to train: %d/%d steps are done; raise --num_train_epochs or --max_steps to go on", done, steps
    )
    return True


def load(plan: SftPlan, source: Path, resume: Path | None, steps: int) -> nn.Module:
    """The model to train: with a new tuner on top, or as the checkpoint to go on from left it."""
    if resume is None:
        return tuners.attach(models.load_model(plan.model, source), plan.tuner, total_steps=steps)
    if plan.tuner.sft_type == "full":
        whole = replace(plan.model, source=str(resume), hub="local", entry=None)
        return tuners.attach(models.load_model(whole, resume), plan.tuner, total_steps=steps)
    return tuners.load(models.load_model(plan.model, source), resume, trainable=True)


def saver(
    model: nn.Module, card: Card, tokenizer: PreTrainedTokenizerBase, encoder: Encoder, record: dict[str, Any]
) -> Callable[[Path], None]:
    """What goes into a checkpoint beside the Trainer's own state."""

    def save_into(target: Path) -> None:
        tuners.save(model, target, card)
        tokenizer.save_pretrained(target)
        write_certificate(encoder, target)
        write_json(target / ARGS, record)

    return save_into


def _ledger(plan: SftPlan, run_dir: Path, machine: Machine) -> Ledger:
    path = run_dir / FILE_NAME if machine.first else None
    return Ledger(path, max_drop_ratio=plan.data.max_drop_ratio, strict=plan.data.strict)


def _pusher(push: PushPlan | None) -> Pusher | None:
    if push is None:
        return None
    return Pusher(push.repo, hub=push.hub, token=push.token, private=push.private, strategy=push.strategy)


def _answers(plan: SftPlan, val: Any, tokenizer: PreTrainedTokenizerBase, encoder: Encoder) -> Answers | None:
    if plan.train.generation is None or val is None:
        return None
    return Answers(
        [val[i] for i in range(len(val))],
        tokenizer,
        plan.train.generation,
        plan.train.eval_batch_size,
        encoder.stop_token_ids,
    )
