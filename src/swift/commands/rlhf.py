"""`swift rlhf`: align a model with preferences; the way of `swift sft` with another row of `swift.plan.methods`."""

from __future__ import annotations

from swift.params.args import Args


def run(args: Args) -> int:
    """As `swift sft`. -> exit code."""
    from swift.commands.sft import run as run_sft

    return run_sft(args)
