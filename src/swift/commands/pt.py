"""`swift pt`: continue pre-training on plain text; fine-tuning with other defaults (see `swift.params.commands`)."""

from __future__ import annotations

from swift.params.args import Args


def run(args: Args) -> int:
    """As `swift sft`. -> exit code."""
    from swift.commands.sft import run as run_sft

    return run_sft(args)
