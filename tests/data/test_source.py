"""Data sets of the hubs: which files of a repository are read, through the small hub on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.small_hub import Repo, SmallHub, serve
from swift.chat.encode import Encoder
from swift.core.errors import SwiftError

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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SmallHub]:
    with serve() as running:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", running.url)
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
        yield running


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


def test_a_registered_data_set_brings_its_converter(hub: SmallHub, encoder: Encoder, tmp_path: Path) -> None:
    record = {"input": "q", "output": "o", "answer": "1"}
    hub.repos["dataset", "AI-ModelScope/blossom-math-v2"] = Repo({"data.json": json.dumps([record] * 4).encode()})

    assert rows(encoder, tmp_path, "blossom-math-zh") == 4


def test_a_missing_data_set_is_named(hub: SmallHub, encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(SwiftError, match="there is no dataset bob/typo"):
        rows(encoder, tmp_path, "bob/typo")
