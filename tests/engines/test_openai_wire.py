"""Media of a conversation as OpenAI's parts, and prompts as vLLM is given them."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from PIL import Image

from swift.core.errors import SwiftError
from swift.engines.openai_wire import wire_messages
from swift.prompts.types import Media, Message


def test_tags_become_parts_in_their_order_and_files_data_urls(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    link = "data:image/png;base64," + base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    messages = [
        Message("system", "Be brief."),
        Message("user", "See <image> and <image>?"),
        Message("assistant", "Yes."),
        Message("user", "Plain"),
    ]
    media = Media(images=(str(tmp_path / "a.png"), "https://example.org/b.png"), audios=(str(tmp_path / "b.wav"),))
    system, first, answer, last = (message["content"] for message in wire_messages(messages, media))
    assert (system, answer, last) == ("Be brief.", "Yes.", "Plain")
    sound = {"type": "audio_url", "audio_url": {"url": first[0]["audio_url"]["url"]}}
    assert sound["audio_url"]["url"].endswith(";base64,UklGRg==")
    assert first == [
        sound,
        {"type": "text", "text": "See "},
        {"type": "image_url", "image_url": {"url": link}},
        {"type": "text", "text": " and "},
        {"type": "image_url", "image_url": {"url": "https://example.org/b.png"}},
        {"type": "text", "text": "?"},
    ]
    assert wire_messages([Message("user", "An <image> of words")])[0]["content"] == "An <image> of words"
    for images in (("gone.png", "a.png"), ("https://example.org/b.png",)):
        with pytest.raises(SwiftError):
            wire_messages(messages, Media(images=images))
    with pytest.raises(SwiftError, match="list of frames"):
        wire_messages([Message("user", "?")], Media(videos=(("a.png",),)))
