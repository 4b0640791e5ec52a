"""What is wrong between flags that were read well, found before anything starts."""

from __future__ import annotations

from collections.abc import Iterator

from swift.core.errors import SwiftError
from swift.params import leftovers, rules
from swift.params.args import Args


def mistakes(args: Args, *, unsure: bool) -> Iterator[SwiftError]:
    """One error a mistake; with `unsure`, some flags could not be read, and nothing is said to be missing."""
    yield from leftovers.check(args)
    yield from rules.check(args, unsure=unsure)
    if args.is_explicit("model_type") or args.is_explicit("template_type") or args.is_explicit("dataset"):
        from swift.plan.known_names import unknown_names

        yield from unknown_names(args)
