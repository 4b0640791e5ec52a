"""A reward of one's own: `--external_plugins examples/last_number.py --reward_funcs last_number`."""

import re


def last_number(completions, solution, **columns):
    """1 where the last number of an answer is the row's `solution`, else 0."""
    numbers = [re.findall(r"-?\d+", text) for text in completions]
    return [float(found[-1:] == [str(truth)]) for found, truth in zip(numbers, solution, strict=True)]
