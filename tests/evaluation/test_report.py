"""The page of an evaluation: everything in one file, and nothing of the questions taken for HTML."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from swift.evaluation.metrics import Mean
from swift.evaluation.report import Row, rows_of, table, write_report


class Parts(HTMLParser):
    """Counts tags and keeps what is outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = '<script>alert("x")</script> & <b>bold</b>'


def record(**other: Any) -> dict[str, Any]:
    answer = {"generated": EVIL, "finish_reason": "stop", "letter": {"A": -1.0, "B": -2.0}, "text": None, "error": None}
    kept = {"suite": EVIL, "subset": EVIL, "id": "1", "origin": f"{EVIL}.csv:2", "key": "k", "prompt": [], "right": "A"}
    return {**kept, "question": EVIL, "answer": answer, "scores": {"letter": 1.0}, **other}


def test_the_page_is_whole_and_shows_texts_as_they_are(tmp_path: Path) -> None:
    records = [record(), record(answer={"responses": [[-1.5, True]], "texts": [EVIL]}), record(error=EVIL)]
    rows = [*rows_of(records, "letter"), Row("tasks", None, "perplexity", True, Mean(3, 12.5, None, None), False)]
    write_report(tmp_path, {"model": EVIL, "harness": "x"}, rows, records, None, None)
    parts = Parts()
    parts.feed((tmp_path / "report.html").read_text())
    assert "script" not in parts.tags and "b" in parts.tags  # the score of the suite is bold, nothing else
    assert parts.links == []
    assert parts.text.count(EVIL) >= 10 and "12.5000" in parts.text and "100.0" in parts.text
    assert parts.tags.count("details") == len(records)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["results"][-1]["mean"] == 12.5 and report["results"][-1]["low"] is None
    assert "12.5000" in table(rows)
