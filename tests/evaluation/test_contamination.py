"""Questions that stand in training rows are found, whatever is around them."""

from __future__ import annotations

import pytest

from swift.evaluation.contamination import find
from swift.evaluation.questions import Choice, Subset
from swift.prompts.types import Origin


@pytest.mark.parametrize(
    ("question", "turn", "there"),
    [
        ("Which planet of our system is the largest of all?", "which planet of our system is THE largest of all", True),
        ("Which planet is red?", "Hello. Which planet is red? Tell me.", True),
        ("Which planet of our system is the largest of all?", "Which planet of our system is the largest one?", False),
        ("Who?", "Who?", True),
        ("Who?", "Who are you?", False),
        ("中国的首都是哪里？", "请问中国的首都是哪里", True),
        ("Which planet is red?", "", False),
        ("?", "anything", False),
    ],
)
def test_word_for_word(question: str, turn: str, there: bool) -> None:
    choice = Choice(Origin("q.csv", 2), "1", question, {"A": "x", "B": "y"}, "A")
    seen = find([Subset("s", "s", (choice,))], [("other", "nothing of it"), ("rows.jsonl:7", turn)])
    assert [(each.question, each.row) for each in seen] == ([("q.csv:2", "rows.jsonl:7")] if there else [])
