"""The token cache: nothing is encoded twice, nothing stale or damaged is used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swift.prompts.encode import Encoder

from .rows import chat_rows, run, tokens, write_rows


def shards(folder: Path) -> dict[str, float]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.rglob("*.shard"))}


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    write_rows(tmp_path / "a.jsonl", chat_rows(1200))
    return ["--dataset", str(tmp_path / "a.jsonl"), "--cache_dir", str(tmp_path / "cache")]


def test_a_second_run_encodes_nothing(argv: list[str], encoder: Encoder, tmp_path: Path) -> None:
    first = run(encoder, tmp_path / "l1", *argv)
    before = shards(tmp_path / "cache")

    second = run(encoder, tmp_path / "l2", *argv)

    assert len(before) == 3
    assert shards(tmp_path / "cache") == before
    assert tokens(second.train) == tokens(first.train)
    assert (tmp_path / "l1").read_text() == (tmp_path / "l2").read_text()


def test_appended_rows_cost_only_themselves(argv: list[str], encoder: Encoder, tmp_path: Path) -> None:
    run(encoder, tmp_path / "ledger", *argv)
    before = shards(tmp_path / "cache")
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"query": "new", "response": "row"}\n')

    built = run(encoder, tmp_path / "ledger", *argv, "--dataset_test_ratio", "0")

    after = shards(tmp_path / "cache")
    assert len(built.train) == 1201
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1


def test_other_options_have_their_own_shards(
    argv: list[str], encode_with: Callable[..., Encoder], tmp_path: Path
) -> None:
    run(encode_with(), tmp_path / "ledger", *argv)
    run(encode_with(30), tmp_path / "ledger", *argv, "--max_drop_ratio", "1")
    run(encode_with(system="Be brief."), tmp_path / "ledger", *argv)

    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_damaged_shard_is_made_again_and_said(
    argv: list[str], encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(encoder, tmp_path / "ledger", *argv)
    expected = tokens(first.train)
    cut, flipped, emptied = sorted((tmp_path / "cache").rglob("*.shard"))
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    for path, damaged in ((cut, cut.read_bytes()[:-100]), (flipped, bytes(content)), (emptied, b"")):
        path.unlink()
        path.write_bytes(damaged)

    second = run(encoder, tmp_path / "ledger", *argv)

    assert tokens(second.train) == expected
    given = capsys.readouterr().err
    assert all(f"{path} is damaged and is made again" in given for path in (cut, flipped, emptied))


def test_without_cache_nothing_is_written(argv: list[str], encoder: Encoder, tmp_path: Path) -> None:
    run(encoder, tmp_path / "ledger", *argv, "--no_cache", "true")

    assert not (tmp_path / "cache").exists()


def test_location_size_and_use_are_said(
    argv: list[str], encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(encoder, tmp_path / "ledger", *argv)

    given = capsys.readouterr().err
    assert f"token cache: {tmp_path / 'cache'}" in given
    assert "MiB; 0 of 1200 rows were in it" in given

    write_rows(tmp_path / "a.jsonl", chat_rows(1300))
    run(encoder, tmp_path / "ledger", *argv)
    assert "MiB; 1024 of 1300 rows were in it" in capsys.readouterr().err


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import data.rows as rows
from transformers import AutoTokenizer
from swift.catalog import load_catalog
from swift.prompts.encode import build_encoder
from swift.plan.prompt import PromptPlan
from swift.data import workers
plan = PromptPlan(template_type="chatml", system=None, tools_format=None, max_length=2048,
                  truncation_strategy="delete", loss_scale=None)
encoder = build_encoder(plan, AutoTokenizer.from_pretrained({tokenizer!r}), load_catalog())
slow = workers.shard_of
def slowly(outcomes, keep):
    time.sleep(0.3)
    return slow(outcomes, keep)
workers.shard_of = slowly
rows.run(encoder, Path({ledger!r}), *{argv!r})
"""


def test_a_killed_run_loses_one_shard(
    argv: list[str], encoder: Encoder, smollm2_tokenizer_dir: Path, tmp_path: Path
) -> None:
    script = KILLED.format(
        tests=str(Path(__file__).parents[1]),
        tokenizer=str(smollm2_tokenizer_dir),
        ledger=str(tmp_path / "l1"),
        argv=argv,
    )
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ}, stderr=subprocess.DEVNULL)
    while len(shards(tmp_path / "cache")) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    survived = shards(tmp_path / "cache")
    assert len(survived) == 2

    built = run(encoder, tmp_path / "l2", *argv, "--dataset_test_ratio", "0")

    after = shards(tmp_path / "cache")
    assert len(built.train) == 1200
    assert {name: after[name] for name in survived} == survived
