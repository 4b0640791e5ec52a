"""A line chart as an image: axes, round numbers, the values pale and their trend strong.

Drawn with Pillow: a plotting library needs seconds to import and to draw the dozen images of a run, this a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SIZE = (800, 500)
MARGINS = (84, 44, 24, 48)
"""Left, top, right, bottom."""
SCALE = 2
"""Drawn this much larger and shrunk, which smooths the lines."""
INK, GRID, PALE, STRONG = "#444444", "#e4e4e4", "#c9daf8", "#1a73e8"


def chart(title: str, series: Sequence[tuple[int, float]], trend: Sequence[float]) -> Image.Image:
    """The chart of `series`, (step, value) pairs, with `trend`, one value a pair, on top."""
    image = Image.new("RGB", (SIZE[0] * SCALE, SIZE[1] * SCALE), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(13 * SCALE)
    steps, values = [step for step, _ in series], [value for _, value in series]
    left, right, low, high = *_span(steps), *_span([*values, *trend])

    def at(step: float, value: float) -> tuple[float, float]:
        width, height = SIZE[0] - MARGINS[0] - MARGINS[2], SIZE[1] - MARGINS[1] - MARGINS[3]
        x = MARGINS[0] + width * (step - left) / (right - left)
        y = MARGINS[1] + height * (high - value) / (high - low)
        return x * SCALE, y * SCALE

    for value in ticks(low, high):
        pen.line([at(left, value), at(right, value)], fill=GRID, width=SCALE)
        x, y = at(left, value)
        pen.text((x - 8 * SCALE, y), f"{value:.6g}", fill=INK, font=font, anchor="rm")
    for step in ticks(left, right):
        if step == int(step):
            pen.line([at(step, low), at(step, high)], fill=GRID, width=SCALE)
            x, y = at(step, low)
            pen.text((x, y + 8 * SCALE), f"{int(step)}", fill=INK, font=font, anchor="ma")
    pen.rectangle([at(left, high), at(right, low)], outline=INK, width=SCALE)
    pen.text((SIZE[0] * SCALE / 2, MARGINS[1] * SCALE / 2), title, fill="black", font=font, anchor="mm")
    pen.text((SIZE[0] * SCALE / 2, (SIZE[1] - 14) * SCALE), "step", fill=INK, font=font, anchor="mm")

    if len(series) > 1:
        pen.line([at(*point) for point in series], fill=PALE, width=2 * SCALE, joint="curve")
        pen.line([at(step, value) for step, value in zip(steps, trend, strict=True)], fill=STRONG, width=2 * SCALE)
    for point in series if len(series) < 3 else ():
        x, y = at(*point)
        pen.ellipse([x - 4 * SCALE, y - 4 * SCALE, x + 4 * SCALE, y + 4 * SCALE], fill=STRONG)
    return image.resize(SIZE, Image.Resampling.LANCZOS)


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, about so many: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis: a little more than the values take, and never nothing."""
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
    return low - room, high + room
