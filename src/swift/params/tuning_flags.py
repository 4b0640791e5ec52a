"""Flags of one tuning method that were given with another, which does not read them: said, as scripts pass them on."""

from __future__ import annotations

from swift.params.args import Args

PEFT = ("lora", "longlora", "adalora", "ia3", "vera", "boft", "fourierft")
OWNERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("target_modules", PEFT),
    ("target_regex", PEFT),
    ("modules_to_save", PEFT),
    ("lora_rank", ("lora", "longlora")),
    ("init_lora_weights", ("lora", "longlora")),
    ("lora_alpha", ("lora", "longlora", "adalora")),
    ("lora_dropout", ("lora", "longlora", "adalora")),
    ("lora_bias_trainable", ("lora", "longlora", "adalora")),
    ("lora_dtype", PEFT),
    ("adalora_", ("adalora",)),
    ("ia3_", ("ia3",)),
    ("vera_", ("vera",)),
    ("boft_", ("boft",)),
    ("fourier_", ("fourierft",)),
    ("reft_", ("reft",)),
    ("llamapro_", ("llamapro",)),
    ("adapter_", ("adapter",)),
)
"""The name of a flag, or the beginning of several, and the values of `--sft_type` that read it."""


def notes(args: Args) -> list[str]:
    """One line for the flags that this run's method does not read, if some were given."""
    sft_type = args.values.get("sft_type")
    if args.command not in ("sft", "pt", "rlhf"):
        return []
    idle = [
        name
        for name in args.values
        if args.is_explicit(name) and args.changed(name) and sft_type not in (owners(name) or (sft_type,))
    ]
    return [f"--sft_type {sft_type} does not read {', '.join(f'--{name}' for name in idle)}"] if idle else []


def owners(name: str) -> tuple[str, ...] | None:
    """The values of `--sft_type` that read a flag; None where the table has none."""
    return next((of for start, of in OWNERS if name == start or (start[-1] == "_" and name.startswith(start))), None)
