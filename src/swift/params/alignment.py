"""The algorithms of `swift rlhf` as data: the losses of each, and which flags count for it. Wrong ones are refused."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from swift.core.did_you_mean import closest
from swift.core.errors import SwiftError
from swift.params.args import Args
from swift.params.frozen import Frozen
from swift.params.groups.rlhf import Rlhf
from swift.params.roll_outs import RULES as ROLL_OUT_RULES

Mistakes = Iterator[SwiftError]
REFERENCE = ("ref_model_type", "ref_model_id_or_path", "ref_model_revision", "precompute_ref_log_probs")
SAMPLES, SHARING = "answer_samples", "share_prompts"
"""Flags of every training that some algorithms have nothing to do with."""
OF_PAIRS = (SHARING, SAMPLES)
REWARD_MODEL = ("reward_model", "reward_model_id_or_path", "reward_model_type", "reward_model_revision")
DEPENDS_ON_MICRO_BATCH = ("aot", "aot_pair", "kto")
"""Losses that look at all rows of a micro-batch at once: the first two sort them, KTO estimates its KL from them."""


class Algorithm(Frozen):
    """One `--rlhf_type`: its loss types, the default first, and the flags of the group that count for it."""

    losses: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    smoothed: tuple[str, ...] = ()
    """The loss types that label smoothing enters."""
    beta: float = 0.1
    nll: str | None = None
    """The flag that weighs the negative log-likelihood of the chosen answers."""

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares the trained model with a reference."""
        return "ref_model_id_or_path" in self.flags


ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        "dpo": Algorithm(
            losses=(
                *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard"),
                *("aot", "aot_pair", "apo_zero", "apo_down"),
            ),
            flags=("beta", "loss_type", "label_smoothing", "rpo_alpha", *OF_PAIRS, *REFERENCE),
            smoothed=("sigmoid", "robust", "exo_pair", "aot", "aot_pair"),
            nll="rpo_alpha",
        ),
        "cpo": Algorithm(
            losses=("sigmoid", "hinge", "ipo", "simpo"),
            flags=("beta", "loss_type", "label_smoothing", "cpo_alpha", "simpo_gamma", *OF_PAIRS),
            smoothed=("sigmoid", "simpo"),
            nll="cpo_alpha",
        ),
        "simpo": Algorithm(
            losses=("simpo",),
            flags=("beta", "loss_type", "label_smoothing", "cpo_alpha", "simpo_gamma", *OF_PAIRS),
            smoothed=("simpo",),
            beta=2.0,
            nll="cpo_alpha",
        ),
        "orpo": Algorithm(flags=("beta", *OF_PAIRS)),
        "kto": Algorithm(
            losses=("kto", "apo_zero_unpaired"),
            flags=("beta", "loss_type", "desirable_weight", "undesirable_weight", SAMPLES, *REFERENCE),
        ),
        "rm": Algorithm(flags=(SHARING,)),
        "ppo": Algorithm(
            flags=(
                *("local_rollout_forward_batch_size", "whiten_rewards", "kl_coef", "cliprange", "vf_coef"),
                *(
                    "cliprange_value",
                    "gamma",
                    "lam",
                    "num_ppo_epochs",
                    "num_mini_batches",
                    "missing_eos_penalty",
                    SHARING,
                ),
                *REWARD_MODEL,
                *REFERENCE,
            ),
        ),
        "grpo": Algorithm(
            losses=("grpo", "dr_grpo", "dapo"),
            flags=(
                *("beta", "loss_type", "local_rollout_forward_batch_size", "num_mini_batches"),
                *("reward_funcs", "reward_weights", "external_plugins", "num_generations", "max_completion_length"),
                *("epsilon", "epsilon_high", "num_iterations", "scale_rewards", "overlong_filter", "dynamic_sample"),
                *("max_resample_times", "soft_cache_length", "log_completions", SHARING),
                *REWARD_MODEL,
                *REFERENCE,
            ),
            beta=0.04,
        ),
    }
)
ON_OWN_ANSWERS = ("ppo", "grpo")
"""The algorithms whose rows are prompts."""


def has_reference(args: Args) -> bool:
    """Whether the loss of a run compares the trained model with a reference."""
    without = args.values["rlhf_type"] == "grpo" and args.values["beta"] == 0
    return ALGORITHMS[args.values["rlhf_type"]].has_reference and not without


def loss_type(args: Args) -> str | None:
    """The loss that is trained: as given, or the algorithm's own."""
    losses = ALGORITHMS[args.values["rlhf_type"]].losses
    return args.values["loss_type"] or (losses[0] if losses else None)


def flags_belong_to_the_algorithm(args: Args) -> Mistakes:
    """A flag that the algorithm does not read changes nothing, and its user believes that it does."""
    if args.command != "rlhf":
        return
    chosen = args.values["rlhf_type"]
    for name in (*Rlhf.__annotations__, SAMPLES, SHARING):
        if name == "rlhf_type" or not args.changed(name) or name in ALGORITHMS[chosen].flags:
            continue
        owners = [other for other, algorithm in ALGORITHMS.items() if name in algorithm.flags]
        yield SwiftError(
            f"--{name} has no effect on {chosen}", why=f"it belongs to {', '.join(owners)}", next="drop it"
        )


def the_loss_is_known(args: Args) -> Mistakes:
    """A loss type of another algorithm, or of none."""
    if args.command != "rlhf" or args.values["loss_type"] is None:
        return
    given, algorithm = args.values["loss_type"], args.values["rlhf_type"]
    losses = ALGORITHMS[algorithm].losses
    if not losses or given in losses:
        return
    near = closest(given, losses)
    others = [name for name, other in ALGORITHMS.items() if given in other.losses]
    advice = f"use one of {', '.join(losses)}"
    if others:
        advice = f"--rlhf_type {others[0]} has it; {algorithm} has {', '.join(losses)}"
    elif near:
        advice = f"did you mean {near[0]}? (one of {', '.join(losses)})"
    yield SwiftError(f"--loss_type {given} is not a loss of {algorithm}", next=advice)


def beta_is_not_zero(args: Args) -> Mistakes:
    """With beta 0 every reward is 0 and the loss a constant."""
    if args.values.get("rlhf_type") == "grpo":
        return  # its rewards do not come from the reference
    if args.command == "rlhf" and args.values["beta"] == 0 and "beta" in ALGORITHMS[args.values["rlhf_type"]].flags:
        yield SwiftError("--beta 0 leaves nothing to learn from the preferences", next="0.1 is the usual value")


def smoothing_enters_the_loss(args: Args) -> Mistakes:
    """Label smoothing has a meaning for some losses only, and below a half."""
    if args.command != "rlhf" or not args.values["label_smoothing"]:
        return
    algorithm, loss, smoothing = args.values["rlhf_type"], loss_type(args), args.values["label_smoothing"]
    smoothed = ALGORITHMS[algorithm].smoothed
    if "label_smoothing" in ALGORITHMS[algorithm].flags and loss not in smoothed:
        yield SwiftError(
            f"--label_smoothing does not enter the loss {loss} of {algorithm}",
            next=f"it does for {', '.join(smoothed)}",
        )
    elif smoothing >= 0.5:
        yield SwiftError(
            f"--label_smoothing {smoothing:g} says that at least half of the pairs are the wrong way round",
            next="give a value below 0.5",
        )


def gamma_enters_the_loss(args: Args) -> Mistakes:
    """The margin of SimPO counts for its loss only."""
    given = args.command == "rlhf" and args.values["rlhf_type"] == "cpo" and args.changed("simpo_gamma")
    if given and loss_type(args) != "simpo":
        yield SwiftError(
            f"--simpo_gamma has no effect on the loss {loss_type(args)}", next="drop it, or add --loss_type simpo"
        )


def weights_of_answers_are_positive(args: Args) -> Mistakes:
    """KTO's weights scale losses; one of 0 or less would train nothing or the opposite."""
    for name in ("desirable_weight", "undesirable_weight"):
        if args.command == "rlhf" and args.values[name] <= 0:
            yield SwiftError(f"--{name} {args.values[name]:g} is not above 0", next="1.0 is the default")
    for name in ("rpo_alpha", "cpo_alpha"):
        if args.command == "rlhf" and args.values[name] < 0:
            yield SwiftError(f"--{name} {args.values[name]:g} would train away from the chosen answers")


_IDLE: Mapping[str, str] = MappingProxyType(
    {
        "packing": "preference rows are not packed (their prompts are shared instead)",
        "acc_strategy": "no token accuracy is measured",
        "acc_steps": "no token accuracy is measured",
        "predict_with_generate": "answers are compared, not generated",
    }
)


_SCORED = ("rm", *ON_OWN_ANSWERS)
"""The algorithms that do not train the tokens of the answers in the rows."""


def flags_of_fine_tuning_do_nothing(args: Args) -> Mistakes:
    """Flags that every training command takes and alignment has no use for."""
    if args.command != "rlhf":
        return
    for name, why in _IDLE.items():
        if args.changed(name):
            yield SwiftError(f"--{name} has no effect on swift rlhf", why=why, next="drop it")
    if args.values["use_loss_scale"] and args.values["rlhf_type"] in _SCORED:
        yield SwiftError(
            f"--use_loss_scale has no effect on {args.values['rlhf_type']}",
            why="answers are scored as a whole, so no part of them has a weight",
            next="drop it",
        )
    if args.values["neftune_noise_alpha"] and ALGORITHMS[args.values["rlhf_type"]].has_reference:
        yield SwiftError(
            "--neftune_noise_alpha does not work with a reference model",
            why="the noise would count as a difference between the two",
            next="drop it",
        )


def unpaired_rows_have_neighbours(args: Args) -> Mistakes:
    """KTO estimates its KL from the other answers of a micro-batch."""
    values: Mapping[str, Any] = args.values
    if args.command != "rlhf" or values["rlhf_type"] != "kto" or loss_type(args) != "kto":
        return
    for name in ("batch_size", "eval_batch_size"):
        if values[name] == 1 and args.is_explicit(name):
            yield SwiftError(
                f"--{name} 1 is too small for kto",
                why="the KL is estimated from each prompt with the answer of another row of the micro-batch",
                next=f"--{name} 4, or --loss_type apo_zero_unpaired, which has no KL",
            )


def micro_batches_stay_as_given(args: Args) -> Mistakes:
    """Halving a micro-batch changes the losses that look at all of its rows."""
    if args.command != "rlhf" or loss_type(args) not in DEPENDS_ON_MICRO_BATCH:
        return
    for name in ("auto_find_batch_size", "rehearse"):
        if not args.values[name]:
            continue
        yield SwiftError(
            f"--{name} true would change the loss {loss_type(args)}",
            why="it depends on the rows of a micro-batch",
            next="leave it out, and give a --batch_size that fits into memory",
        )


def the_reference_can_be_asked_first(args: Args, *, wanted: bool = False) -> Mistakes:
    """Its log-probabilities are computed before training only where the rows are known, and nothing else is scored."""
    if args.command != "rlhf" or not (wanted or args.values["precompute_ref_log_probs"] == "true"):
        return
    flag = "--precompute_ref_log_probs true"
    if (algorithm := args.values["rlhf_type"]) in ON_OWN_ANSWERS:
        yield SwiftError(
            f"{flag} does not work with {algorithm}", why="its answers are not known before training", next="drop it"
        )
    if args.values["rlhf_type"] == "kto" and loss_type(args) == "kto":
        yield SwiftError(
            f"{flag} does not work with the loss kto",
            why="its KL needs the reference on each prompt with the answer of another row of the micro-batch",
            next="drop it, or --loss_type apo_zero_unpaired, which has no KL",
        )
    if args.values["streaming"]:
        yield SwiftError(f"{flag} does not work with --streaming true", why="the rows of a stream are not known before")


def revisions_are_those_of_a_hub(args: Args) -> Mistakes:
    """A folder has no revisions."""
    for role in ("ref", "reward"):
        name, path = f"{role}_model_revision", args.values.get(f"{role}_model_id_or_path") or ""
        if args.command == "rlhf" and args.changed(name) and os.path.isdir(os.path.expanduser(path)):
            yield SwiftError(
                f"--{name} {args.values[name]} has no effect on the folder {path}",
                why="a revision is one of a repository of a hub",
                next="drop it",
            )


RULES = (
    flags_belong_to_the_algorithm,
    the_loss_is_known,
    beta_is_not_zero,
    smoothing_enters_the_loss,
    gamma_enters_the_loss,
    weights_of_answers_are_positive,
    flags_of_fine_tuning_do_nothing,
    unpaired_rows_have_neighbours,
    micro_batches_stay_as_given,
    the_reference_can_be_asked_first,
    revisions_are_those_of_a_hub,
    *ROLL_OUT_RULES,
)
