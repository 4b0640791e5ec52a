"""The names of `--eval_dataset`."""

from __future__ import annotations

from pathlib import Path

import pytest

from swift.catalog.read import benchmark_names
from swift.core.errors import SwiftError
from swift.plan.benchmarks import plan_benchmarks


def test_the_names_of_the_2_5_release() -> None:
    tasks, nearest = benchmark_names()
    assert len({name.casefold() for name in (*tasks, *nearest)}) == len(tasks) + len(nearest) == 51
    (arc,) = plan_benchmarks(["arc_C"])
    assert (arc.name, arc.task) == ("ARC_c", "arc_challenge")
    assert plan_benchmarks(["no"]) == plan_benchmarks([]) == ()
    (other,) = plan_benchmarks(["mmlu_astronomy"])  # the harness's own names do as well
    assert (other.name, other.task) == ("mmlu_astronomy", "mmlu_astronomy")


def test_task_files(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("task: own\n")
    file, folder = plan_benchmarks([str(tmp_path / "own.yaml"), str(tmp_path)])
    assert file.name == "own" and file.path == tmp_path / "own.yaml"
    assert folder.path == tmp_path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ocnli"], ["ocnli", "xnli_zh"]),
        (["{tmp}/twn.yaml"], ["twn.yaml", "own.yaml"]),
        (["{tmp}/own.csv"], ["own.csv", "--custom_eval_config"]),
        (["mmlu", "CHID", "tnews"], ["chid", "tnews", "cmmlu"]),
        (["{tmp}/own.yaml", "{tmp}/deep/own.yaml"], ["own"]),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("own.yaml", "own.csv", "deep/own.yaml"):
        (tmp_path / name).write_text("task: own\n")
    with pytest.raises(SwiftError) as error:
        plan_benchmarks([name.format(tmp=tmp_path) for name in names])
    for words in expected:
        assert words in " ".join(error.value.lines())
