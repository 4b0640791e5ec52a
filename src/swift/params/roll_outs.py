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
        **dict.fromkeys(("dataloader_drop_last", "test_oom_error", "ignore_data_skip", "streaming"), _IN_ORDER),
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
            yield SwiftError(f"--{name} has no effect on ppo", why=why, next="drop it")


def answers_are_sampled(args: Args) -> Mistakes:
    """The likeliest answer is always the same: there is nothing to compare it with."""
    if _rolls_out(args) and (args.values["temperature"] == 0 or args.values["do_sample"] is False):
        flag = "--temperature 0" if args.values["temperature"] == 0 else "--do_sample false"
        yield SwiftError(f"{flag} leaves ppo nothing to explore", next="--temperature 0.7, the default of ppo")


def answers_are_scored(args: Args) -> Mistakes:
    """Without a reward model there is no reward."""
    if _rolls_out(args) and not (args.values["reward_model_id_or_path"] or args.values["reward_model_type"]):
        yield SwiftError(
            "ppo has no reward model",
            where="--reward_model_id_or_path",
            next="name a checkpoint of swift rlhf --rlhf_type rm, or a sequence classification model with one label",
        )


def _rolls_out(args: Args) -> bool:
    return args.command == "rlhf" and args.values["rlhf_type"] == "ppo"


RULES = (flags_without_effect_on_roll_outs, answers_are_sampled, answers_are_scored)
