"""The collector and the compiler rest while libraries are imported, and go on as they were."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from swift.core.quick_imports import COMPILE_NOTHING, quick_imports


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_goes_on_as_it_was(enabled: bool) -> None:
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ImportError), quick_imports():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()


@pytest.mark.parametrize("said", [None, "0", "1"])
def test_what_the_user_says_of_the_compiler_stays(said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if said is None:
        monkeypatch.delenv(COMPILE_NOTHING, raising=False)
    else:
        monkeypatch.setenv(COMPILE_NOTHING, said)
    with quick_imports():
        assert os.environ[COMPILE_NOTHING] == (said or "1")
    assert os.environ.get(COMPILE_NOTHING) == said


def test_peft_brings_no_compiler() -> None:
    program = """
import sys
from swift.core.quick_imports import quick_imports
with quick_imports():
    import peft, bitsandbytes
print("torch._inductor.compile_fx" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
