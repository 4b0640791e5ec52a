"""What the answers say together: report.json, report.html and a table."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swift.core.transaction import write_file
from swift.evaluation.compare import Comparison
from swift.evaluation.contamination import Seen
from swift.evaluation.metrics import Mean, mean_of
from swift.evaluation.run_folder import Record
from swift.evaluation.text_table import aligned
from swift.reports.document import document, text
from swift.reports.document import facts as facts_table

OPEN_SCORE = "exact"
"""The score of open questions; the others stand beside it."""


@dataclass(frozen=True)
class Row:
    """One score of one subset (None: of the whole suite)."""

    suite: str
    subset: str | None
    metric: str
    is_score: bool
    """Whether it is the score of the suite; the others stand beside it."""
    mean: Mean
    is_share: bool = True
    """Whether it lies between 0 and 1, and is shown in percent."""

    def numbers(self) -> tuple[str, str]:
        """The mean and its interval for people."""
        scale, digits = (100, 1) if self.is_share else (1, 4)
        mean = self.mean
        interval = (
            ""
            if mean.low is None or mean.high is None
            else f"{scale * mean.low:.{digits}f} - {scale * mean.high:.{digits}f}"
        )
        return f"{scale * mean.mean:.{digits}f}", interval


def rows_of(records: Sequence[Record], choice_score: str) -> list[Row]:
    """The means of every score, of each suite with several subsets first as a whole."""
    groups: dict[tuple[str, str | None], list[Record]] = defaultdict(list)
    for record in records:
        groups[record["suite"], None].append(record)
        groups[record["suite"], record["subset"]].append(record)
    rows = []
    for (suite, subset), group in groups.items():
        if subset is None and len({record["subset"] for record in group}) == 1:
            continue
        for metric in dict.fromkeys(name for record in group for name in record["scores"]):
            values = [record["scores"].get(metric, 0.0) for record in group]
            is_score = metric in (choice_score, OPEN_SCORE)
            rows.append(Row(suite, subset, metric, is_score, mean_of(values)))
    return rows


def write_report(
    folder: Path,
    facts: Mapping[str, Any],
    rows: Sequence[Row],
    records: Sequence[Record],
    other: Comparison | None,
    seen: Sequence[Seen] | None,
) -> None:
    """report.json and report.html in the folder of the run; `seen` is None where no training rows were looked at."""
    compared = None if other is None else asdict(other)
    results = [{**{k: v for k, v in asdict(row).items() if k != "mean"}, **asdict(row.mean)} for row in rows]
    errors = [record["origin"] for record in records if "error" in record]
    report = {**facts, "questions": len(records), "errors": errors, "results": results, "comparison": compared}
    report["seen_in_training"] = None if seen is None else [asdict(each) for each in seen]
    write_file(folder / "report.json", json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    write_file(folder / "report.html", _page(facts, rows, records, other, seen or ()))


LEGEND = "{}: what counts as the score of a suite; shares in percent, of n questions"


def table(rows: Sequence[Row]) -> str:
    """The rows for people, numbers in percent; `*` marks the score of each suite."""
    cells = [("suite", "subset", "score", "n", "mean", "95 % interval")]
    cells += [
        (
            row.suite,
            row.subset or "(all)",
            row.metric + ("*" if row.is_score else ""),
            str(row.mean.n),
            *row.numbers(),
        )
        for row in rows
    ]
    return f"{aligned(cells)}\n{LEGEND.format('*')}"


def _page(
    facts: Mapping[str, Any],
    rows: Sequence[Row],
    records: Sequence[Record],
    other: Comparison | None,
    seen: Sequence[Seen],
) -> str:
    parts = [
        facts_table(facts),
        "<h2>Scores</h2><table><tr><th>suite<th>subset<th>score<th>n<th>mean<th>95 % interval",
        *map(_row, rows),
        f"</table><p class=soft>{LEGEND.format('bold')}",
    ]
    if other is not None:
        parts += [f"<h2>Compared with {text(other.folder)}</h2>", f"<pre>{text(other.table())}</pre>"]
    if seen:
        parts += ["<h2>In the training rows</h2>", *(f"<p>{text(each.question)}: {text(each.row)}" for each in seen)]
    scored = {(row.suite, row.metric) for row in rows if row.is_score}
    parts += ["<h2>Questions</h2>", *(_question(record, scored) for record in records)]
    return document(f"Evaluation of {facts['model']}", parts)


def _row(row: Row) -> str:
    name = f"<b>{text(row.metric)}</b>" if row.is_score else text(row.metric)
    shown, interval = row.numbers()
    numbers = f"<td class=n>{row.mean.n}<td class=n>{shown}<td class=i>{interval}"
    return f"<tr><td>{text(row.suite)}<td>{text(row.subset or '(all)')}<td>{name}{numbers}"


def _question(record: Record, scored: Set[tuple[str, str]]) -> str:
    scores: Mapping[str, float] = record["scores"]
    good = any(value == 1 for name, value in scores.items() if (record["suite"], name) in scored)
    shown = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
    answer = record["answer"]
    written = record.get("error") or _written(answer)
    return (
        f'<details><summary class="{"right" if good else "wrong"}">{"✓" if good else "✗"} {text(record["origin"])}: '
        f"{text(_cut(record['question']))}</summary><pre>{text(record['question'])}</pre><p>{text(shown)}"
        f"<p>right: {text(record['right'])}<p>answered:<pre>{text(written)}</pre>{_likelihoods(answer)}</details>"
    )


def _cut(question: str) -> str:
    return question if len(question) <= 200 else f"{question[:200]}…"


def _written(answer: Mapping[str, Any]) -> str:
    """What was answered, or what was said of each text."""
    if "responses" not in answer:
        return answer["generated"] or ""
    texts = answer.get("texts") or ("",) * len(answer["responses"])
    return "\n".join(f"{text} {response}".strip() for text, response in zip(texts, answer["responses"], strict=True))


def _likelihoods(answer: Mapping[str, Any]) -> str:
    lines: Iterable[str] = (
        f"<p>{name}: " + ", ".join(f"{letter} {value:.3f}" for letter, value in answer[name].items())
        for name in ("letter", "text")
        if answer.get(name)
    )
    return "".join(lines)
