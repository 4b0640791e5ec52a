"""What the shipped reward functions give."""

from __future__ import annotations

import pytest

from swift.catalog.rewards import accuracy, format_, soft_overlong

ACCURATE = [
    ("<think>2+2</think><answer> 4 </answer>", "4"),
    ("so it is \\boxed{\\frac{1}{2}}.", "\\boxed{\\frac{1}{2}}"),
    ("<answer>\\boxed{1,000}</answer>", "steps #### 1000"),
    ("Paris.", "paris"),
    ("4.0", "4"),
    ("<answer>3</answer> no, <answer>$5$</answer>", "5"),
]
WRONG = [("5", "4"), ("", "4"), ("<answer>4</answer>", "14"), ("the answer is 4", "4"), ("anything", ""), ("", "")]


def test_accuracy() -> None:
    assert accuracy([given for given, _ in ACCURATE], solution=[truth for _, truth in ACCURATE]) == [1.0] * len(
        ACCURATE
    )
    assert accuracy([given for given, _ in WRONG], answer=[truth for _, truth in WRONG]) == [0.0] * len(WRONG)
    assert accuracy(["4", "5"], solution=["4", None], answer=["9", 5]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>a\nb</think>\n<answer>c</answer>\n", 1.0),
        ("<think></think><answer></answer>", 1.0),
        ("a<answer>c</answer>", 0.0),
        ("<think>a</think><answer>c</answer> and more", 0.0),
        ("<think>a</think><answer>c", 0.0),
        ("<think>a</think><answer>c</answer><answer>d</answer>", 0.0),
    ],
)
def test_format(text: str, reward: float) -> None:
    assert format_([text], prompts=["user: 2+2?"]) == [reward]
    rest = text.removeprefix("<think>")
    assert format_([rest], prompts=["user: 2+2? assistant: <think>\n"]) == [reward]


def test_long_answers_lose_more_and_more() -> None:
    ids = [[0] * size for size in (1, 80, 90, 100)]
    assert soft_overlong(ids, max_completion_length=100, soft_cache_length=20) == [0.0, 0.0, -0.5, -1.0]
