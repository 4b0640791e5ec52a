"""Columns by names of their own: given ones, known ones in other spellings, and what is proposed for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hub.small_hub import Repo, SmallHub
from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.data.prompt_rows import prompt_rows
from swift.data.stream import StreamDataset
from swift.params.parse import parse
from swift.plan.data import plan_data
from swift.prompts.encode import Encoder

from .rows import run, tokens, write_rows
from .test_stores import STORES, stores

GERMAN = [{"Frage": f"Wer {number}?", "Antwort": "Ich", "Quelle": "Buch"} for number in range(3)]
COLUMNS = json.dumps({"Frage": "query", "Antwort": "response"})


def plainly_named(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"query": row["Frage"], "response": row["Antwort"]} for row in rows]


def items(encoder: Encoder, folder: Path, *argv: str) -> list[list[int]]:
    """The token ids of all training items of a command line."""
    argv = (*argv, "--dataset_test_ratio", "0", "--no_cache")
    train = run(encoder, folder / "ledger", *argv).train
    return [item["input_ids"] for item in train] if isinstance(train, StreamDataset) else tokens(train)


@stores
def test_columns_are_read_under_the_names_that_are_given(
    store: str, encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write_rows(tmp_path / "plain.jsonl", plainly_named(GERMAN))
    csv = tmp_path / "rows.csv"
    csv.write_text("Frage,Antwort,Quelle\n" + "".join(",".join(row.values()) + "\n" for row in GERMAN))
    expected = items(encoder, tmp_path, "--dataset", str(plain), *STORES[store])
    capsys.readouterr()

    for file in (write_rows(tmp_path / "rows.jsonl", GERMAN), csv):
        assert items(encoder, tmp_path, "--dataset", str(file), "--columns", COLUMNS, *STORES[store]) == expected
        log = capsys.readouterr().err
        assert f"{file}: columns Frage as query, Antwort as response" in log and "Quelle" in log


def test_columns_hold_for_hub_sets_registered_ones_and_rows_to_answer(
    hub: SmallHub, encoder: Encoder, tmp_path: Path
) -> None:
    hub.repos["dataset", "bob/german"] = Repo({"train.jsonl": "\n".join(map(json.dumps, GERMAN)).encode()})
    # A registered set with columns of its own, one of which is called otherwise by now.
    hub.repos["dataset", "OmniData/Zhihu-KOL-More-Than-100-Upvotes"] = Repo(
        {"train.jsonl": b'{"FRAGE": "q", "RESPONSE": "a"}\n'}
    )
    (tmp_path / "columns.json").write_text(COLUMNS)

    assert len(items(encoder, tmp_path, "--dataset", "bob/german", "--columns", str(tmp_path / "columns.json"))) == 3
    renamed = ["--columns", '{"FRAGE": "INSTRUCTION"}']
    assert len(items(encoder, tmp_path, "--dataset", "zhihu-kol-filtered", *renamed)) == 1
    file = write_rows(tmp_path / "rows.jsonl", GERMAN)
    argv = ["infer", "--model_id_or_path", "m", "--val_dataset", str(file), "--columns", COLUMNS]
    questions = prompt_rows(plan_data(parse(argv), load_catalog()))
    assert [(row.conversation.messages[0].content, row.label) for row in questions if row.conversation] == [
        (row["Frage"], "Ich") for row in GERMAN
    ]


@stores
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"Frge": "query"}, "no row has the column 'Frge'.*Frage"),
        ({"Frage": "qery"}, "'Frage' cannot become 'qery'.*query"),
        ({"Frage": "query", "Quelle": "query"}, "'Frage' and 'Quelle' cannot both become 'query'"),
        (["Frage"], "takes a JSON object"),
        ({"Frage": ["query"]}, "does not say what columns are to be called"),
    ],
)
def test_columns_that_are_not_there_or_mean_nothing_are_an_error(
    store: str, columns: Any, message: str, encoder: Encoder, tmp_path: Path
) -> None:
    rows = [{**row, "query": "q", "response": "a"} for row in GERMAN]
    argv = ["--dataset", str(write_rows(tmp_path / "rows.jsonl", rows)), *STORES[store]]

    with pytest.raises(SwiftError) as error:
        items(encoder, tmp_path, *argv, "--columns", json.dumps(columns))

    assert error.value.exit_code == 2 and error.value.where == "--columns"
    wanted, _, nearest = message.partition(".*")
    assert wanted in error.value.what and nearest in (error.value.next or "")


def test_a_column_whose_name_another_takes_is_named(
    encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{**row, "query": "old"} for row in GERMAN])

    items(encoder, tmp_path, "--dataset", str(file), "--columns", COLUMNS)

    assert "query (as Frage takes its name)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "known"),
    [
        ({"Query": "q", "RESPONSE": "a"}, {"query": "q", "response": "a"}),
        (
            {"System Prompt": "s", "Question": "q", "Answer ": "a"},
            {"system_prompt": "s", "question": "q", "answer": "a"},
        ),
        (
            {"query": "q", "response": "a", "rejectedResponse": "b"},
            {"query": "q", "response": "a", "rejected_response": "b"},
        ),
        (
            {"Messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            {"query": "q", "response": "a"},
        ),
        # What stands there as it is known stays, and of two that could be meant neither is.
        ({"query": "q", "response": "a", "Query": "other"}, {"query": "q", "response": "a"}),
        ({"query": "q", "response": "a", "System": "s", "SYSTEM": "t"}, {"query": "q", "response": "a"}),
    ],
)
def test_known_names_are_read_in_any_spelling(
    row: dict[str, Any], known: dict[str, Any], encoder: Encoder, tmp_path: Path
) -> None:
    spelled, plain = (write_rows(tmp_path / name, [rows]) for name, rows in (("a.jsonl", row), ("b.jsonl", known)))

    assert items(encoder, tmp_path, "--dataset", str(spelled)) == items(encoder, tmp_path, "--dataset", str(plain))


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (GERMAN[0], {"Frage": "query", "Antwort": "response"}),
        ({"id": "7", "a": "long", "b": "short"}, {"a": "query", "b": "response"}),
        (
            {"persona": "s", "pregunta": "q", "respuesta": "a"},
            {"persona": "system", "pregunta": "query", "respuesta": "response"},
        ),
        ({"dialog": [{"role": "user", "content": "q"}]}, {"dialog": "messages"}),
        ({"talk": '[{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]'}, {"talk": "messages"}),
        ({"paragraph": "text", "page": 3}, {"paragraph": "text"}),
        ({"question": "q", "Ergebnis": "a"}, {"question": "query", "Ergebnis": "response"}),
        ({"prompt": "q", "Ergebnis": "a"}, {"prompt": "query", "Ergebnis": "response"}),
        ({"number": 1}, None),
    ],
)
def test_the_error_proposes_columns_that_work(
    row: dict[str, Any], columns: dict[str, str] | None, encoder: Encoder, tmp_path: Path
) -> None:
    if "dialog" in row:
        row["dialog"].append({"role": "assistant", "content": "a"})
    argv = ["--dataset", str(write_rows(tmp_path / "rows.jsonl", [row]))]

    with pytest.raises(SwiftError, match="no row can be used") as error:
        items(encoder, tmp_path, *argv)

    _, proposed, rest = str(error.value.why).partition("--columns '")
    assert (json.loads(rest.partition("'")[0]) if proposed else None) == columns
    flag = None if columns is None else f"--columns '{json.dumps(columns, ensure_ascii=False)}' names the columns"
    assert str(error.value.next).startswith(flag or "mend the rows")
    if columns is not None:
        assert len(items(encoder, tmp_path, *argv, "--columns", json.dumps(columns))) == 1
