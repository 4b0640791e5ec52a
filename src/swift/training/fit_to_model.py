"""What the model has a say in, before its weights are loaded: how long rows are, which tokens, what is recomputed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from swift.core.errors import NotBuilt, SwiftError
from swift.core.log import log
from swift.models.limits import Limits
from swift.models.vocabulary import embedded_tokens
from swift.params.alignment import ON_OWN_ANSWERS
from swift.plan.data import default_media
from swift.plan.sft import SftPlan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from swift.models.families import MediaProcessor


def fit_to_model(plan: SftPlan, limits: Limits, tokenizer: PreTrainedTokenizerBase) -> SftPlan:
    """The plan within what the model can do; each change is said. Raises SwiftError where nothing would work."""
    vocab_size = embedded_tokens(tokenizer, limits.vocab_size)
    plan = replace(plan, prompt=replace(plan.prompt, vocab_size=vocab_size))
    return _recomputing(_within_context(plan, limits.context_length), limits.without_checkpointing)


def with_images(plan: SftPlan, images: MediaProcessor | None) -> SftPlan:
    """The plan for rows with images: encoded when they are asked for if nothing else was said, and nothing of them kept
    between runs, in which the files that they name may change.

    Raises SwiftError for what is not done with images, and for `--freeze_vit` where there is no tower.
    """
    if images is None:
        for flag, given, does in (
            ("--freeze_vit", plan.tuner.freeze_vit, "leaves the vision tower alone"),
            ("--vit_use_gc false", not plan.train.group.vit_use_gc, "keeps the activations of the vision tower"),
            ("--cache_vision_features", plan.train.cache_vision_features, "keeps what a vision tower makes"),
        ):
            if given:
                raise SwiftError(f"{flag} {does}, and this model has none", where=flag, next="leave it out")
        return plan
    data, train, encodes = plan.data, plan.train, bool(images.family.opening)
    shared = train.zero is not None or train.fsdp is not None
    beams = train.generation is not None and train.generation.num_beams > 1
    for flag, given in (
        ("--deepspeed or --fsdp, where an encoder reads the prompt,", shared and encodes),
        ("--predict_with_generate, where an encoder reads the prompt,", train.generation is not None and encodes),
        ("--num_beams above 1, where weights are shared out,", beams and train.shards_weights),
    ):
        if given:
            raise NotBuilt(f"{flag} is not built yet for multimodal models", where=flag, next="leave it out")
    if not images.family.lies_flat:
        require_flat(plan)
    if encodes and (plan.method, plan.prompt.loss_scale) != ("sft", None):
        raise NotBuilt(
            f"the model {plan.model.model_type}, whose encoder reads the prompt, is built for sft without --loss_scale",
            where="--loss_scale, --rlhf_type",
            next="train answers whole, with swift sft",
        )
    if data.mode != "streaming" and data.num_proc > 1:
        log.warning("rows with media are encoded in one process, which does not read --preprocess_num_proc")
    mode = "lazy" if data.mode == "eager" and not data.keeps_tokens else data.mode
    data = replace(data, mode=mode, cache=None, media=default_media())
    decoded = mode != "streaming" and plan.method not in ON_OWN_ANSWERS  # where prompts are answered, and not sooner
    if train.group.dataloader_num_workers is None and decoded:  # media are decoded beside the training
        train = replace(train, workers=1)
    if train.distributed.ddp_find_unused_parameters is None:  # rows without images leave tower and projector out
        train = replace(train, distributed=train.distributed.replace(ddp_find_unused_parameters=True))
    return replace(plan, data=data, train=train, tuner=replace(plan.tuner, parts=images.family.parts))


def require_flat(plan: SftPlan) -> None:
    """Raise SwiftError for what works on rows that lie end to end, where a model cannot take such."""
    for flag, given in (
        ("--sequence_parallel_size", plan.train.sequence_parallel > 1),
        ("--sft_type longlora", plan.tuner.sft_type == "longlora"),
    ):
        if given:
            raise SwiftError(
                f"{flag} does not go together with this model",
                where=flag,
                why="its attention cannot be kept inside sequences that lie end to end in one row, which is divided",
                next="leave it out",
            )


def _within_context(plan: SftPlan, context: int | None) -> SftPlan:
    """A packed sequence holds several rows, each with positions of its own, and may be longer than the context."""
    limit = plan.prompt.max_length
    if context is None:
        return plan
    answers = plan.alignment and plan.alignment.answers
    reads = f"the model reads {context} tokens"
    if answers:
        reads += f", {answers.max_new_tokens} of which an answer may have"
        context -= answers.max_new_tokens
    if context < 1:
        raise SwiftError(
            "there is no room for a prompt", where="--max_new_tokens", why=reads, next="let answers be shorter"
        )
    if limit is not None and limit <= context:
        return plan
    given = "any --max_length" if limit is None else f"--max_length {limit}"
    log.info("%s, so rows have no more than %d (instead of %s)", reads, context, given)
    data = plan.data if plan.data.packing else replace(plan.data, max_length=context)
    return replace(plan, prompt=replace(plan.prompt, max_length=context), data=data)


def _recomputing(plan: SftPlan, unable: str | None) -> SftPlan:
    """The plan without gradient checkpointing where the class, `unable`, has none."""
    if plan.train.recompute is False or unable is None:
        return plan
    log.info("%s has no gradient checkpointing: all activations are kept", unable)
    return replace(plan, train=replace(plan.train, recompute=False))
