"""How the command itself behaves."""

from __future__ import annotations

from typing import Annotated, Literal

from swift.params.flag import Bare, Ours
from swift.params.frozen import Frozen


class Run(Frozen):
    """How the command itself behaves."""

    ignore_args_error: bool = False
    """Report unknown flags in one warning instead of stopping."""
    debug: Annotated[bool, Ours()] = False
    """Show the full traceback when something fails."""
    print_config: Annotated[Literal["yaml", "json"] | None, Ours(), Bare("yaml")] = None
    """Print the value of every flag and where it comes from, and stop."""
