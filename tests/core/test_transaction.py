"""Folders that are written whole, by one process at a time."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from safetensors.numpy import save_file

from swift.core.errors import SwiftError
from swift.core.transaction import UNFINISHED, fault, write_cached, write_file, write_folder

HELD = """
import sys, time
from pathlib import Path
from swift.core.transaction import write_folder
with write_folder(Path(sys.argv[1])) as scratch:
    (scratch / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_folder_that_another_process_writes_is_left_to_it(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with write_folder(target) as scratch:
        (scratch / "first").write_text("1")
        with pytest.raises(SwiftError, match="another process is writing"), write_folder(target):
            raise AssertionError
        (scratch / "second").write_text("2")
    assert fault(target) is None
    assert {path.name for path in target.iterdir()} == {"first", "second", "manifest.json"}
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "model"
    process = subprocess.Popen([sys.executable, "-c", HELD, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    with pytest.raises(SwiftError, match="another process"), write_folder(target):
        raise AssertionError
    process.kill()
    process.communicate()
    assert (tmp_path / f"{UNFINISHED}model" / "half").exists()
    with write_folder(target) as scratch:
        (scratch / "whole").write_text("whole")
    assert not (target / "half").exists() and fault(target) is None


def test_one_makes_what_all_would_make_alike_and_the_others_wait(tmp_path: Path) -> None:
    target = tmp_path / "model"
    begun = Event()
    made: list[int] = []

    def make(number: int) -> None:
        if number:
            begun.wait()
        with write_cached(target) as scratch:
            begun.set()
            if scratch is not None:
                made.append(number)
                for name in "abc":
                    (scratch / name).write_text(name * 100_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    assert made == [0] and fault(target) is None
    assert list(tmp_path.iterdir()) == [target]


def test_a_damaged_folder_of_a_cache_is_made_again(tmp_path: Path) -> None:
    for text in ("first", "again"):
        with write_cached(tmp_path / "model") as scratch:
            assert scratch is not None
            (scratch / "weights").write_text(text)
        (tmp_path / "model" / "weights").write_text("cut") if text == "first" else None
    assert (tmp_path / "model" / "weights").read_text() == "again"


def test_a_file_is_replaced_by_many_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write_file(tmp_path / "about", f"{number}" * 1000), range(64)))
    assert len(set((tmp_path / "about").read_text())) <= 2 and [p.name for p in tmp_path.iterdir()] == ["about"]


def test_who_may_read_the_folder_may_read_the_weights(tmp_path: Path) -> None:
    import numpy

    with write_folder(tmp_path / "model") as scratch:
        save_file({"weight": numpy.ones(2)}, scratch / "model.safetensors")
    folder, file = tmp_path / "model", tmp_path / "model" / "model.safetensors"
    assert file.stat().st_mode & 0o666 == folder.stat().st_mode & 0o666
