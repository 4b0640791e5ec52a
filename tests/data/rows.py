"""Small files of rows, runs over them, and what their ledger says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swift import data
from swift.catalog import load_catalog
from swift.data.ledger import Ledger
from swift.params.parse import parse
from swift.plan.data import DataPlan, plan_data
from swift.prompts.encode import Encoder


def plan(*argv: str, command: str = "sft") -> DataPlan:
    """The data plan of a command line."""
    return plan_data(parse([command, "--model_id_or_path", "m", *argv]), load_catalog())


def write_rows(path: Path, rows: list[Any]) -> Path:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def chat_rows(count: int, start: int = 0) -> list[dict[str, str]]:
    """Rows that differ in text and length."""
    return [
        {"query": f"question {n}", "response": "word " * (1 + n * 7 % 40) + f"answer {n}"}
        for n in range(start, start + count)
    ]


def run(encoder: Encoder, ledger: Path, *argv: str, command: str = "sft") -> data.Built:
    """Build the data of a command line, with its ledger at a path."""
    planned = plan(*argv, command=command)
    return data.build(planned, encoder, Ledger.of_plan(planned, ledger))


def entries(ledger: Path) -> list[dict[str, Any]]:
    """The rows of a ledger file, without the totals."""
    return [entry for entry in map(json.loads, ledger.read_text("utf-8").splitlines()) if "summary" not in entry]


def totals(ledger: Path) -> dict[str, Any]:
    """The last line of a ledger file."""
    return json.loads(ledger.read_text("utf-8").splitlines()[-1])["summary"]


def tokens(dataset: Any) -> list[list[int]]:
    """The token ids of all items."""
    return [dataset[number]["input_ids"] for number in range(len(dataset))]
