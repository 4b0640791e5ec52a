"""A picture and a sound that need no file, for what is tried on a model before it is used."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Collection

from PIL import Image

from swift.prompts.types import Media

RATE, SAMPLES = 16000, 8000


def sample(kinds: Collection[str], size: tuple[int, int] = (64, 48)) -> Media:
    """A picture of `size`, or half a second of sound for a model that takes no pictures."""
    return Media(images=(_picture(size),)) if "images" in kinds else Media(audios=(_sound(),))


def _picture(size: tuple[int, int]) -> str:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _sound() -> str:
    """It rises and falls."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, RATE, 0, "NONE", ""))
        sound.writeframes(b"".join((number % 400 * 50).to_bytes(2, "little") for number in range(SAMPLES)))
    return "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()
