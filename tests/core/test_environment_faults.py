"""What the machine does to us is named as such, in one message with a way on; a bug of ours stays one."""

from __future__ import annotations

import errno
import importlib
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from swift.core.environment import cache_home
from swift.core.environment_faults import check_ranks, explain
from swift.core.errors import EnvironmentFault

WHOLE = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "where: /a"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", b"/a/b"), "where: /a/b"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "TMPDIR"),
        (Exception("File too large (os error 27)"), "ulimit -f"),
        (
            RuntimeError("[enforce fail at inline_container.cc] PytorchStreamWriter failed writing file"),
            "No space left",
        ),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 2560 vs 2454"), "No space left"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"), "Tried to allocate 2.00 GiB"),
        (RuntimeError("alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"), "CPUAllocator"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (ModuleNotFoundError("No module named 'torch._C'", name="torch._C"), "package `torch`"),
        (MemoryError(), "out of memory"),
        (RuntimeError("operator torchvision::nms does not exist"), "`torchvision` is built for another torch"),
    ],
)
def test_what_the_machine_did(error: Exception, message: str) -> None:
    fault = explain(error)
    assert fault is not None and fault.exit_code == 2 and fault.next
    assert message in str(fault)


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ((), "--force-reinstall 'torch>="),
        (("torch", "peft"), "'torch>=2"),
    ],
)
def test_the_line_brings_all_that_is_missing(
    missing: tuple[str, ...], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> str:
        if name in missing:
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("swift.core.installation.version", found)
    fault = explain(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert fault is not None and fault.next is not None and f" -m pip install {line}" in fault.next
    assert all(f"'{name}>=" in fault.next for name in missing)


def test_a_package_that_gives_up_its_own_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "giving_up").mkdir()
    (tmp_path / "giving_up" / "__init__.py").write_text("from giving_up import inside\n")
    (tmp_path / "giving_up" / "inside.py").write_text("raise ImportError('libnowhere.so is not there')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as raised:
        importlib.import_module("giving_up")
    fault = explain(raised.value)
    assert fault is not None and fault.what == "the package `giving_up` cannot be imported: libnowhere.so is not there"
    assert fault.next is not None and fault.next.endswith("giving_up")


def test_what_lies_below_an_import_is_told() -> None:
    outer = ModuleNotFoundError("Could not import module 'AutoModel'. Are this object's requirements defined?")
    outer.__cause__ = RuntimeError("operator torchvision::nms does not exist")
    fault = explain(outer)
    assert fault is not None and "`torchvision` is built for another torch" in fault.what
    assert fault.next is not None and "'torch>=" in fault.next and fault.next.endswith(" torchvision")


def test_a_cache_that_cannot_be_made() -> None:
    for path in (cache_home() / "tokens", cache_home().parent):
        fault = explain(FileNotFoundError(errno.ENOENT, "No such file", str(path)))
        assert fault is not None and "XDG_CACHE_HOME" in str(fault)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a"),
        RuntimeError("shape mismatch (3)"),
        FileNotFoundError(errno.ENOENT, "No such file", "/elsewhere/catalog.toml"),
        OSError("a text alone"),
        ModuleNotFoundError("No module named 'swift.nowhere'", name="swift.nowhere"),
    ],
)
def test_what_we_did(error: Exception) -> None:
    assert explain(error) is None


@pytest.mark.parametrize("env", [{}, {"RANK": "0"}, {"WORLD_SIZE": "1"}, {"RANK": "", "LOCAL_RANK": ""}, WHOLE])
def test_ranks_that_agree(env: dict[str, str]) -> None:
    check_ranks(env)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: ""}, f"{name} is not|RANK is 1, but WORLD_SIZE") for name in WHOLE if name != "LOCAL_RANK"),
        ({"LOCAL_RANK": ""}, "WORLD_SIZE is set, but LOCAL_RANK is not"),
        ({"RANK": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"LOCAL_RANK": "7", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK is 7"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is `0`"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is `two`"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK is `-1`"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is `http`"),
    ],
)
def test_ranks_that_contradict_each_other(changes: dict[str, str], message: str) -> None:
    with pytest.raises(EnvironmentFault, match=message):
        check_ranks(WHOLE | changes)


@pytest.mark.parametrize(
    ("shell", "code", "line"),
    [
        ("{swift} --help >&-", 0, ""),
        ("{swift} --help >/dev/full", 2, "No space left on device"),
        ("{swift} sft --no_such_flag 1 >&- 2>&-", 2, ""),
        ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {swift} sft --help-all | cat >/dev/null", 0, ""),
        ("PYTHONOPTIMIZE=2 {swift} sft --help | grep -q 'Which model'", 0, ""),
        ("PYTHONOPTIMIZE=2 {swift} infer --model_type smollm2-135m-instruct", 2, "unset PYTHONOPTIMIZE"),
        ("mkdir gone; cd gone; rmdir ../gone; {swift} infer --model_type smollm2-135m-instruct", 2, "cd to another"),
        ("LOCAL_RANK=1 {swift} sft --no_such_flag 1", 2, "--no_such_flag"),
        ("touch d.jsonl; LOCAL_RANK=1 {swift} sft --model_type smollm2-135m-instruct --dataset d.jsonl", 2, "RANK"),
    ],
)
def test_the_command_says_so(shell: str, code: int, line: str, tmp_path: Path) -> None:
    command = "set -o pipefail; " + shell.format(swift=f"{sys.executable} -m swift")
    ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, "Traceback" in ran.stderr, "internal error" in ran.stderr) == (code, False, False), ran
    assert line in ran.stderr
