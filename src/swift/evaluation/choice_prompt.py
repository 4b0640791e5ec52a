"""How a multiple-choice question is put, and which letter an answer gives."""

from __future__ import annotations

import re
from collections.abc import Sequence

from swift.evaluation.metrics import holds
from swift.evaluation.questions import Choice
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Conversation, Media, Message

CHINESE = re.compile(r"[㐀-鿿]")
INTRODUCTION = (
    "Answer the multiple choice question with the letter of the right option.",
    "请回答下面的单项选择题，只给出正确选项的字母。",
)
ANSWER = ("Answer:", "答案：")
THINKING = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
SAID = (
    r"(?:answer|option|choice)\s*(?:is|:)?\s*:?\s*[\(\[\*\{{\"'`]*([{letters}])(?![A-Za-z])",
    r"(?:答案|选项|选择|选|应为)\s*(?:应该)?\s*(?:是|为|选)?\s*[:：]?\s*[\(（\[\*「“\"]*([{letters}])(?![A-Za-z])",
    r"\\boxed\{{\s*(?:\\text\{{)?\s*([{letters}])",
)
"""Ways to name the answer in a sentence; the last one in the text counts."""
FIRST = r"\s*[\(（\[\*\"'`]*([{letters}])(?:[\)）\]\*\"'`.:：、]|\s*\n|\s*\Z)"
"""The answer begins with the letter itself: `B`, `(B)`, `B) Mars`, `**B**. Mars`."""
ARTICLE = re.compile(r"[Aa] [a-z]")
"""`A` before a word in small letters: `A red one`."""
ALONE = r"(?<![A-Za-z])([{letters}])(?![A-Za-z'])"


def conversation(question: Choice, shots: Sequence[Choice]) -> Conversation:
    """The question with its options, solved ones before it, as one turn of the user; it ends with `Answer:`.

    What has no tag in the text stands before the question it belongs to.
    """
    language = 1 if CHINESE.search(question.question) else 0
    solved = [f"{_shown(shot, language)} {shot.answer}" for shot in shots]
    text = "\n\n".join([INTRODUCTION[language], *solved, _shown(question, language)])
    system = () if question.system is None else (Message("system", question.system),)
    every = [*shots, question]
    shown = Media(
        tuple(link for each in every for link in each.media.images),
        tuple(link for each in every for link in each.media.videos),
        tuple(link for each in every for link in each.media.audios),
    )
    return Conversation((*system, Message("user", text)), media=shown, origin=question.origin)


def letter_of(answer: str, question: Choice) -> str | None:
    """The option that a written answer names, None when it names none or several.

    Thinking is left out. A sentence that says which is the answer comes first, then an answer that begins with the
    letter, then the only letter or the only option's text in it.
    """
    text = without_thinking(answer)
    letters = "".join(question.options)
    for pattern in SAID:
        found = re.finditer(pattern.format(letters=letters), text, re.IGNORECASE)
        named = [match.group(1).upper() for match in found if not ARTICLE.match(text, match.start(1))]
        if named:
            return named[-1]
    if first := re.match(FIRST.format(letters=letters), text if len(text) > 1 else text.upper()):
        return first.group(1)
    alone = re.finditer(ALONE.format(letters=letters), text)
    named = [match.group(1) for match in alone if not ARTICLE.match(text, match.start(1))]
    if named:
        return named[0] if len(set(named)) == 1 else None
    written = [letter for letter, option in question.options.items() if holds(text.casefold(), option.casefold())]
    return written[0] if len(written) == 1 else None


def without_thinking(answer: str) -> str:
    """What an answer says after its thinking; nothing where that does not end."""
    return THINKING.sub("", answer).strip()


def _shown(question: Choice, language: int) -> str:
    options = (f"{letter}. {text}" for letter, text in question.options.items())
    return "\n".join((_tagged(question), *options, ANSWER[language]))


def _tagged(question: Choice) -> str:
    """Its text with a tag for each of its media, so that those of several questions stay apart."""
    text = question.question
    for kind, tag in MEDIA_TAGS.items():
        text = tag * (len(question.media.of(kind)) - text.count(tag)) + text
    return text
