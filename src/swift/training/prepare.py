"""All of a run that comes before its weights: the model's files, tokenizer and template, and examples of the rows.

A dry run ends here, so nothing that only training needs is imported, which of plain decoders is all of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swift import data, models
from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.ledger import FILE_NAME, Ledger
from swift.engines.model_images import media_processor_of
from swift.models.limits import limits_of
from swift.params.optimizers import OF_EVALUATIONS
from swift.plan.methods import METHODS
from swift.plan.reward_model import require_tokens_head
from swift.plan.sft import SftPlan
from swift.plan.train import TrainPlan
from swift.prompts.encode import Encoder, build_encoder
from swift.prompts.parity import require_same_images, say_differences_from_own
from swift.training import process_group
from swift.training.check_names import USUAL_OPTIMIZERS, USUAL_SCHEDULES, check_names
from swift.training.companions import check_companions
from swift.training.fit_to_model import fit_to_model, with_images
from swift.training.pack_where_room import with_packed_layers
from swift.training.passes import with_pass_tokens
from swift.training.policy_gradient.reward_columns import check_columns
from swift.training.resume import check_fits
from swift.training.room import with_room

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from swift.models.families import MediaProcessor


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that a run knows before its weights are loaded."""

    plan: SftPlan
    """As it was, within what the model can do."""
    source: Path
    """The model's folder."""
    tokenizer: PreTrainedTokenizerBase
    images: MediaProcessor | None
    """What makes pixels of the images of rows; None for a model of text."""
    encoder: Encoder
    ledger: Ledger
    built: data.Built
    per_epoch: int
    steps: int
    """Optimizer steps of an epoch and of the run."""


def prepare(plan: SftPlan, catalog: Catalog, run_dir: Path | None, resume: Path | None) -> Prepared:
    """Fetch the model's files and make examples of the rows, in `run_dir` their ledger. With None nothing is written.

    Everything that can be wrong with names, rows, the folder or the base of `resume` shows here.
    """
    check_names(plan.train)
    _try_out(plan.train)
    source = models.fetch(plan.model)
    if resume is not None:
        check_fits(plan, source, resume)
    if not METHODS[plan.method].scores:
        require_tokens_head(source)
    tokenizer = models.load_tokenizer(plan.model, source)
    images = media_processor_of(plan.model, source, tokenizer, resume, plan.data.pixels)
    if plan.alignment is not None:
        check_companions(plan.alignment, tokenizer, images)
    plan = with_images(fit_to_model(plan, limits_of(plan.model, source), tokenizer), images)
    encoder = build_encoder(plan.prompt, tokenizer, catalog, images)
    if not plan.data.plain_text:
        say_differences_from_own(encoder)
    if resume is not None and not plan.train.group.resume_only_model:
        require_same_images(resume, encoder, plan.prompt.ignore_mismatch)
    ledger = Ledger.of_plan(plan.data, run_dir and run_dir / FILE_NAME)
    with process_group.first_ahead():
        built = data.build(plan.data, encoder, ledger)
    _check_validation(plan, built)
    if plan.alignment is not None and plan.alignment.grpo is not None:
        check_columns(plan.alignment.grpo, built.train)
    if images is None or images.family.lies_flat:
        plan = with_pass_tokens(plan, built)
    if built.train.lengths is None:
        per_epoch = steps = plan.train.group.max_steps
    else:
        per_epoch, steps = plan.train.steps(len(built.train))
        if left_out := plan.train.left_out(len(built.train)):
            log.warning("--dataloader_drop_last leaves %d of %d rows out of each epoch", left_out, len(built.train))
    if (few := plan.train.few_steps(steps)) is not None:
        log.warning(few)
    plan = with_room(plan, built, source, steps=steps, per_epoch=per_epoch)
    plan = with_packed_layers(plan, built, source, steps)
    return Prepared(
        plan=plan,
        source=source,
        tokenizer=tokenizer,
        images=images,
        encoder=encoder,
        ledger=ledger,
        built=built,
        per_epoch=per_epoch,
        steps=steps,
    )


def _try_out(plan: TrainPlan) -> None:
    """Raise SwiftError for an optimizer or a schedule that takes no step. The usual ones do; trying takes seconds, as
    transformers is imported for that."""
    if plan.optim.optim not in USUAL_OPTIMIZERS and plan.zero is None:
        from swift.training.check_optimizer import check_optimizer

        check_optimizer(plan)
    if plan.scheduler_kwargs or plan.scheduler not in USUAL_SCHEDULES:
        from swift.training.check_schedule import check_schedule

        check_schedule(plan)


def _check_validation(plan: SftPlan, built: data.Built) -> None:
    """Raise SwiftError for flags that say how rows are evaluated where there are none."""
    train = plan.train.group
    flags = {
        "--predict_with_generate": train.predict_with_generate,
        f"--lr_scheduler_type {plan.train.scheduler}": plan.train.scheduler in OF_EVALUATIONS,
        "--metric_for_best_model": train.metric_for_best_model is not None,
    }
    for flag, given in flags.items():
        if given and built.val is None:
            raise SwiftError(
                f"{flag} has no validation rows",
                where=flag,
                next="add --val_dataset FILE, or --dataset_test_ratio above 0 (--streaming_val_size for a stream)",
            )
