"""A training run from its plan, top to bottom: rows, model, tuner, objective, Trainer, checkpoints.

Every training command goes this way; what they differ in stands in `swift.plan.methods`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel, set_seed
from transformers.utils.logging import disable_progress_bar

from swift import data, models, tuners
from swift.catalog import Catalog
from swift.core.log import log
from swift.core.machine import Machine
from swift.data.eager import EncodedDataset
from swift.data.lazy import LazyDataset
from swift.hub.checkpoint_uploader import Pusher
from swift.params.args import Args
from swift.params.checkpoint_args import SFT_ARGS, adapter_folder
from swift.plan.methods import METHODS
from swift.plan.model import ModelPlan
from swift.plan.sft import SftPlan
from swift.plan.train import PushPlan
from swift.training import liger
from swift.training.answer_samples import AnswerSamples, rows_to_sample
from swift.training.artifacts import example, model_info, parts_info, saved_args, write_json
from swift.training.batches import Collate
from swift.training.causality import require_causal
from swift.training.checkpoint_contents import Contents, write_contents
from swift.training.companion_row import companions_for
from swift.training.compiled_layers import compile_layers
from swift.training.fit_to_model import require_flat
from swift.training.frozen_layers import pack_frozen
from swift.training.generation_eval import Answers
from swift.training.longlora import shift_attention
from swift.training.loop import Run, finish, train
from swift.training.objectives import Objective, Setting
from swift.training.objectives.reference import reference_source
from swift.training.odd_rows import OF_LAZY_ROWS, Effort, in_rows
from swift.training.parallel import parallel_of
from swift.training.parallel.sequence import cut_in_decoder
from swift.training.prepare import Prepared, prepare
from swift.training.process_group import require_same
from swift.training.quick_dropout import quicken_dropout
from swift.training.rehearsal import rehearsed
from swift.training.resume import nothing_left
from swift.training.rows_with_media import DECODER, keep_apart
from swift.training.run_dir import claimed
from swift.training.run_report import note_inputs, reported
from swift.training.saving_machines import saving_where
from swift.training.scored_rows import score, scores_first
from swift.training.smaller_batches import memory_explained
from swift.training.varlen_attention import keep_inside_sequences
from swift.training.vision_features import cache_features
from swift.training.why_not_learning import Notebook
from swift.tuners.adapter_saving import Card

FLAT_MEDIA = "rows lie end to end without padding, those with media too: the model gives for them what padded rows give"
PADDED_MEDIA = "batches are padded, as --batch_size says: rows with media of this model cannot lie end to end"


def run_training(
    args: Args, plan: SftPlan, catalog: Catalog, machine: Machine, run_dir: Path, resume: Path | None
) -> Path | None:
    """Encode, load, train, save, in a folder that no other run is in.

    -> the best checkpoint; None where nothing was left to do, or nothing is saved.
    """
    if not machine.first:
        with memory_explained(plan.train):
            return _run(args, plan, catalog, machine, run_dir, resume)
    with claimed(run_dir), reported(args, plan, machine, run_dir) as report, memory_explained(plan.train):
        return _run(args, plan, catalog, machine, run_dir, resume, report)


def _run(
    args: Args,
    plan: SftPlan,
    catalog: Catalog,
    machine: Machine,
    run_dir: Path,
    resume: Path | None,
    report: Callable[[], object] = lambda: None,
) -> Path | None:
    disable_progress_bar()
    prepared = prepare(plan, catalog, run_dir if machine.first else None, resume)
    plan = replace(prepared.plan, train=saving_where(prepared.plan.train, machine, run_dir))
    prepared = replace(prepared, plan=plan)
    require_same(_shared_facts(prepared))
    if resume is not None and not plan.train.group.resume_only_model and nothing_left(resume, prepared.steps):
        return None
    log.info(
        "first example, what is trained in ⟦⟧:\n%s",
        example(prepared.built.first, prepared.tokenizer, prepared.images),
    )
    arguments = saved_args(args, plan, machine, run_dir, prepared.encoder.template_type, resume)
    if plan.alignment is not None:
        arguments["ref_model_id_or_path"] = reference_source(plan, resume)
    if machine.first:
        write_json(run_dir / SFT_ARGS, arguments)
        note_inputs(args, plan, prepared.source, run_dir)
        report()
        _look_at_rows(prepared, run_dir)
    run = replace(with_model(prepared, arguments, run_dir, resume), saved=report)
    samples = None
    if machine.first:
        samples = answer_samples(plan, prepared, run_dir, resume)
    if samples is not None and not samples.base_stays:
        samples.take("before", run.model)
    if machine.first and plan.train.push is not None:
        run = replace(run, pusher=_pusher(plan.train.push))
    try:
        if plan.train.group.rehearse:
            run = rehearsed(run)
        trainer = train(run)
    finally:
        prepared.ledger.close()
    if samples is not None:
        samples.finish(run.model)
    best = finish(trainer, run)["best_model_checkpoint"]
    return None if best is None else Path(best)


def _look_at_rows(prepared: Prepared, run_dir: Path) -> None:
    """Tell what is odd about rows, those of a stream aside. Those with images may differ in what is no token."""
    train, val = map(_rows, (prepared.built.train, prepared.built.val))
    if train is None or prepared.images is not None:
        return
    effort = OF_LAZY_ROWS if isinstance(train, LazyDataset) else Effort()
    text, plain_text = prepared.encoder.tokens.decode, prepared.plan.data.plain_text
    for cause in in_rows(train, val, text, plain_text=plain_text, effort=effort):
        Notebook(run_dir).tell(cause, 0)


def _rows(rows: object) -> EncodedDataset | LazyDataset | None:
    """The rows, packed or not, where each can be had by its number."""
    rows = rows.examples if isinstance(rows, data.PackedDataset) else rows
    return rows if isinstance(rows, EncodedDataset | LazyDataset) else None


def with_model(prepared: Prepared, arguments: dict[str, Any], run_dir: Path, resume: Path | None) -> Run:
    """The run from the moment that its weights are loaded; `arguments` are those that its checkpoints keep."""
    plan = prepared.plan
    if plan.train.group.use_liger:
        liger.check_model(models.load_config(plan.model, prepared.source))
    set_seed(plan.train.group.seed)
    model = load(plan, prepared.source, resume, prepared.steps)
    log.info(model_info(model))
    if prepared.images is not None:
        cache_features(model, plan, prepared.images, epochs=prepared.steps / max(prepared.per_epoch, 1))
    if plan.train.pack_frozen:
        pack_frozen(model)
    if model.device.type == "cpu":
        quicken_dropout(model)
    if plan.tuner.parts is not None:
        log.info("trained modules: %s", parts_info(model, plan.tuner.parts))
    return assemble(plan, prepared, model, arguments, run_dir, resume)


def _shared_facts(prepared: Prepared) -> dict[str, object]:
    """What every process must have found alike before the first of them takes a step."""
    lengths = prepared.built.train.lengths
    return {
        "the number of optimizer steps": prepared.steps,
        "the number of training rows": None if lengths is None else len(lengths),
        "the number of tokens in the training rows": None if lengths is None else int(sum(lengths.tolist())),
    }


def assemble(
    plan: SftPlan,
    prepared: Prepared,
    model: nn.Module,
    arguments: dict[str, Any],
    run_dir: Path,
    resume: Path | None,
) -> Run:
    """The run of a method: its objective and collator around the model, and what its checkpoints hold."""
    method, tokenizer, encoder = METHODS[plan.method], prepared.tokenizer, prepared.encoder
    rows, val = cast(Any, prepared.built.train), cast(Any, prepared.built.val)
    base = tuners.base_model(model)
    if plan.alignment is not None and not plan.alignment.dropout:
        switch_off_dropout(model)
    flat = _set_attention(plan, base, prepared)
    if plan.train.group.torch_compile:
        compile_layers(base)
    setting = Setting(
        plan=plan,
        model=model,
        base=base,
        source=prepared.source,
        resume=resume,
        pad_id=cast(int, tokenizer.pad_token_id),
        rows=rows,
        images=prepared.images,
        encoder=encoder,
        steps=prepared.steps,
        folder=run_dir,
        flat=flat,
        keep_inside=partial(_keep_inside, prepared),
        share_out=parallel_of(plan.train).frozen,
    )
    if method.arrange is not None:
        rows = _named(method.arrange)(setting)
        setting = replace(setting, rows=rows)
    collate = _named(method.collator)(setting)
    if scores_first(setting):
        rows, val = score(setting, collate, rows, val)
        setting = replace(setting, scored=True)
    objective: Objective = _named(method.objective)(setting)
    return Run(
        plan=replace(
            plan.train,
            pass_tokens=plan.train.pass_tokens if flat else None,
            shares_beginnings=isinstance(collate, Collate) and collate.share,
        ),
        tuner=plan.tuner,
        folder=run_dir,
        model=model,
        objective=objective,
        collate=collate,
        train=rows,
        steps=prepared.steps,
        info=model_info(model),
        val=val,
        save_into=partial(write_contents, _contents(prepared, model, arguments, objective)),
        resume=resume,
        command_line=arguments.get("command_line", "swift"),
        evaluator=_answers(prepared, val),
        lengths=None if rows.lengths is None else rows.lengths.tolist(),
        val_lengths=() if val is None else None if val.lengths is None else val.lengths.tolist(),
        where=(rows.examples if isinstance(rows, data.PackedDataset) else rows).origin,
    )


def _contents(prepared: Prepared, model: nn.Module, arguments: dict[str, Any], objective: Objective) -> Contents:
    plan, encoder = prepared.plan, prepared.encoder
    card = Card(
        model=plan.model,
        tuner=plan.tuner,
        template_type=encoder.template_type,
        system=plan.prompt.system,
        base=models.identity(prepared.source),
        safetensors=plan.train.group.save_safetensors,
    )
    return Contents(
        model=model,
        card=card,
        tokenizer=prepared.tokenizer,
        encoder=encoder,
        arguments=arguments,
        objective=objective,
        source=prepared.source,
        images=prepared.images,
    )


def _set_attention(plan: SftPlan, base: PreTrainedModel, prepared: Prepared) -> bool:
    """Let the model attend as it is trained. -> whether it takes flattened batches."""
    # Unsloth has attention of its own, and some versions cut a row of several sequences off at --max_length.
    own = plan.tuner.tuner_backend == "unsloth"
    flat = not own and _keep_inside(prepared, base)
    if not flat and (prepared.images is not None or plan.train.sequence_parallel > 1):
        require_flat(plan)
    if prepared.images is not None:
        log.info("%s", FLAT_MEDIA if flat else PADDED_MEDIA)
        if plan.tuner.sft_type == "longlora":
            shift_attention(base, plan.prompt.max_length, DECODER)
        return flat
    if not flat:
        require_causal(base)  # a flat row that gave the same was read with causal attention
        log.info("batches are padded, as --batch_size says: this model's attention cannot be kept inside sequences")
    if plan.tuner.sft_type == "longlora":
        shift_attention(base, plan.prompt.max_length)
    return flat


def _keep_inside(prepared: Prepared, model: PreTrainedModel) -> bool:
    """Let a model attend inside the sequences of flat batches, where that gives what padded ones give."""
    if prepared.images is None:
        return keep_inside_sequences(model)
    flat = keep_apart(model, Collate(True, cast(int, prepared.tokenizer.pad_token_id), prepared.images, model))
    if flat and prepared.plan.train.sequence_parallel > 1:
        (decoder,) = prepared.images.family.parts.decoder
        cut_in_decoder(model, decoder)
    return flat


def answer_samples(plan: SftPlan, prepared: Prepared, run_dir: Path, resume: Path | None) -> AnswerSamples | None:
    """The prompts that are answered before and after training; None where none is wanted, or an encoder reads them."""
    count = 0 if plan.samples is None else plan.samples.of_run(prepared.steps)
    encodes = prepared.images is not None and bool(prepared.images.family.opening)  # its rows are no prompts
    if plan.samples is None or not count:
        return None
    if encodes:
        log.info("no answers before and after: the model's encoder reads the prompts")
        return None
    rows = rows_to_sample(prepared.built.train, prepared.built.val, prepared.built.first, count)
    samples = AnswerSamples(run_dir, rows, prepared.encoder, plan.samples, plan.train.group.seed, prepared.images)
    if resume is not None and not plan.train.group.resume_only_model:
        samples.carry_on(resume.parent)
    return samples


def switch_off_dropout(model: nn.Module) -> None:
    """For good: two models, or two answers, are compared, and chance would count as a difference.

    Attention of most models, and all of OPT and BLOOM, keep the rate as a number of the module.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)


def _named(name: str | None) -> Any:
    """What a table names as `module:attribute`."""
    assert name is not None
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load(plan: SftPlan, source: Path, resume: Path | None, steps: int) -> nn.Module:
    """The model to train: with a new tuner on top, or as the checkpoint to go on from left it."""
    if resume is None:
        return tuners.attach(_base(plan, plan.model, source), plan.tuner, total_steps=steps)
    if adapter_folder(resume) is None:
        whole = replace(plan.model, source=str(resume), hub="local", entry=None)
        return tuners.attach(_base(plan, whole, resume), plan.tuner, total_steps=steps, resumed=True)
    tuned = tuners.load(_base(plan, plan.model, source), resume, trainable=True, total_steps=steps)
    return tuners.go_on_with_unsloth(tuned) if plan.tuner.tuner_backend == "unsloth" else tuned


def _base(plan: SftPlan, model: ModelPlan, folder: Path) -> PreTrainedModel:
    if plan.tuner.tuner_backend != "unsloth":
        return models.load_model(model, folder)
    whole = plan.tuner.sft_type == "full"
    return models.load_through_unsloth(model, folder, max_length=plan.prompt.max_length, whole=whole)


def _pusher(push: PushPlan) -> Pusher:
    return Pusher(push.repo, hub=push.hub, token=push.token, private=push.private, strategy=push.strategy)


def _answers(prepared: Prepared, val: Any) -> Answers | None:
    plan = prepared.plan
    if plan.train.generation is None or val is None:
        return None
    return Answers(
        [val[i] for i in range(len(val))],
        prepared.tokenizer,
        plan.train.generation,
        prepared.encoder.stop_token_ids,
        together=plan.train.shards_weights,
        images=prepared.images,
        companions=companions_for(plan.train, prepared.images, prepared.encoder),
    )
