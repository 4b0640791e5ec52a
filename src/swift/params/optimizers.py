"""What the flags of GaLore, LISA and the loss say together; see `swift.params.rules`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from swift.core.errors import SwiftError
from swift.params.args import Args
from swift.params.commands import COMMANDS

Mistakes = Iterator[SwiftError]
TRAINING = ("sft", "pt", "rlhf")
SIDES = ("std", "reverse_std", "right", "left", "full")
INSIDE = ("adamw", "paged_adamw", "adafactor", "sgd")
"""Beginnings of the names of optimizers whose steps do not depend on the weights."""
OF_Q_GALORE = ("proj_quant", "proj_bits", "proj_group_size", "cos_threshold", "gamma_proj", "queue_size")
LOSSES = ("long-ce", "loss-scale")
OF_EVALUATIONS = ("reduce_lr_on_plateau", "greedy")
"""Schedules of the learning rate that go by evaluations."""


def flags_of_galore_need_it(args: Args) -> Mistakes:
    given = [name for name in COMMANDS[args.command].flags if name.startswith("galore_") and args.changed(name)]
    on, quantized = args.values.get("use_galore"), args.values.get("galore_quantization")
    for name in given:
        if not on:
            yield SwiftError(f"--{name} is for GaLore, which is off", next="add --use_galore true")
        elif name.removeprefix("galore_") in OF_Q_GALORE and not quantized:
            yield SwiftError(f"--{name} is a flag of Q-GaLore", next="add --galore_quantization true")


def galore_has_whole_weights_to_project(args: Args) -> Mistakes:
    if not args.values.get("use_galore"):
        return
    kind, optim, side = args.values["sft_type"], str(args.values["optim"]), args.values["galore_proj_type"]
    if kind not in ("full", "llamapro"):
        yield SwiftError(f"GaLore works on whole weights, which {kind} does not train", next="add --sft_type full")
    if not optim.startswith(INSIDE):
        yield SwiftError(
            f"GaLore does not work inside --optim {optim}", next="use adamw_torch, adafactor or adamw_8bit"
        )
    if side not in SIDES:
        yield SwiftError(f"--galore_proj_type takes {', '.join(SIDES)}, not {side}")


def galore_per_parameter_sees_one_pass_a_step(args: Args) -> Mistakes:
    if not (args.values.get("use_galore") and args.values["galore_optim_per_parameter"]):
        return
    flag = "--galore_optim_per_parameter true"
    if args.values["gradient_accumulation_steps"] != 1:
        yield SwiftError(
            f"{flag} steps in every backward pass, so gradients cannot be accumulated",
            next="add --gradient_accumulation_steps 1",
        )
    for name in ("auto_find_batch_size", "rehearse"):
        if args.values[name]:
            yield SwiftError(f"{flag} does not go with --{name} true, which accumulates", next="drop one")
    if args.is_explicit("max_grad_norm") and args.values["max_grad_norm"]:
        yield SwiftError(
            f"{flag} has no norm of all gradients to clip by", next="drop --max_grad_norm: they are not clipped"
        )


def lisa_needs_full_tuning(args: Args) -> Mistakes:
    if args.command not in TRAINING:
        return
    if args.changed("lisa_step_interval") and not args.values["lisa_activated_layers"]:
        yield SwiftError("--lisa_step_interval is for LISA, which is off", next="add --lisa_activated_layers 2")
    if args.values["lisa_activated_layers"] and args.values["use_galore"]:
        yield SwiftError("LISA and GaLore do not go together", next="drop one of the two")
    if args.values["lisa_activated_layers"] and args.values["sft_type"] != "full":
        yield SwiftError("LISA works with full tuning only", next="add --sft_type full")


def a_loss_is_known(args: Args) -> Mistakes:
    name = args.values.get("loss_name")
    if name is None:
        return
    if name not in LOSSES:
        yield SwiftError(f"--loss_name takes {' or '.join(LOSSES)}, not {name}", next="leave it out for cross-entropy")
    elif args.command == "rlhf":
        yield SwiftError(
            f"--loss_name {name} is a loss of swift sft and swift pt", next="--loss_type names one of swift rlhf"
        )


RULES: tuple[Callable[[Args], Mistakes], ...] = (
    flags_of_galore_need_it,
    galore_has_whole_weights_to_project,
    galore_per_parameter_sees_one_pass_a_step,
    lisa_needs_full_tuning,
    a_loss_is_known,
)
