"""An HTML page in one file: style and pictures inside, nothing from elsewhere, readable offline and on a phone."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from swift.reports.chart import Chart

CHART_STYLE = Path(__file__).with_name("chart.css")
"""Colours and charts, also for pages with a style of their own."""
_STYLE = Path(__file__).with_name("document.css")


def document(title: str, parts: Iterable[str]) -> str:
    """The page: its heading is its title, `parts` are HTML."""
    style = "".join(file.read_text(encoding="utf-8") for file in (CHART_STYLE, _STYLE))
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{style}</style><h1>{text(title)}</h1>"
    )
    return "\n".join([head, *parts]) + "\n"


def text(value: Any) -> str:
    """A value as text, nothing of which is markup."""
    return html.escape(str(value))


def facts(pairs: Mapping[str, Any]) -> str:
    """A table of names and values."""
    rows = (f"<tr><th>{text(name)}<td>{text(value)}" for name, value in pairs.items())
    return f"<table>{''.join(rows)}</table>"


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table with a heading; every cell is text, and the first is not broken where there is room."""
    lines = ("".join(f"<td>{text(cell)}" for cell in row).replace("<td>", "<tr><td class=i>", 1) for row in rows)
    return f"<table><tr>{''.join(f'<th>{text(name)}' for name in head)}{''.join(lines)}</table>"


def figure(title: str, drawing: Chart) -> str:
    """A chart with its title, and the names of its lines where there are several."""
    names = (f' <span class="swatch c{number % 6}"></span>{text(name)}' for number, name in enumerate(drawing.names))
    legend = "".join(names) if len(drawing.names) > 1 else ""
    return f"<figure><figcaption>{text(title)}{legend}</figcaption>{drawing}</figure>"
