"""`swift deploy` as a process: what it prints works, bad flags are refused, SIGTERM lets accepted requests finish."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from swift.cli import main


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Deployed:
    """A running `swift deploy`, with what it has printed so far."""

    def __init__(self, folder: Path, *flags: str):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._out, self._err = folder / "out", folder / "err"
        program = [sys.executable, "-c", "from swift.cli import script; script()"]
        command = [*program, "deploy", "--host", "127.0.0.1", "--port", str(self.port), *flags]
        with self._out.open("w") as out, self._err.open("w") as err:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_ready(self) -> set[int]:
        """Until the greeting is out; the answers of /health meanwhile."""
        health = set()
        while "print(answer" not in self.out:
            assert self.process.poll() is None, self.err
            with contextlib.suppress(httpx.TransportError):
                health.add(httpx.get(f"{self.url}/health").status_code)
            time.sleep(0.2)
        return health

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)


@pytest.fixture(scope="module")
def deployed(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    flags = "--served_model_name tiny --verbose false --log_interval 1 --max_new_tokens 12 --allow_private_urls true"
    folder = tmp_path_factory.mktemp("deploy")
    running = Deployed(folder, "--model_id_or_path", str(tiny_llama_dir), *flags.split())
    assert 503 in running.wait_ready(), "the port answers before the model is loaded"
    yield running
    assert running.end() == 0


def test_what_it_prints_works_as_printed(deployed: Deployed, tmp_path: Path) -> None:
    assert f"Serving tiny at {deployed.url}/v1" in deployed.out
    curl = next(line for line in deployed.out.splitlines() if line.startswith("curl "))
    if shutil.which("curl"):
        done = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=60)
        assert json.loads(done.stdout)["usage"]["completion_tokens"] <= 12
    pytest.importorskip("openai", reason="the printed program uses it")
    program = tmp_path / "client.py"
    program.write_text(deployed.out[deployed.out.index("from openai") :])
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_flags_of_media_are_named_for_a_model_of_text(deployed: Deployed) -> None:
    assert "a model of text does not read --allow_private_urls" in deployed.err


def test_log_has_statistics_and_no_prompt(deployed: Deployed) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a very secret question"}]}
    assert httpx.post(f"{deployed.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
    for _ in range(50):
        if "num_generated_tokens" in deployed.err:
            break
        time.sleep(0.1)
    assert "num_generated_tokens" in deployed.err
    assert "secret" not in deployed.err + deployed.out


def test_port_in_use_is_said_before_anything_is_loaded(tiny_llama_dir: Path, capsys) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        argv = ["deploy", "--model_id_or_path", str(tiny_llama_dir), "--host", "127.0.0.1", "--port", port]
        assert main(argv) == 2
    told = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1:{port}" in told and "choose another --port" in told
    assert main([*argv[:-3], "no.such.name", *argv[-2:]]) == 2
    assert "--host 127.0.0.1 for this machine alone" in capsys.readouterr().err


def test_half_a_certificate_is_refused(tiny_llama_dir: Path, tmp_path: Path, capsys) -> None:
    key = tmp_path / "key.pem"
    key.write_text("x")
    assert main(["deploy", "--model_id_or_path", str(tiny_llama_dir), "--ssl_keyfile", str(key)]) == 2
    assert "--ssl_certfile" in capsys.readouterr().err


def test_a_key_that_is_none_is_refused(tiny_llama_dir: Path, tmp_path: Path, capsys) -> None:
    wrong = tmp_path / "key.pem"
    wrong.write_text("x")
    argv = ["deploy", "--model_id_or_path", str(tiny_llama_dir), "--host", "127.0.0.1", "--port", str(free_port())]
    assert main([*argv, "--ssl_keyfile", str(wrong), "--ssl_certfile", str(wrong)]) == 2
    assert "the TLS key and certificate cannot be used" in capsys.readouterr().err


def test_sigterm_under_load_finishes_what_was_accepted(deployed: Deployed) -> None:
    """The last test of this file: it ends the server that the others use."""
    answers: list[httpx.Response] = []

    def ask(at: int) -> None:
        prompt = f"number {at} " * 5
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 150, "stream": at % 2 == 0, "temperature": 0}
        answers.append(httpx.post(f"{deployed.url}/v1/completions", json=body, timeout=120))

    clients = [threading.Thread(target=ask, args=(at,)) for at in range(12)]
    for client in clients:
        client.start()
    while True:
        text = httpx.get(f"{deployed.url}/metrics", timeout=30).text
        if float(re.search(r"^swift_in_flight (\S+)", text, re.M).group(1)) == 12:
            break
        time.sleep(0.02)
    assert deployed.end() == 0
    for client in clients:
        client.join(60)
    assert [answer.status_code for answer in answers] == [200] * 12
    for answer in answers:
        whole = answer.text.endswith("data: [DONE]\n\n") or answer.json()["choices"][0]["finish_reason"]
        assert whole
