"""`swift infer` as a person and as a pipe use it: a process of its own, a real terminal, a real Ctrl-C."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

INFER = [sys.executable, "-c", "from swift.cli import script; script()", "infer", "--infer_backend", "pt"]


def flags(model_dir: Path, tokens: int) -> list[str]:
    return [
        *INFER, "--model_id_or_path", str(model_dir), "--template_type", "jinja", "--save_result", "false",
        "--do_sample", "false", "--max_new_tokens", str(tokens),
    ]  # fmt: skip


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, command: list[str]):
        self.given, self._seen = "", 0
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job, as tests may be, is started to ignore it
            os.execvp(command[0], command)

    def press(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def until(self, text: str, seconds: float = 120) -> None:
        """Read on until `text` appears after what was waited for before."""
        end = time.monotonic() + seconds
        while (at := self.given.find(text, self._seen)) < 0:
            assert time.monotonic() < end, f"no {text!r} in {self.given[-2000:]!r}"
            self._read()
        self._seen = at + len(text)

    def grows(self) -> None:
        before, end = len(self.given), time.monotonic() + 60
        while len(self.given) < before + 40:
            assert time.monotonic() < end
            self._read()

    def close(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self._end)
        return os.waitstatus_to_exitcode(status)

    def _read(self) -> None:
        if select.select([self._end], [], [], 0.2)[0]:
            self.given += os.read(self._end, 4096).decode(errors="replace")


def test_ctrl_c_stops_the_answer_and_the_chat_goes_on(tiny_llama_dir: Path) -> None:
    terminal = Terminal(flags(tiny_llama_dir, 1900))
    terminal.until("<<< ")
    terminal.press("Tell me\n")
    terminal.grows()
    terminal.press("\x03")
    terminal.until("(stopped)")
    terminal.until("<<< ")
    # At the prompt it ends nothing either, and the stopped answer is a turn like any other. (Between showing the prompt
    # and waiting for keys Python notices a signal only with the next key; no person is that fast.)
    time.sleep(0.5)
    terminal.press("\x03")
    terminal.until("(exit or Ctrl-D ends the chat)")
    terminal.until("<<< ")
    terminal.press("history\n")
    terminal.until("assistant: ")
    terminal.until("<<< ")
    terminal.press("exit\n")
    assert terminal.close() == 0


def test_a_piped_chat_reads_like_a_chat(tiny_llama_dir: Path) -> None:
    done = subprocess.run(
        flags(tiny_llama_dir, 3), input="Hi\nand you?\n", capture_output=True, text=True, timeout=120, check=True
    )
    lines = done.stdout.splitlines()
    first = lines.index("<<< Hi")
    second = lines.index("<<< and you?")
    assert first < second - 1 and "".join(lines[first + 1 : second]).strip()
    assert lines[-1] == "<<< "


@pytest.mark.slow
def test_a_line_that_is_not_utf8_is_left_out_by_name(tiny_llama_dir: Path) -> None:
    given = b"\xef\xbb\xbfHi\nbad \xff line\nand you?\n"
    done = subprocess.run(flags(tiny_llama_dir, 3), input=given, capture_output=True, timeout=120, check=True)
    lines = done.stdout.decode().splitlines()
    assert "<<< Hi" in lines
    assert lines.index("<<< bad \ufffd line") + 1 == lines.index("<<< and you?")
    assert "error: a line of the input is not UTF-8 and is left out: bad \ufffd line" in done.stderr.decode()
