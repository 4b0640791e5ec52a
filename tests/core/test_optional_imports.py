"""Which libraries are there, told without importing them."""

from __future__ import annotations

from pathlib import Path

import pytest

from swift.core.optional_imports import MissingPackage, installed, need


def test_a_folder_of_the_name_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_engine" / "weights").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    assert not installed("some_engine")
    with pytest.raises(MissingPackage, match="some_engine"):
        need("some_engine", extra="all", why="this")
    (tmp_path / "some_engine-1.0.dist-info").mkdir()  # as optimum is installed, which has no file of its own
    assert installed("some_engine")


def test_libraries_and_single_files_are_there() -> None:
    assert installed("json") and installed("sys") and installed("torch")
    assert not installed("no_such_library")
