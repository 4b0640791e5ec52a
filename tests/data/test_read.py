"""Files of every kind give their rows with the right lines, whatever is wrong inside."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from swift.core.errors import SwiftError
from swift.data.dataset_files import data_files
from swift.data.raw_row import RawRow
from swift.data.read import read_at, read_rows, seekable


def rows(path: Path) -> list[RawRow]:
    return list(read_rows(path))


def values(path: Path) -> list[object]:
    return [json.loads(row.payload) for row in read_rows(path) if row.fault is None]


def lines(path: Path) -> list[int]:
    return [row.line for row in read_rows(path)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_json_lines_with_blank_lines_crlf_and_bom(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n   \n{"a": 3}')

    assert values(file) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert lines(file) == [1, 3, 5]


def test_json_lines_can_be_entered_anywhere(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", "".join(f'{{"n": {n}}}\n' for n in range(100)))
    found = rows(file)

    again = list(read_rows(file, offset=found[60].offset, line=found[60].line))

    assert again == found[60:]
    assert [json.loads(payload)["n"] for payload in read_at(file, [found[7].offset, found[3].offset])] == [7, 3]
    assert seekable(file)


def test_a_json_array_gives_the_line_of_each_element(tmp_path: Path) -> None:
    pretty = json.dumps([{"a": "x\ny", "b": [1, {"c": 2}]}, {"a": 2}, {"a": 3}], indent=2)
    file = write(tmp_path / "a.json", "﻿" + pretty)

    assert values(file) == json.loads(pretty)
    assert lines(file) == [2 + pretty[:place].count("\n") - 1 for place in _starts(pretty)]
    assert not seekable(file)


def _starts(text: str) -> list[int]:
    return [place for place in range(len(text)) if text[place : place + 4] == "  {\n" and text[place - 1] == "\n"]


def test_rows_of_a_list_on_one_line_have_their_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", '[{"a": 1}, {"a": 2},\n{"a": oops}, {"a": 4}]')

    assert lines(file) == [1, 2, 3]


def test_lines_that_are_lists_are_rows_each(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '[{"a": 1}, {"a": 2}]\n\n[{"a": [3]}]\n{"a": 4}\n')

    assert values(file) == [[{"a": 1}, {"a": 2}], [{"a": [3]}], {"a": 4}]
    assert lines(file) == [1, 3, 4]
    assert seekable(file)


def test_every_line_behind_a_list_is_a_row_that_is_lost(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", '[{"a": 1},\n{"a": 2}]\n[{"a": 3}]\n\n{"a": 4}\n')

    assert [(row.line, row.payload) for row in rows(file) if row.fault] == [(3, b'[{"a": 3}]'), (5, b'{"a": 4}')]


def test_blank_lines_before_the_header_are_no_header(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "\n\nquery,response\nq,a\n")

    assert values(file) == [{"query": "q", "response": "a"}]
    assert lines(file) == [4]


def test_a_broken_element_costs_only_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", '[\n  {"a": 1},\n  {"a": oops},\n  {"a": 3}\n]\n')

    found = rows(file)

    assert [row.line for row in found] == [2, 3, 4]
    assert [row.fault.reason if row.fault else None for row in found] == [None, "broken JSON", None]


def test_a_json_file_of_lines_and_a_single_object(tmp_path: Path) -> None:
    assert values(write(tmp_path / "a.json", '{"a": 1}\n{"a": 2}\n')) == [{"a": 1}, {"a": 2}]
    assert values(write(tmp_path / "b.json", '{\n "a": 1\n}\n')) == [{"a": 1}]
    assert values(write(tmp_path / "c.jsonl", '[{"a": 1}, {"a": 2}]')) == [{"a": 1}, {"a": 2}]


def test_csv_records_over_several_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", 'query,response\n"two\nlines",r1\nq2,r2\nq3\n\nq4,r4\n')

    found = rows(file)

    assert [(row.line, row.fault is None) for row in found] == [(2, True), (4, True), (5, False), (7, True)]
    assert values(file)[0] == {"query": "two\nlines", "response": "r1"}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_the_header_of_a_csv_tells_what_parts_its_cells(mark: str, tmp_path: Path) -> None:
    cells = [["query", "response"], ['"a; b, c"', "d"], ["", "e"]]
    content = "\r\n".join(mark.join(row) for row in cells)

    assert values(write(tmp_path / "a.csv", b"\xef\xbb\xbf" + content.encode())) == [
        {"query": "a; b, c", "response": "d"},
        {"query": None, "response": "e"},
    ]
    if mark == "\t":
        assert values(write(tmp_path / "a.tsv", "a,b\tc\n1\t2")) == [{"a,b": "1", "c": "2"}]


def test_an_empty_cell_says_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", 'query,response,system\na,b,\nc,"",d\n')

    assert values(file) == [
        {"query": "a", "response": "b", "system": None},
        {"query": "c", "response": None, "system": "d"},
    ]


def test_the_nulls_that_arrow_makes_are_gone(tmp_path: Path) -> None:
    first = {"name": "f", "parameters": {"properties": {"x": {"type": "string"}}}}
    other = {"name": "g", "parameters": {"properties": {"x": {"type": "string"}, "y": {"enum": ["a", None]}}}}
    table = pyarrow.table({"tools": [[first], [other]], "system": [None, "s"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")

    assert values(tmp_path / "a.parquet") == [{"tools": [first], "system": None}, {"tools": [other], "system": "s"}]


def test_parquet_gives_row_numbers(tmp_path: Path) -> None:
    table = pyarrow.table({"query": ["a", "b"], "response": ["c", None]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")

    assert values(tmp_path / "a.parquet") == [{"query": "a", "response": "c"}, {"query": "b", "response": None}]
    assert lines(tmp_path / "a.parquet") == [1, 2]
    with pytest.raises(SwiftError, match="not a readable Parquet file"):
        rows(write(tmp_path / "b.parquet", b"PAR1 nonsense"))


def test_text_is_one_row_a_line(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "one\n\ntwo 你好\n")

    assert values(file) == [{"text": "one"}, {"text": "two 你好"}]
    assert lines(file) == [1, 3]


def test_text_keeps_its_indentation(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", b"\xef\xbb\xbf def f(x):\n\treturn x  \r\n   \n\n  # end")

    assert values(file) == [{"text": " def f(x):"}, {"text": "\treturn x  "}, {"text": "  # end"}]
    assert lines(file) == [1, 2, 5]


CONTENT = {
    "a.jsonl": '{"a": "1"}\n',
    "a.json": '[{"a": "1"}]',
    "a.csv": "a\n1\n",
    "a.txt": "1\n",
}
PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("ending", PACKERS)
def test_compressed(name: str, ending: str, tmp_path: Path) -> None:
    content = PACKERS[ending](CONTENT[name].encode())
    expected = [{"text" if name == "a.txt" else "a": "1"}]

    assert values(write(tmp_path / f"{name}{ending}", content)) == expected
    assert values(write(tmp_path / name, content)) == expected  # the name does not say that it is
    assert not seekable(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x28\xb5\x2f\xfd\x24", "compressed with zstd"),
        (b"PK\x03\x04rows", "a zip archive or a spreadsheet"),
        (b"ARROW1\0\0", "an Arrow file"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16 text"),
        (gzip.compress(bytes(257) + b"ustar\0", mtime=0), "a tar archive"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.zst", "a.dat"])
def test_what_holds_no_rows_is_named_for_what_it_is(content: bytes, what: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(SwiftError, match=f"is {what}, which is not read") as error:
        rows(write(tmp_path / name, content))
    assert error.value.next


@pytest.mark.parametrize("ending", PACKERS)
def test_a_cut_file_gives_what_it_has_and_a_fault(ending: str, tmp_path: Path) -> None:
    noise = random.Random(0)
    whole = PACKERS[ending](b"".join(b'{"a": %d}\n' % noise.randrange(10**12) for _ in range(200_000)))
    file = write(tmp_path / f"a.jsonl{ending}", whole[: len(whole) // 2])

    found = rows(file)

    assert len(found) > 100
    assert [row.fault.reason for row in found if row.fault] == ["damaged file"]


def test_a_row_of_ten_megabytes(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", json.dumps({"a": "x" * 10_000_000}) + '\n{"a": 2}\n')

    assert lines(file) == [1, 2]


def test_empty_files_and_folders(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.json", "a.csv", "a.txt"):
        assert rows(write(tmp_path / name, "")) == []
    (tmp_path / "sub").mkdir()
    with pytest.raises(SwiftError, match="no data files"):
        data_files(tmp_path / "sub")
    write(tmp_path / "sub" / "b.jsonl", "{}")
    write(tmp_path / "sub" / ".hidden.jsonl", "{}")
    write(tmp_path / "sub" / "notes.md", "no data")
    assert data_files(tmp_path / "sub") == [tmp_path / "sub" / "b.jsonl"]
    with pytest.raises(SwiftError, match="no such file"):
        rows(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("content", "line", "detail"),
    [
        ('[{"a": 1},\n{"a": 2}\n', 3, "expected ] at the end of the list"),
        ('[{"a": 1},\n{"a": 2}]\n[{"a": 3}]', 3, "expected nothing behind the list"),
    ],
)
def test_a_list_that_does_not_end_where_the_file_does_is_said(
    content: str, line: int, detail: str, tmp_path: Path
) -> None:
    *good, bad = rows(write(tmp_path / "a.json", content))

    assert [json.loads(row.payload) for row in good] == [{"a": 1}, {"a": 2}]
    assert bad.line == line
    assert bad.fault is not None
    assert detail in str(bad.fault)


def test_objects_over_several_lines(tmp_path: Path) -> None:
    pretty = "\n".join(json.dumps({"a": number}, indent=1) for number in range(3))

    assert values(write(tmp_path / "a.jsonl", pretty)) == [{"a": 0}, {"a": 1}, {"a": 2}]
    assert lines(tmp_path / "a.jsonl") == [1, 4, 7]


def test_a_quote_that_is_never_closed_is_said(tmp_path: Path) -> None:
    good, bad = rows(write(tmp_path / "a.csv", 'a,b\n1,2\n3,"4\n5,6\n7,8\n'))

    assert json.loads(good.payload) == {"a": "1", "b": "2"}
    assert bad.line == 3
    assert bad.fault is not None and bad.fault.reason == "broken CSV"


def test_a_column_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "a,b,a\n1,2,3\n")

    with pytest.raises(SwiftError, match="two columns are called 'a'") as error:
        rows(file)
    assert error.value.where == f"{file}:1"


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.txt.gz"])
def test_a_file_called_gz_that_is_none(name: str, tmp_path: Path) -> None:
    (only,) = rows(write(tmp_path / name, "hello"))

    assert only.line == 1
    assert only.fault is not None and only.fault.reason == "damaged file"


def test_every_row_behind_the_damage_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    table = pyarrow.table({"a": [f"text number {number}" for number in range(4000)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1000)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 500] = b"\xff" * 500
    (tmp_path / "a.parquet").write_bytes(content)

    found = rows(tmp_path / "a.parquet")

    assert [row.line for row in found] == list(range(1, 4001))
    bad = [row.fault for row in found if row.fault is not None]
    assert 1000 <= len(bad) < 4000
    assert {fault.reason for fault in bad} == {"damaged file"}
