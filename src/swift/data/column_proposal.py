"""For rows of unknown columns: what to write after `--columns`, guessed from names and values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

WORDS = {
    "system": ("system", "persona"),
    "rejected_response": ("reject", "worse", "worst", "lose", "losing", "bad"),
    "response": (
        *("answer", "response", "output", "reply", "completion", "solution", "target", "assistant", "bot", "chosen"),
        *("summary", "translation", "antwort", "respuesta", "réponse", "ответ", "回答", "答案", "输出", "回复"),
    ),
    "query": (
        *("question", "query", "prompt", "instruct", "input", "user", "human", "ask", "problem", "request", "source"),
        *("frage", "pregunta", "вопрос", "问题", "提问", "質問", "指令", "输入"),
    ),
}
"""Parts of the names that people give to the columns of a row, by what these columns are to us."""
NAMED = " to name them so"
NO_TEXT = re.compile(
    r"(^|_)(id|idx|index|uuid|guid|url|date|time|timestamp|lang|language|split|category|topic|type)s?$"
)
"""Names of columns that are about a row."""


def proposal(row: Mapping[str, Any], needed: str | None = None) -> str:
    """What to write for a row of unknown columns, guessed from their names and values.

    Nothing where the guess leaves out what is `needed`.
    """
    guess = _guess(row)
    if not guess or (needed is not None and needed not in guess.values()):
        return ""
    return f", or --columns '{json.dumps(guess, ensure_ascii=False)}'{NAMED}"


def proposed(detail: str | None) -> str | None:
    """The flag that `proposal` has put into the account of a row."""
    match = re.search(rf"--columns '.*?'(?={NAMED})", detail or "")
    return match and match[0]


def _guess(row: Mapping[str, Any]) -> dict[str, str]:
    turns = next((name for name, value in row.items() if is_turns(value)), None)
    if turns is not None:
        return {turns: "messages"}
    texts = [name for name, value in row.items() if isinstance(value, str) and not NO_TEXT.search(plain_name(name))]
    if len(texts) == 1:
        return {texts[0]: "text"}
    meaning: dict[str, str] = {}
    for name in texts:
        new = next((new for new, words in WORDS.items() if any(word in plain_name(name) for word in words)), None)
        if new is not None and new not in meaning:
            meaning[new] = name
    left = [name for name in texts if name not in meaning.values()]
    if left and "query" not in meaning:
        meaning["query"] = left.pop(0)
    if left and "response" not in meaning:
        meaning["response"] = left.pop()
    return {name: new for new, name in meaning.items()} if {"query", "response"} <= set(meaning) else {}


def is_turns(value: Any) -> bool:
    """Whether this is a list of turns, perhaps written as text."""
    if isinstance(value, str):
        return re.match(r"""\[\s*\{\s*["'](role|from)["']\s*:""", value.strip()) is not None
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, Mapping) and ({"role", "content"} <= set(first) or {"from", "value"} <= set(first))


def plain_name(name: str) -> str:
    """The name in the spelling of the known ones: `system_prompt` for `System Prompt` and `systemPrompt`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\s\-]+", "_", words).lower()
