from __future__ import annotations

import pytest

from swift.training.generation_eval import last_reply
from swift.training.text_metrics import bleu, scores, words


def test_words_are_runs_of_letters_and_single_chinese_characters() -> None:
    assert words("The cat's 2 mats, 今天 ok") == ["the", "cat", "s", "2", "mats", "今", "天", "ok"]


def test_the_same_text_scores_full_marks() -> None:
    assert scores([("the cat sat down", "The cat sat down.")]) == {
        "rouge-1": 100,
        "rouge-2": 100,
        "rouge-l": 100,
        "bleu-4": 100,
    }


def test_known_values() -> None:
    got = scores([("the cat sat", "the cat lay down")])
    assert got["rouge-1"] == pytest.approx(100 * 2 * 2 / 7)
    assert got["rouge-2"] == pytest.approx(100 * 2 * 1 / 5)
    assert got["rouge-l"] == pytest.approx(100 * 2 * 2 / 7)


def test_agrees_with_the_rouge_package() -> None:
    rouge = pytest.importorskip("rouge")
    pairs = [("a b c d e f", "a c b d f g"), ("x y", "x y z"), ("one two three", "four five six")]
    theirs = rouge.Rouge().get_scores([made for made, _ in pairs], [wanted for _, wanted in pairs], avg=True)
    ours = scores(pairs)
    for name in ("rouge-1", "rouge-2", "rouge-l"):
        assert ours[name] == pytest.approx(100 * theirs[name]["f"], abs=1e-3)


def test_bleu_of_nothing_is_nothing() -> None:
    assert bleu([], ["a"]) == 0
    assert bleu(["b"], ["a"]) == 0
    assert scores([]) == {}


def test_the_last_reply_is_what_is_asked_for() -> None:
    row = {"input_ids": list(range(10)), "labels": [-100, -100, 2, 3, -100, -100, 6, 7, 8, -100]}
    assert last_reply(row) == ([0, 1, 2, 3, 4, 5], [6, 7, 8])
    assert last_reply({"input_ids": [1, 2], "labels": [1, 2]}) is None
    assert last_reply({"input_ids": [1, 2], "labels": [-100, -100]}) is None
