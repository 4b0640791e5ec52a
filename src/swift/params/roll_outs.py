"""What cannot go together when a model trains on its own answers. Pure: rules over flags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from swift.core.errors import SwiftError
from swift.params.args import Args

Mistakes = Iterator[SwiftError]

_NOT_EVALUATED = "the answers of each roll-out are scored, and nothing else is evaluated"
_IN_ORDER = "the rows of a roll-out come in an order of their own"
IDLE: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("val_dataset", "custom_val_dataset_path", "val_dataset_sample"), _NOT_EVALUATED),
        **dict.fromkeys(("dataset_test_ratio", "eval_batch_size", "evaluation_strategy"), _NOT_EVALUATED),
        **dict.fromkeys(("dataloader_drop_last", "test_oom_error", "rehearse"), _IN_ORDER),
        **dict.fromkeys(("ignore_data_skip", "streaming"), _IN_ORDER),
        "auto_find_batch_size": "a roll-out belongs to the weights that it was sampled from",
        "num_beams": "answers are sampled one by one",
        "repetition_penalty": "the policy would be another distribution than the one that is sampled from",
    }
)


def flags_without_effect_on_roll_outs(args: Args) -> Mistakes:
    """Flags of training commands that mean nothing, or the wrong thing, where rows are prompts."""
    if not _rolls_out(args):
        return
    for name, why in IDLE.items():
        if args.changed(name):
            yield SwiftError(f"--{name} has no effect on {args.values['rlhf_type']}", why=why, next="drop it")


def answers_are_sampled(args: Args) -> Mistakes:
    """The likeliest answer is always the same: there is nothing to compare it with."""
    if _rolls_out(args) and (args.values["temperature"] == 0 or args.values["do_sample"] is False):
        flag = "--temperature 0" if args.values["temperature"] == 0 else "--do_sample false"
        algorithm, usual = args.values["rlhf_type"], {"ppo": 0.7, "grpo": 0.9}[args.values["rlhf_type"]]
        yield SwiftError(
            f"{flag} leaves {algorithm} nothing to explore", next=f"--temperature {usual}, the default of {algorithm}"
        )


def answers_are_scored(args: Args) -> Mistakes:
    """Without a reward there is nothing to learn."""
    if not _rolls_out(args) or args.values["reward_model_id_or_path"] or args.values["reward_model_type"]:
        return
    if args.values["rlhf_type"] == "ppo":
        yield SwiftError(
            "ppo has no reward model",
            where="--reward_model_id_or_path",
            next="name a checkpoint of swift rlhf --rlhf_type rm, or a sequence classification model with one label",
        )
    elif not args.values["reward_funcs"]:
        yield SwiftError(
            "grpo has no reward",
            where="--reward_funcs",
            next="name accuracy, format or soft_overlong, a function of yours in a file of --external_plugins, or a "
            "--reward_model",
        )


NEEDED = {
    "max_resample_times": ("dynamic_sample", "groups without variance are sampled again"),
    "external_plugins": ("reward_funcs", "a plugin's functions count where they are named"),
}


def flags_of_grpo_meet(args: Args) -> Mistakes:
    """Flags that count with another one only, and numbers that stand in each other's way."""
    if args.command != "rlhf" or args.values["rlhf_type"] != "grpo":
        return
    values = args.values
    for name, (needed, why) in NEEDED.items():
        if args.changed(name) and not values[needed]:
            yield SwiftError(f"--{name} has no effect without --{needed}", why=why, next=f"drop it, or add --{needed}")
    if args.changed("soft_cache_length") and "soft_overlong" not in values["reward_funcs"]:
        yield SwiftError(
            "--soft_cache_length has no effect without the reward soft_overlong",
            next="drop it, or add soft_overlong to --reward_funcs",
        )
    if values["beta"] == 0:
        for name in ("ref_model_type", "ref_model_id_or_path", "ref_model_revision"):
            if args.changed(name):
                yield SwiftError(f"--{name} has no effect with --beta 0", why="nothing is compared with it")
    if len(set(values["reward_funcs"])) < len(values["reward_funcs"]):
        yield SwiftError("--reward_funcs names a function twice", next="name it once, with another weight")
    if values["reward_weights"] and not any(values["reward_weights"]):
        yield SwiftError("--reward_weights are all 0: every answer would have the same reward")


def _rolls_out(args: Args) -> bool:
    return args.command == "rlhf" and args.values["rlhf_type"] in ("ppo", "grpo")


RULES = (flags_without_effect_on_roll_outs, answers_are_sampled, answers_are_scored, flags_of_grpo_meet)
