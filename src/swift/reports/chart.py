"""A line chart as inline SVG: one or more named series over the steps of a run, with a text for who cannot see it."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[int, float]]
WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 14, 30
MOST = 400
"""Points of a line that are drawn; of more, the lowest and highest of each stretch."""


class Chart(str):
    """The SVG of a chart, and the names of its lines in the order of their colours."""

    names: tuple[str, ...]

    def __html__(self) -> str:
        """Markup already: templates print it as it is."""
        return str(self)


def chart(title: str, series: Mapping[str, Points]) -> Chart:
    """The chart. Values that are not finite are left out, and a series without points keeps its colour."""
    drawing = Chart(_drawn(title, series))
    drawing.names = tuple(series)
    return drawing


def _drawn(title: str, series: Mapping[str, Points]) -> str:
    finite = {name: [p for p in points if math.isfinite(p[1])] for name, points in series.items()}
    drawn = {name: thinned(points) for name, points in finite.items() if points}
    if not drawn:
        return ""
    steps = [step for points in drawn.values() for step, _ in points]
    values = [value for points in drawn.values() for _, value in points]
    left, right, low, high = *_span(min(steps), max(steps)), *_span(min(values), max(values))

    def x(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (step - left) / (right - left), 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    label = html.escape(_spoken(title, drawn))
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    for value in ticks(low, high, 5):
        parts.append(f'<path class="grid" d="M{LEFT} {y(value)}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="y" x="{LEFT - 6}" y="{y(value) + 4}">{value:.6g}</text>')
    for step in ticks(left, right, 6):
        if step == int(step):
            parts.append(f'<text class="x" x="{x(step)}" y="{HEIGHT - 8}">{int(step)}</text>')
    for number, name in enumerate(series):
        points = drawn.get(name, [])
        if not points:
            continue
        line = "L".join(f"{x(step)} {y(value)}" for step, value in points)
        parts.append(f'<path class="line c{number % 6}" d="M{line}"/>')
        if len(points) < 30:
            parts += [f'<circle class="c{number % 6}" cx="{x(step)}" cy="{y(value)}" r="3"/>' for step, value in points]
    return "".join([*parts, "</svg>"])


def _spoken(title: str, series: Mapping[str, Points]) -> str:
    lines = (
        f"{name}: {points[0][1]:.4g} (step {points[0][0]}), {points[-1][1]:.4g} (step {points[-1][0]}), "
        f"min {min(value for _, value in points):.4g}"
        for name, points in series.items()
    )
    return f"{title}. {'; '.join(lines)}"


def _span(low: float, high: float) -> tuple[float, float]:
    if low == high:
        room = abs(low) * 0.1 or 1.0
        return low - room, high + room
    return low, high


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between `low` and `high`."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step)
    return [round(step * n, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def thinned(points: Points, most: int = MOST) -> list[tuple[int, float]]:
    """At most about `most` points that keep the first, the last and every peak."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(2 * len(points) / most)
    kept: list[tuple[int, float]] = [points[0]]
    for start in range(0, len(points), size):
        piece = points[start : start + size]
        ends = {min(piece, key=lambda p: p[1]), max(piece, key=lambda p: p[1])}
        kept += sorted(ends)
    return [*kept, points[-1]]
