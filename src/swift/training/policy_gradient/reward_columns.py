"""Which columns of the rows the reward functions read: looked at before the weights are loaded."""

from __future__ import annotations

from typing import Any

from swift.catalog.rewards import load_rewards
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.plan.grpo import GrpoPlan


def check_columns(plan: GrpoPlan, rows: Any) -> None:
    """Say which they are. Raises SwiftError for a row of `rows` (a store by index) without one of them."""
    functions = load_rewards(plan.functions, plan.plugins)
    needs = [(function.name, group) for function in functions for group in function.needs]
    if not needs:
        return
    for number in range(len(rows)):
        row = rows.fields(number)
        for name, group in needs:
            if all(row.get(column) is None for column in group):
                raise SwiftError(
                    f"the reward function {name} needs the column {' or '.join(group)}",
                    where=rows.origin(number),
                    why=f"the row has {', '.join(row)}",
                    next="add the column, leave the row out, or leave the function out of --reward_funcs",
                )
    read = ", ".join(f"{' or '.join(group)} ({name})" for name, group in needs)
    log.info("columns of the rows that rewards read: %s", read)
