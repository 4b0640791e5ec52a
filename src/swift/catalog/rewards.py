"""Reward functions by name: those that we ship, and those in the files of `--external_plugins`.

A reward function takes the texts of answers and gives a number for each, or None where it does not judge one. It is
called with keywords, of which it gets those that it names (all of them with `**kwargs`): `completions`, `prompts`,
`token_ids`, `ended`, `max_completion_length`, `soft_cache_length`, and each column of the rows as a list.
"""

from __future__ import annotations

import inspect
import math
import re
import runpy
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError

OFFERED = ("completions", "prompts", "token_ids", "ended", "max_completion_length", "soft_cache_length")
"""Keywords that do not come from the rows."""
THOUGHT = re.compile(
    r"\s*<think>(?:(?!</?think>).)*</think>\s*<answer>(?:(?!</?answer>).)*</answer>\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class RewardFunction:
    """One reward, and what it needs to know."""

    name: str
    function: Callable[..., Any]
    needs: tuple[tuple[str, ...], ...]
    """Columns that a row must have, of each group one."""
    file: Path | None
    """The plugin that it comes from."""

    def __call__(self, known: Mapping[str, Any], origins: Sequence[str]) -> list[float | None]:
        """The rewards of answers to the rows at `origins`. Raises SwiftError naming the line of a plugin that fails."""
        taken = inspect.signature(self.function).parameters.values()
        everything = any(one.kind is one.VAR_KEYWORD for one in taken)
        names = {one.name for one in taken}
        given = {name: value for name, value in known.items() if everything or name in names}
        try:
            rewards = list(self.function(**given))
        except SwiftError:
            raise
        except (Exception, SystemExit) as error:  # The function may be the user's: anything can be wrong in it.
            raise self._failed(error) from error
        if len(rewards) != len(origins):
            raise SwiftError(
                f"the reward function {self.name} gave {len(rewards)} rewards for {len(origins)} answers",
                where=str(self.file or "--reward_funcs"),
                next="return a list with a number for each of `completions`",
            )
        return [self._number(reward, origin) for reward, origin in zip(rewards, origins, strict=True)]

    def _number(self, reward: Any, origin: str) -> float | None:
        if reward is None:
            return None
        try:
            value = float(reward)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise SwiftError(
                f"the reward function {self.name} gave {reward!r}, which is no finite number",
                where=f"{self.file or '--reward_funcs'}, for an answer to {origin}",
                next="return a number, or None where an answer is not judged",
            )
        return value

    def _failed(self, error: Exception | SystemExit) -> SwiftError:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(self.file)]
        return SwiftError(
            f"the reward function {self.name} failed: {type(error).__name__}: {error}",
            where=f"{self.file}:{own[-1].lineno}" if own else str(self.file or "--reward_funcs"),
            next="it is called with keywords: completions, prompts and the columns of the rows, a list each",
        )


def load_rewards(names: Sequence[str], plugins: Sequence[Path]) -> list[RewardFunction]:
    """The functions of these names; a plugin's wins over ours. Raises SwiftError for unknown names and broken files."""
    own = {name: (function, path) for path in plugins for name, function in _callables(path).items()}
    loaded = []
    for name in names:
        if name in own:
            function, path = own[name]
            loaded.append(RewardFunction(name, function, _needs(function), path))
        elif name in SHIPPED:
            function, needs = SHIPPED[name]
            loaded.append(RewardFunction(name, function, needs, None))
        else:
            there = (*own, *SHIPPED)
            raise SwiftError(
                f"there is no reward function {name!r}",
                where="--reward_funcs",
                next=suggestion(name, there)
                or f"one of {', '.join(there)}, or your own in a file of --external_plugins",
            )
    idle = [path for path in plugins if not any(function.file == path for function in loaded)]
    if idle:
        raise SwiftError(
            f"{idle[0]} defines none of the functions that --reward_funcs names",
            where="--external_plugins",
            next=f"name one of {', '.join(_callables(idle[0])) or 'its functions'}, or leave the file out",
        )
    return loaded


def _needs(function: Callable[..., Any]) -> tuple[tuple[str, ...], ...]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = inspect.signature(function).parameters.values()
    required = [one.name for one in taken if one.kind in kinds and one.default is inspect.Parameter.empty]
    return tuple((name,) for name in required if name not in OFFERED)


@cache
def _callables(path: Path) -> dict[str, Callable[..., Any]]:
    """The functions that a file defines, and an object of each class that can be called."""
    if not path.is_file():
        raise SwiftError(f"there is no file {path}", where="--external_plugins", next="give the path of a Python file")
    try:
        values = runpy.run_path(str(path), run_name="swift_external_plugin")
        return {
            name: value() if isinstance(value, type) else value
            for name, value in values.items()
            if not name.startswith("_") and callable(value) and _defined_here(value)
        }
    except SwiftError:
        raise
    except (Exception, SystemExit) as error:  # The file is the user's: anything can be wrong in it.
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else own[-1].lineno if own else None
        raise SwiftError(
            f"the plugin failed: {type(error).__name__}: {error}",
            where=f"{path}:{line}" if line else str(path),
            next="define functions `def NAME(completions, **columns)` that return a list of numbers",
        ) from error


def _defined_here(value: Any) -> bool:
    if isinstance(value, type):
        return value.__module__ == "swift_external_plugin" and callable(vars(value).get("__call__"))
    return inspect.isfunction(value) and value.__module__ == "swift_external_plugin"


# What we ship, under the names of later ms-swift.


def accuracy(completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
    """1 where an answer is the row's `solution` (or `answer`), else 0.

    Of both, what stands in the last `<answer>`, else in the last `\\boxed{}`, else behind `####`, else all of it;
    blanks, case and `$` do not count, and numbers compare as numbers.
    """
    solutions = columns.get("solution") or [None] * len(completions)
    answers = columns.get("answer") or [None] * len(completions)
    wanted = (answer if solution is None else solution for solution, answer in zip(solutions, answers, strict=True))
    return [float(_same(given, str(truth))) for given, truth in zip(completions, wanted, strict=True)]


def _same(given: str, truth: str) -> bool:
    one, other = _final(given), _final(truth)
    if not other:
        return False
    try:
        return Decimal(one.replace(",", "")) == Decimal(other.replace(",", ""))
    except InvalidOperation:
        return one == other


def _final(text: str) -> str:
    tagged = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    text = tagged[-1] if tagged else text
    if (start := text.rfind(r"\boxed{")) >= 0:
        text = _braced(text[start + len(r"\boxed{") :])
    elif "####" in text:
        text = text.rpartition("####")[2]
    return "".join(text.split()).strip("$").rstrip(".").casefold()


def _braced(text: str) -> str:
    """Up to the brace that closes one that is open already."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return text[:place]
    return text


def format_(completions: Sequence[str], prompts: Sequence[str]) -> list[float]:
    """1 where an answer is `<think>…</think><answer>…</answer>` and nothing else, else 0.

    Some chat templates write `<think>` themselves, at the end of the prompt.
    """
    begun = ("<think>" if prompt.rstrip().endswith("<think>") else "" for prompt in prompts)
    return [float(THOUGHT.fullmatch(start + text) is not None) for start, text in zip(begun, completions, strict=True)]


def soft_overlong(
    token_ids: Sequence[Sequence[int]], max_completion_length: int, soft_cache_length: int
) -> list[float]:
    """0 up to `max_completion_length - soft_cache_length` tokens, then falling to -1.

    DAPO, arXiv 2503.14476, equation 13.
    """
    expected = max_completion_length - soft_cache_length
    return [min(0.0, (expected - len(ids)) / soft_cache_length) for ids in token_ids]


SHIPPED: Mapping[str, tuple[Callable[..., Any], tuple[tuple[str, ...], ...]]] = {
    "accuracy": (accuracy, (("solution", "answer"),)),
    "format": (format_, ()),
    "soft_overlong": (soft_overlong, ()),
}
