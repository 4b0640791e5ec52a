"""Which letter an answer gives, and what scores say together."""

from __future__ import annotations

import pytest

from swift.evaluation.answerers import Answer
from swift.evaluation.ask import scores_of
from swift.evaluation.choice_prompt import conversation, letter_of
from swift.evaluation.metrics import holds, mcnemar, mean_of, open_scores
from swift.evaluation.questions import Choice, Open
from swift.prompts.types import Origin


def choice(question: str = "Which planet is red?", **options: str) -> Choice:
    given = options or {"A": "Venus", "B": "Earth", "C": "Mars", "D": "a dog"}
    return Choice(Origin("q.csv", 2), "1", question, given, "C")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *((text, "C") for text in ("C", "c", "C) Mars", "(C)", "**C**. Mars", "C. Mars", "C Mars", "It is C", "Mars")),
        *((text, "C") for text in ("The answer is C.", "Answer: C", "the correct answer is (c)", "Option C", "C\nfor")),
        *((text, "C") for text in ("答案：C", "应该选C", "正确答案是C。", "选项 C 正确", r"\boxed{C}")),
        ("I think it is option B, no wait, the answer is C", "C"),
        ("<think>A or B?</think>C. Mars", "C"),
        ("<think>A, no, the answer is B", None),
        ("A red one is Mars", "C"),
        ("The answer is Mars", "C"),
        ("The answer is a dog", "D"),
        ("A", "A"),
        *((text, None) for text in ("", "I don't know", "B or C", "A, B and C are planets", "Earth and Mars", "E")),
    ],
)
def test_the_letter_of_a_written_answer(answer: str, letter: str | None) -> None:
    assert letter_of(answer, choice()) == letter


def test_the_prompt_shows_solved_ones_and_speaks_the_question_s_language() -> None:
    (message,) = conversation(choice(), [choice("Which is hot?")]).messages
    assert message.content.endswith("Which planet is red?\nA. Venus\nB. Earth\nC. Mars\nD. a dog\nAnswer:")
    assert "D. a dog\nAnswer: C\n\nWhich planet" in message.content
    assert conversation(choice("哪个是红色的？"), []).messages[0].content.endswith("答案：")


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("Paris.", ["paris"], {"exact": 1, "contains": 1, "rouge-1": 1, "rouge-l": 1}),
        ("It is Paris, of course", ["Paris", "Lutetia"], {"exact": 0, "contains": 1}),
        ("120", ["12"], {"exact": 0, "contains": 0}),
        ("答案是12元。", ["12"], {"contains": 1}),
        ("北京市", ["北京"], {"exact": 0, "contains": 1, "rouge-1": 0.8}),
        ("", ["x"], {"exact": 0, "contains": 0, "rouge-1": 0, "bleu-4": 0}),
        ("１２　", ["12"], {"exact": 1}),
    ],
)
def test_scores_of_open_answers(answer: str, references: list[str], expected: dict[str, float]) -> None:
    scores = open_scores(answer, references)
    assert {name: scores[name] for name in expected} == pytest.approx(expected)


def test_thinking_is_no_part_of_an_answer() -> None:
    question = Open(Origin("q.jsonl", 1), "1", conversation(choice(), []), ("Paris",))
    for generated, exact in (("<think>Rome? No.</think>\n\nParis.", 1), ("Paris", 1), ("<think>Paris", 0)):
        assert scores_of(question, Answer(generated))["exact"] == exact


def test_intervals() -> None:
    few = mean_of([1, 0, 1, 1])  # Wilson, as in the tables of Newcombe (1998)
    assert (few.n, few.mean) == (4, 0.75)
    assert (few.low, few.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    none = mean_of([0] * 10)
    assert (none.low, none.high) == pytest.approx((0, 0.2775), abs=1e-4)
    graded = mean_of([0.2, 0.4, 0.6])
    assert (graded.low, graded.high) == pytest.approx((0.4 - 0.2263, 0.4 + 0.2263), abs=1e-4)
    assert mean_of([0.5]).low == mean_of([0.5]).high == 0.5


def test_the_exact_test_of_changes() -> None:
    assert mcnemar(8, 2) == pytest.approx(0.109375)
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 10) == pytest.approx(2 / 1024)


def test_a_part_is_no_piece_of_a_word() -> None:
    assert not holds("concat", "cat") and holds("the cat.", "cat") and holds("(cat)", "cat")
