"""What the chat page holds as a conversation, and what of it got no answer."""

from __future__ import annotations

from swift.prompts.types import Media, Message
from swift.ui.chat_turn import Turn, conversation, unanswered

FILE = {"type": "file", "file": {"path": "/tmp/a.png"}}
TALK: list[Turn] = [
    {"role": "user", "content": [FILE]},
    {"role": "user", "content": "What?"},
    {"role": "assistant", "content": ""},
    {"role": "user", "content": "And?"},
]


def test_an_answer_of_no_words_is_one() -> None:
    said = [Message("user", "<image>What?"), Message("assistant", ""), Message("user", "And?")]
    talk = conversation(TALK, "")
    assert (list(talk.messages), talk.media) == (said, Media(("/tmp/a.png",)))


def test_files_without_a_word_are_a_question_of_their_own() -> None:
    talk = conversation([TALK[0], {"role": "assistant", "content": "A."}, TALK[3]], "")
    assert talk.messages == (Message("user", "<image>"), Message("assistant", "A."), Message("user", "And?"))


def test_what_was_asked_since_the_last_answer_is_parted_from_the_talk() -> None:
    assert unanswered(TALK) == (TALK[:3], {"text": "And?", "files": []})
    assert unanswered(TALK[:2]) == ([], {"text": "What?", "files": ["/tmp/a.png"]})
    assert unanswered(TALK[:3]) == (TALK[:3], {"text": "", "files": []})
