"""Registered data sets: every converter the catalog names exists, takes its options, and reads its columns."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from swift.catalog import load_catalog
from swift.data.adapters import CONVERTERS, converter
from swift.data.formats import convert
from swift.data.source import SourceFile
from swift.prompts.bad_row import BadRow
from swift.prompts.types import Conversation, Preference

CATALOG = load_catalog()


def converted(name: str, record: dict[str, Any], **more: Any) -> Any:
    entry = CATALOG.datasets.get(name)
    file = SourceFile(Path("x"), name, entry.converter, dict(entry.columns), dict(entry.options))
    return convert(converter(file)(record), **more).row


def flat(row: Any) -> list[tuple[str, str]]:
    assert isinstance(row, Conversation)
    return [(message.role, message.content) for message in row.messages]


def test_every_data_set_has_a_converter_that_takes_its_options() -> None:
    for name in CATALOG.datasets:
        entry = CATALOG.datasets.get(name)
        if entry.converter not in ("auto", "rename"):
            assert isinstance(entry.converter, str)
            inspect.signature(CONVERTERS[entry.converter]).bind({}, **entry.options)


def test_every_converter_has_a_data_set() -> None:
    used = {CATALOG.datasets.get(name).converter for name in CATALOG.datasets}
    assert set(CONVERTERS) - used == set()


QA = [("user", "q"), ("assistant", "a")]
HH = "\n\nHuman: q\n\nAssistant: a"
RECORDS: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "alpaca-zh": ({"instruction": "i", "input": "输入：x", "output": "a"}, [("user", "i\nx"), ("assistant", "a")]),
    "open-orca": ({"id": "1", "system_prompt": "s", "question": "q", "response": "a"}, QA),
    "lawyer-llama-zh": ({"instruction": "q", "output": "a", "history": [["x", "y"]]}, QA),
    "github-code": ({"code": "print()"}, [("assistant", "print()")]),
    "sharegpt-gpt4": ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, QA),
    "codefuse-python-en": ({"chat_rounds": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a"}]}, QA),
    "no-robots": ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, QA),
    "jd-sentiment-zh": (
        {"sentence": "好", "label": 1},
        [
            ("user", "Task: Sentiment Classification\nSentence: 好\nCategory: negative, positive\nOutput:"),
            ("assistant", "positive"),
        ],
    ),
    "advertise-gen-zh": (
        {"content": "k", "summary": "a"},
        [
            ("user", "Task: Generating advertisements based on keywords.\nKeywords: k\nAdvertisements:"),
            ("assistant", "a"),
        ],
    ),
    "firefly-zh": ({"kind": "x", "input": "q", "target": "a"}, QA),
    "zhihu-kol": ({"INSTRUCTION": "q", "RESPONSE": "a"}, QA),
    "dolly-15k": ({"instruction": "q", "context": "", "response": "a"}, QA),
    "blossom-math-zh": ({"input": "q", "output": "o", "answer": "1"}, [("user", "q"), ("assistant", "o\n\nAnswer: 1")]),
    "long-alpaca-12k": ({"instruction": "q", "output": "Answer: a"}, QA),
    "guanaco": (
        {"instruction": "User: x\nAssistant: y", "input": "User: q", "output": "a"},
        [("user", "x"), ("assistant", "y"), *QA],
    ),
    "ruozhiba": ({"title": "12. joke"}, [("assistant", "joke")]),
    "tigerbot-law-zh": (
        {"type": "T", "title": "L", "chapter1": None, "content": "text"},
        [("assistant", "T\nL\ntext")],
    ),
    "leetcode-python-en": (
        {"code_with_problem": "# Sum\n\n```python\nx\n```", "explanation_only": "why"},
        [("user", "Sum"), ("assistant", "```python\nx\n```\n\nwhy")],
    ),
    "sharegpt": ({"conversation": [{"human": "q", "assistant": "a"}]}, QA),
    "lmsys-chat-1m": ({"conversation": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, QA),
    "toolbench": (
        {
            "conversations": [
                {"from": "user", "value": "q"},
                {"from": "assistant", "value": "c"},
                {"from": "function", "value": "r"},
                {"from": "assistant", "value": "a"},
            ]
        },
        [("user", "q"), ("assistant", "c"), ("tool", "r"), ("assistant", "a")],
    ),
    "ms-agent-multirole": (
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "Ann", "value": "hi"},
                {"from": "Bob", "value": "yo"},
            ]
        },
        [("system", "s"), ("user", "Ann: hi"), ("assistant", "yo")],
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_become_turns(name: str) -> None:
    record, expected = RECORDS[name]
    found = flat(converted(name, record))
    assert (found if expected[0][0] == "system" else [turn for turn in found if turn[0] != "system"]) == expected


PAIRS: dict[str, dict[str, Any]] = {
    "hh-rlhf": {"chosen": HH, "rejected": HH.replace(": a", ": b")},
    "hh-rlhf-cn": {
        "context": [{"role": "human", "text": "q"}],
        "chosen": {"role": "assistant", "text": "a"},
        "rejected": {"role": "assistant", "text": "b"},
    },
    "shareai-llama3-dpo-zh-en-emoji": {"question": "q", "answer_zh": "a", "answer_en": "b"},
    "stack-exchange-paired": {"question": "q", "response_j": "a", "response_k": "b"},
    "orpo-dpo-mix-40k": {
        "source": "x",
        "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_records_become_preferences(name: str) -> None:
    row = converted(name, PAIRS[name])

    assert isinstance(row, Preference) and row.rejected is not None
    assert flat(row.chosen) == QA
    assert flat(row.rejected)[-1] == ("assistant", "b")


def test_labels_and_what_is_not_for_training() -> None:
    liked = converted("ultrafeedback-kto", {"prompt": "q", "completion": "a", "label": False}, labelled=True)
    assert isinstance(liked, Preference) and liked.label is False
    with pytest.raises(BadRow, match="not for training"):
        converted("orpo-dpo-mix-40k", {"source": "toxic-dpo-v0.2"})
    with pytest.raises(BadRow, match="label: expected a number below 2"):
        converted("jd-sentiment-zh", {"sentence": "x", "label": -1})
