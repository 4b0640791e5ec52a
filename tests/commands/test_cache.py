"""`swift cache ls` and `swift cache rm`."""

from __future__ import annotations

from pathlib import Path

import pytest

from swift.commands.cache import run
from swift.core.errors import SwiftError
from swift.data.token_cache import TokenCache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for recipe in ("aaa", "bbb"):
        cache = TokenCache(tmp_path / "tokens", recipe, f"chatml, {recipe}")
        cache.describe()
        cache.put("k1", b"x" * 3000)
        cache.put("k2", b"y" * 3000)
    return tmp_path / "tokens"


def test_ls_names_the_parts_and_their_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls", "--cache_dir", str(folder)]) == 0

    given = capsys.readouterr().out
    assert f"{folder}: 2 part(s), 11.8 KiB" in given
    assert "aaa" in given and "chatml, bbb" in given and "2 shards" in given


def test_rm_removes_the_named_part(folder: Path) -> None:
    assert run(["rm", "aaa", "--cache_dir", str(folder)]) == 0
    assert [part.name for part in folder.iterdir()] == ["bbb"]

    assert run(["rm", "--all", "--cache_dir", str(folder)]) == 0
    assert list(folder.iterdir()) == []


def test_mistakes_are_said(folder: Path) -> None:
    with pytest.raises(SwiftError, match="no part 'zzz'"):
        run(["rm", "zzz", "--cache_dir", str(folder)])
    with pytest.raises(SwiftError, match="nothing to remove was named"):
        run(["rm", "--cache_dir", str(folder)])
    with pytest.raises(SwiftError, match="invalid choice: 'clear'"):
        run(["clear"])


def test_an_empty_cache_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls", "--cache_dir", str(tmp_path / "none")]) == 0
    assert "0 part(s), 0 B" in capsys.readouterr().out
    assert run(["--help"]) == 0
