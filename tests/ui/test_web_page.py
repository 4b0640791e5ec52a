"""The studio in a real browser: forms become command lines, jobs outlive page, browser and server."""

from __future__ import annotations

import contextlib
import http.server
import json
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fixtures.tiny_multimodal import write_tiny

from params.test_form import any_value
from swift.params.commands import COMMANDS
from swift.params.flag import Alias, Flag
from swift.params.form import text_of
from swift.params.parse import read
from swift.params.secrets import SECRETS
from swift.web.form_page import Field
from swift.web.jobs import Jobs
from ui.browser import HAS_CHROMIUM, complaints, find, opened, resize, until
from web.test_runs import run_folder

pytest.importorskip("selenium", reason="selenium drives the browser")
pytest.importorskip("fastapi", reason="the page is served with fastapi")
pytestmark = [
    pytest.mark.skipif(not HAS_CHROMIUM, reason="chromium is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
FORMS = [name for name in COMMANDS if name != "web-ui"]


class Server:
    """`swift web-ui` as a process that can be killed and started again on the same port."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        words = ["web-ui", "--port", str(self.port), "--lang", "en"]
        self.process = subprocess.Popen([sys.executable, "-m", "swift", *words], cwd=self.folder)
        until(self._answers)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/static/page.css").status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """End the server, and the jobs, which would go on without it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        jobs = Jobs(self.folder / "output" / "jobs", self.folder)
        for job in jobs.open():
            jobs.kill(job)

    def post(self, place: str, body: dict[str, Any]) -> dict[str, Any]:
        return httpx.post(self.url + place, json=body, headers={"x-swift": "1"}).json()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("studio"))
    yield server
    server.end()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server for one test, which may kill it."""
    server = Server(tmp_path)
    yield server
    server.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened() as driver:
        yield driver


SET = """
const done = arguments[2];
for (const [name, text] of Object.entries(arguments[0])) {
  const field = document.getElementById(`f-${name}`);
  if (text === null) { field.querySelector(".reset").click(); continue; }
  const input = control(field);
  if (input.tagName === "SELECT" && ![...input.options].some((option) => option.value === text)) {
    done(`no choice ${name}: ${text}`);
    return;
  }
  if (text === "") { input.value = "x"; input.dispatchEvent(new Event("input", { bubbles: true })); }
  input.value = text;
  input.dispatchEvent(new Event("input", { bubbles: true }));
}
look().then(() => done(document.getElementById("line").textContent));
"""


def typed_value(flag: Flag, chance: random.Random) -> Any:
    """Any value that the flag's field takes: one that suggests names has a single line."""
    value = any_value(flag, chance)
    one_line = Field(flag, "en").control == "text" and isinstance(value, str)
    return value.replace("\n", " ") if one_line else value


def test_a_hundred_settings_of_the_form_are_what_the_command_reads(browser: Any, server: Server) -> None:
    """Set in the page, read off its command line: quotes, Chinese, false, 0, -1, empty texts, several lines."""
    chance = random.Random(30)
    for command in ("sft", "rlhf", "deploy", "eval"):
        browser.get(f"{server.url}/new/{command}")
        flags = {
            flag.name: flag
            for flag in COMMANDS[command].flags.values()
            if flag.marker(Alias) is None and flag.name not in (*SECRETS, "ckpt_dir")
        }
        before: list[str] = []
        for _ in range(5):
            names = chance.sample(sorted(flags), 6)
            values = {name: typed_value(flags[name], chance) for name in names}
            texts = {name: text_of(flags[name], value) for name, value in values.items()}
            given = {**dict.fromkeys(before), **texts}
            line = browser.execute_async_script(SET, given, None)
            words = shlex.split(line)
            parsed = read(words[1:])
            sent = [name for name in names if parsed.args.is_explicit(name)]
            assert parsed.errors == [] and {name: parsed.args.values[name] for name in names} == values, line
            assert all(values[name] == flags[name].default for name in names if name not in sent), line
            before = names
    done = subprocess.run(
        [sys.executable, "-m", "swift", *words[1:], "--print_config", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    shown = json.loads(done.stdout)["values"]
    assert {name: shown[name]["value"] for name in names} == json.loads(json.dumps(values))
    assert complaints(browser) == []


@pytest.mark.slow
def test_every_flag_is_found_by_the_search(browser: Any, server: Server) -> None:
    look = """
      const hidden = [];
      for (const [name, target] of Object.entries(arguments[0])) {
        document.getElementById("search").value = name;
        filter();
        const field = document.getElementById(`f-${target}`);
        if (!field || !field.checkVisibility()) hidden.push(name);
      }
      return hidden;
    """
    for command in FORMS:
        browser.get(f"{server.url}/new/{command}")
        until(lambda: browser.execute_script("return typeof filter") == "function")
        targets = {name: flag.alias_of or name for name, flag in COMMANDS[command].flags.items()}
        assert browser.execute_script(look, targets) == [], command


NAMELESS = """
return [...document.querySelectorAll("button, a, input, select, textarea, progress, [role=img]")].filter((each) => {
  if (!each.checkVisibility() || each.type === "hidden") return false;
  const label = each.getAttribute("aria-label") ?? [...(each.labels ?? [])].map((one) => one.textContent).join(" ");
  return !(label || each.textContent || each.title).trim();
}).map((each) => each.outerHTML);
"""


def test_pages_fit_any_screen_and_name_what_is_on_them(browser: Any, server: Server) -> None:
    run = run_folder(server.folder / "output" / ("a-long-name-of-a-model" * 4), steps=40)
    other = run_folder(server.folder / "output" / "b", lora_rank=3)
    pages = ["/", "/new/sft", "/new/eval", f"/runs?path={run}", f"/compare?run={run}&run={other}"]
    for language in ("en", "zh"):
        browser.get(f"{server.url}/?lang={language}")
        for page in pages:
            browser.get(server.url + page)
            for width in (390, 768, 1440, 2000):
                resize(browser, width)
                wide = browser.execute_script("return document.documentElement.scrollWidth")
                assert wide <= width, (page, language, width)
            assert browser.execute_script(NAMELESS) == [], page
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(f"{server.url}/?lang=en")
    shutil.rmtree(server.folder / "output" / "b")
    shutil.rmtree(run)
    assert complaints(browser) == []


def proxy_of(server: Server, path: str) -> type[http.server.BaseHTTPRequestHandler]:
    """A proxy that shows the server below a path, which it takes off, as nginx, Jupyter and VS Code do."""

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path.startswith(path), self.path
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            place = server.url + self.path.removeprefix(path)
            with httpx.stream(self.command, place, headers=dict(self.headers), content=body) as answer:
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name not in ("transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError, httpx.HTTPError):  # the browser has left
                    for piece in answer.iter_raw():
                        self.wfile.write(piece)
                        self.wfile.flush()

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Proxy


@pytest.mark.slow
def test_pages_work_below_a_path_of_a_proxy(browser: Any, server: Server) -> None:
    path = "/user/me/proxy/7860"
    run = run_folder(server.folder / "output" / "a")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), proxy_of(server, path)) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{proxy.server_port}{path}"
        complaints(browser)
        browser.get(f"{root}/")
        find(browser, ".card[href$='new/eval']").click()
        until(lambda: "swift eval" in find(browser, "#line").text)
        find(browser, "#lang").click()
        until(lambda: "中文" not in find(browser, "#lang").text)
        assert browser.current_url == f"{root}/new/eval"
        find(browser, "#lang").click()
        until(lambda: "中文" in find(browser, "#lang").text)
        find(browser, ".brand").click()
        until(lambda: browser.current_url == f"{root}/" and find(browser, "#list a"))
        find(browser, "#list a").click()
        until(lambda: "/runs?path=" in browser.current_url and find(browser, "#curves svg"))
        assert browser.current_url.startswith(f"{root}/runs") and complaints(browser) == []
        proxy.shutdown()
    shutil.rmtree(run)


def test_another_sites_page_starts_nothing(browser: Any, server: Server, tmp_path: Path) -> None:
    """A page of another origin, in the same browser, that posts in the ways that need no permission."""
    body = json.dumps({"command": "sft", "values": {"model_id_or_path": "x", "self_cognition_sample": "1"}})
    (tmp_path / "index.html").write_text(
        f"<form id=f method=post enctype=text/plain action='{server.url}/api/demo'><input name=a value=b></form>"
        f"<script>const send = (to, headers) => fetch(to, {{method: 'POST', body: {body!r}, headers}}).catch(() => 0);"
        f"Promise.all([send('{server.url}/api/demo'), send('{server.url}/api/jobs', {{'content-type': 'text/plain'}}),"
        f"send('{server.url}/api/jobs', {{'x-swift': '1'}})]).then(() => f.submit())</script>"
    )

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as evil:
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        browser.get(f"http://localhost:{evil.server_port}/")
        until(lambda: "another site" in browser.page_source)
        evil.shutdown()
    assert list((server.folder / "output" / "jobs").glob("*-*-*")) == []
    complaints(browser)


def training(server: Server, model: Path, **more: str) -> str:
    """The page of a training that has begun, long enough to be interrupted."""
    rows = server.folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"say {n}", "response": f"{n} it is"}) + "\n" for n in range(40)))
    place = server.folder / "model"
    if not place.exists():
        shutil.copytree(model, place)
    values = {
        **{"model_id_or_path": str(place), "template_type": "qwen", "dataset": str(rows), "max_steps": "2000"},
        **{"batch_size": "1", "gradient_accumulation_steps": "1", "logging_steps": "1", "eval_steps": "400", **more},
    }
    answer = server.post("/api/jobs", {"command": "sft", "values": values})
    assert "to" in answer, answer
    return f"/{answer['to']}"


def steps_shown(browser: Any) -> int:
    return browser.execute_script("return document.querySelector('#status progress')?.value ?? 0")


@pytest.mark.slow
def test_a_training_outlives_page_browser_and_server(own_server: Server, tiny_llama_dir: Path) -> None:
    place = training(own_server, tiny_llama_dir)
    job = own_server.folder / "output" / "jobs" / place.rpartition("/")[2]
    with opened() as browser:
        browser.get(own_server.url + "/new/sft")
        browser.execute_async_script(SET, {"system": "it's “kept”"}, None)
        browser.get(own_server.url + place)
        until(lambda: steps_shown(browser) > 5, 300)
        browser.refresh()
        seen = steps_shown(browser)
        until(lambda: steps_shown(browser) > seen)  # the events go on
        own_server.kill()
        begun = json.loads((job / "process.json").read_text())["command"]
        own_server.start()
        back = time.monotonic()
        until(lambda: steps_shown(browser) > seen + 5)  # of itself, without a reload
        until(lambda: "job" not in find(browser, "#message").text)
        print(f"live again {time.monotonic() - back:.1f} s after the server")
        browser.service.process.kill()
    own_server.kill()
    own_server.start()
    with opened() as browser:
        start = time.monotonic()
        browser.get(own_server.url + place)
        assert steps_shown(browser) > seen and browser.find_elements("css selector", "#curves svg")
        assert "step" in find(browser, "#log").text
        browser.get(own_server.url + "/new/sft")
        assert find(browser, "#i-system").get_attribute("value") == "it's “kept”"
        print(f"all back {time.monotonic() - start:.1f} s after a new browser asked")
        browser.get(own_server.url)
        assert "running" in find(browser, "#list").text
    assert json.loads((job / "process.json").read_text())["command"] == begun
    stop_and_check(own_server, place)


@pytest.mark.slow
def test_stop_saves_and_leaves_a_neighbour_alone(own_server: Server, tiny_llama_dir: Path, tmp_path: Path) -> None:
    place = training(own_server, tiny_llama_dir, dataloader_num_workers="2")
    line = httpx.get(f"{own_server.url}{place}").text
    assert "dataloader_num_workers 2" in line
    words = ["sft", "--output_dir", "output", str(tmp_path / "output"), place]
    neighbour = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", *words])
    try:
        with opened() as browser:
            browser.get(own_server.url + place)
            until(lambda: steps_shown(browser) > 5, 300)
            find(browser, "#status [data-post$=stop]").click()
            until(lambda: find(browser, "#status .state").text == "stopped", 120)
            until(lambda: "whole" not in find(browser, "#results").text and find(browser, "#results .actions"))
            find(browser, "#results [href*='resume=']").click()
            until(lambda: "resume_from_checkpoint" in find(browser, "#line").text)
            assert find(browser, "#i-max_steps").get_attribute("value") == "2000"
        assert neighbour.poll() is None
    finally:
        neighbour.kill()
        neighbour.wait()


def stop_and_check(server: Server, place: str) -> None:
    """Stop the job; it saves a whole checkpoint at its last step."""
    from swift.core.transaction import fault

    job = server.folder / "output" / "jobs" / place.rpartition("/")[2]
    server.post(f"/api{place}/stop", {})
    until(lambda: (job / "exit.json").exists(), 120)
    assert json.loads((job / "exit.json").read_text())["code"] == 75
    run = Path((job / "result").read_text())
    saved = sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    assert saved and fault(saved[-1]) is None


@pytest.mark.slow
def test_chat_with_a_checkpoint(own_server: Server, tiny_llama_dir: Path) -> None:
    """From the list of checkpoints into a talk: an answer, its length and speed, stopped, a new chat and back."""
    place = training(own_server, tiny_llama_dir, max_steps="2", eval_steps="1")
    with opened() as browser:
        browser.get(own_server.url + place)
        until(lambda: find(browser, "#results .primary"), 300)
        until(lambda: find(browser, "#status .state").text == "done", 120)
        find(browser, "#results .primary").click()
        until(lambda: find(browser, "#send").is_enabled(), 300)
        assert "chat/completions" in browser.execute_script("return document.getElementById('curl').textContent")
        browser.execute_script("document.getElementById('max-tokens').value = '12'")
        find(browser, ".example").click()
        until(lambda: "tokens/s" in find(browser, "#talk").text, 120)
        browser.refresh()
        until(lambda: "tokens/s" in find(browser, "#talk").text and find(browser, "#send").is_enabled(), 60)
        find(browser, "#box").send_keys("More")
        find(browser, "#send").click()
        until(lambda: find(browser, "#stop").is_displayed())
        find(browser, "#stop").click()
        until(lambda: find(browser, "#talk .stopped"))
        find(browser, "#new-chat").click()
        assert find(browser, "#talk").text == ""
        find(browser, "#message button").click()
        until(lambda: "More" in find(browser, "#talk").text)
        assert browser.execute_script(NAMELESS) == []
        assert complaints(browser) == []
        browser.find_element("css selector", "[data-post$=stop]").click()
        until(lambda: "ended" in find(browser, "#server").text, 60)


@pytest.mark.slow
def test_the_chat_with_a_model_that_sees_names_the_page_for_pictures(
    own_server: Server, smollm2_tokenizer_dir: Path
) -> None:
    model = write_tiny("qwen2_vl", own_server.folder / "tiny", smollm2_tokenizer_dir)
    values = {"model_id_or_path": str(model), "model_type": "qwen2-vl-2b-instruct", "dtype": "fp32"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        values["port"] = str(free.getsockname()[1])
    job = own_server.post("/api/jobs", {"command": "deploy", "values": values})["id"]
    with opened() as browser:
        browser.get(f"{own_server.url}/chat/{job}")
        line = f"swift app-ui --model_type qwen2-vl-2b-instruct --model_id_or_path {model}"
        until(lambda: find(browser, "#server").text.endswith(line), 300)
        assert find(browser, "#send").is_enabled()
