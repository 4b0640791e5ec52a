"""Data sets of the hubs: which files of a repository are read, through the small hub on loopback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset

from hub.small_hub import Repo, SmallHub
from swift.core.errors import SwiftError
from swift.prompts.encode import Encoder

from .rows import chat_rows, run


def jsonl(count: int, start: int = 0) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in chat_rows(count, start)).encode()


CARD = b"""---
configs:
- config_name: small
  default: true
  data_files:
  - split: train
    path: parts/s-*.jsonl
  - split: test
    path: parts/t.jsonl
- config_name: large
  data_files: parts/large.jsonl
---
"""


def rows(encoder: Encoder, tmp_path: Path, dataset: str) -> int:
    built = run(encoder, tmp_path / "ledger", "--dataset", dataset, "--dataset_test_ratio", "0", "--no_cache")
    return len(built.train)


def test_files_follow_the_card_of_the_repository(hub: SmallHub, encoder: Encoder, tmp_path: Path) -> None:
    hub.repos["dataset", "bob/carded"] = Repo(
        {"README.md": CARD, "parts/s-1.jsonl": jsonl(3), "parts/s-2.jsonl": jsonl(4, 10), "parts/t.jsonl": jsonl(9),
         "parts/large.jsonl": jsonl(20)}
    )  # fmt: skip

    assert rows(encoder, tmp_path, "bob/carded:small") == 7
    assert rows(encoder, tmp_path, "bob/carded:large#15") == 15


def test_without_a_card_names_tell_splits_and_subsets(hub: SmallHub, encoder: Encoder, tmp_path: Path) -> None:
    hub.repos["dataset", "bob/plain"] = Repo(
        {"train.jsonl": jsonl(3), "test.jsonl": jsonl(5), "extra/train-00.jsonl": jsonl(7), "dataset_infos.json": b"{}"}
    )

    assert rows(encoder, tmp_path, "MS::bob/plain") == 10
    assert rows(encoder, tmp_path, "bob/plain:extra") == 7
    with pytest.raises(SwiftError, match="has no data files for nope"):
        rows(encoder, tmp_path, "bob/plain:nope")


def test_media_and_archives_stay_on_the_hub(hub: SmallHub, encoder: Encoder, tmp_path: Path) -> None:
    picture = {**chat_rows(1)[0], "images": ["pictures/1.jpg"]}
    files = {"train.jsonl": json.dumps(picture).encode(), "pictures/1.jpg": b"jpg", "pictures.zip": b"zip"}
    hub.repos["dataset", "bob/shown"] = Repo(files)

    assert rows(encoder, tmp_path, "bob/shown") == 1
    assert [path.name for path in (tmp_path / "hub").rglob("*.*") if path.suffix in (".jpg", ".zip")] == []


def test_files_that_name_no_split_are_all_of_them(hub: SmallHub, encoder: Encoder, tmp_path: Path) -> None:
    film = {"info": {"video_path": "1.mp4"}, "global": [{"question": "q", "answer": "a"}]}
    hub.repos["dataset", "AI-ModelScope/MovieChat-1K-test"] = Repo(
        {f"jsons/{number}.json": json.dumps(film, indent=1).encode() for number in range(3)}
    )

    assert rows(encoder, tmp_path, "moviechat-1k-test") == 3


def test_a_script_is_not_run(hub: SmallHub, encoder: Encoder, tmp_path: Path) -> None:
    files = {"coco_2014_caption.py": b"1/0", "dataset_infos.json": b"{}", "train.zip": b""}
    hub.repos["dataset", "modelscope/coco_2014_caption"] = Repo(files)

    with pytest.raises(SwiftError, match="only a script that makes them"):
        rows(encoder, tmp_path, "coco-en-mini")


def test_a_registered_data_set_brings_its_converter(hub: SmallHub, encoder: Encoder, tmp_path: Path) -> None:
    record = {"input": "q", "output": "o", "answer": "1"}
    hub.repos["dataset", "AI-ModelScope/blossom-math-v2"] = Repo({"data.json": json.dumps([record] * 4).encode()})

    assert rows(encoder, tmp_path, "blossom-math-zh") == 4


def test_a_missing_data_set_is_named(hub: SmallHub, encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(SwiftError, match="there is no dataset bob/typo"):
        rows(encoder, tmp_path, "bob/typo")


def test_files_of_a_folder_that_are_not_read_are_named(
    encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    (folder / "data").mkdir(parents=True)
    for name in ("b.xlsx", "dataset_info.json", "README.md", "p.png", ".git"):
        (folder / name).write_text("{}")
    (folder / "data" / "a.jsonl").write_text("\n".join(map(json.dumps, chat_rows(2))))

    assert rows(encoder, tmp_path, str(folder)) == 2
    log = capsys.readouterr().err
    assert f"{folder}: 2 files are not read: b.xlsx, dataset_info.json\n" in log and "other splits" not in log

    for name in ("train-0.jsonl", "test-0.jsonl"):
        (folder / "data" / name).write_text(json.dumps(chat_rows(1)[0]))
    (folder / "data" / "unnamed.csv").write_text(",query,response\n0,q,a\n")
    (folder / "data" / "a.jsonl").unlink()
    rows(encoder, tmp_path, str(folder))
    log = capsys.readouterr().err
    assert f"{folder}: all of it is read, other splits and subsets too: data/test-0.jsonl" in log
    assert "keys not used: (no name) (1 rows)" in log


def test_a_data_set_saved_to_disk_is_named(encoder: Encoder, tmp_path: Path) -> None:
    Dataset.from_list(chat_rows(2)).save_to_disk(tmp_path / "saved")

    with pytest.raises(SwiftError, match="save_to_disk"):
        rows(encoder, tmp_path, str(tmp_path / "saved"))
