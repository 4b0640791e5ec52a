"""The pages without a browser: every flag has its field, what is typed comes back, mistakes stand at their field."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import swift.web
from swift.params.commands import COMMANDS
from swift.params.parse import read
from swift.web.form_page import FORMS, log_errors
from swift.web.job_api import demo
from swift.web.studio import Studio
from web.conftest import until
from web.test_runs import run_folder

SOURCE = Path(swift.web.__file__).parent


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("command", FORMS)
def test_every_flag_has_a_field(client: TestClient, command: str, language: str) -> None:
    client.cookies.set("swift-lang", language)
    page = client.get(f"/new/{command}").text
    fields = re.findall(r'data-name="(\w+)"', page)
    assert sorted(fields) == sorted(f.name for f in COMMANDS[command].flags.values() if f.alias_of is None)
    for flag in COMMANDS[command].flags.values():
        if flag.alias_of is not None:
            assert re.search(rf'data-search="[^"]*\b{flag.name}\b', page), "other spellings are found by the search"


def test_the_words_are_complete_and_used() -> None:
    texts = tomllib.loads((SOURCE / "words.toml").read_text(encoding="utf-8"))
    assert all(len(pair) == 2 and all(pair) for pair in texts.values())
    templates = "".join(path.read_text(encoding="utf-8") for path in (SOURCE / "templates").iterdir())
    used = set(re.findall(r"\bt\.(\w+)", templates))
    families = tuple(re.findall(r"t\['(\w+_)' ~", templates))
    assert used <= set(texts)
    assert {key for key in texts if not key.startswith(families)} == {
        key for key in used if not key.startswith(families)
    }


def test_the_first_load_is_small(client: TestClient) -> None:
    """What a browser fetches for the largest form."""
    places = ("/new/rlhf", "/static/page.css", "/static/page.js", "/static/form.js")
    sizes = [int(client.get(place, headers={"accept-encoding": "gzip"}).headers["content-length"]) for place in places]
    assert sum(sizes) < 100_000


def test_nothing_comes_from_elsewhere() -> None:
    for path in SOURCE.rglob("*"):
        if path.suffix in (".html", ".js", ".css"):
            assert not re.findall(r"(?:https?:)?//[a-z][\w.-]+\.\w+", path.read_text(encoding="utf-8")), path


def test_addresses_are_relative() -> None:
    """A proxy may show the pages below a path of its own."""
    absolute = re.compile(r"""(?:href|src|action|data-[a-z]+)=["']/|(?:post|fetch|follow)\([`"']/""")
    for path in SOURCE.rglob("*"):
        if path.suffix in (".html", ".js"):
            assert not absolute.findall(path.read_text(encoding="utf-8")), path


def test_the_empty_page_says_what_to_do(client: TestClient) -> None:
    assert 'data-post="api/demo"' in client.get("/").text
    assert read(demo()).errors == []


def test_a_form_is_kept_and_comes_back(client: TestClient) -> None:
    values = {"system": "", "packing": "false", "lora_rank": "0", "dataset": "中 文.jsonl\nb", "hub_token": "sesame"}
    answer = client.post("/api/command", json={"command": "sft", "values": values}).json()
    words = shlex.split(answer["line"])
    assert words == [
        "swift",
        "sft",
        "--dataset",
        "中 文.jsonl",
        "b",
        "--packing",
        "false",
        "--system",
        "",
        "--lora_rank",
        "0",
    ]
    assert "lora_rank" in answer["errors"]
    page = client.get("/new/sft").text
    assert page.count('class="field set"') == 4 and "sesame" not in page and "中 文.jsonl\nb" in page
    assert client.get("/new/pt").text.count('class="field set"') == 0


def test_a_form_begins_with_the_values_of_the_address(client: TestClient) -> None:
    page = client.get("/new/eval", params={"ckpt_dir": '/x/"><script>', "hub_token": "sesame"}).text
    assert page.count('class="field set"') == 1 and "&#34;&gt;&lt;script&gt;" in page and "sesame" not in page


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"lora_rank": "0"}, "lora_rank"),
        ({"batch_size": ""}, "batch_size"),
        ({"model_type": "qwn2-7b"}, "model_type"),
        ({"use_dora": "true", "sft_type": "full"}, "use_dora"),
        ({"lora_target_modules": "ALL", "target_modules": "DEFAULT"}, "target_modules"),
        ({"deepspeed": "zero2"}, "deepspeed"),
        ({}, "dataset"),
        ({"dataset": "/etc/passwd"}, "dataset"),
        ({"external_plugins": "../../x.py"}, "external_plugins"),
    ],
)
def test_a_mistake_stands_at_its_field_and_nothing_starts(
    client: TestClient, studio: Studio, values: dict[str, str], field: str
) -> None:
    command = "rlhf" if "external_plugins" in values else "sft"
    answer = client.post("/api/jobs", json={"command": command, "values": values})
    if field == "deepspeed" and answer.json().get("errors", {}).get("deepspeed") is None:
        pytest.skip("it is built")
    assert answer.status_code == 422 and field in answer.json()["errors"]
    assert studio.jobs.all() == []


def test_what_is_no_form_is_refused(client: TestClient) -> None:
    assert client.get("/new/web-ui").status_code == 404
    assert client.post("/api/jobs", json={"command": "web-ui", "values": {}}).status_code == 404
    assert client.post("/api/command", json={"command": "sft", "values": {"no_such_flag": "1"}}).status_code == 422
    assert client.get("/jobs/../../x").status_code == 404
    assert client.get("/jobs/%2e%2e").status_code == 404


def test_a_file_of_flags_goes_down_and_up(client: TestClient) -> None:
    values = {"system": "a: b\nc", "dataset": "x\ny", "lora_dropout": "0", "packing": "true"}
    text = client.post("/api/yaml", json={"command": "sft", "values": values}).json()["yaml"]
    back = client.post("/api/file", json={"command": "sft", "name": "f.yaml", "content": text}).json()
    assert back == {"values": {**values, "lora_dropout": "0"}, "errors": []} or back["values"]["lora_dropout"] == "0.0"
    broken = client.post("/api/file", json={"command": "sft", "name": "f.yaml", "content": "a: [1"}).json()
    assert broken["values"] == {} and broken["errors"]


def test_values_are_suggested(client: TestClient, studio: Studio) -> None:
    def names(command: str, flag: str, typed: str) -> list[str]:
        return client.get("/api/suggest", params={"command": command, "flag": flag, "typed": typed}).json()

    (studio.cwd / "rows.jsonl").touch()
    (studio.cwd / "folder").mkdir()
    run = run_folder(studio.output / "a")
    (run / "checkpoint-3").mkdir()
    (run / "checkpoint-3" / "manifest.json").write_text('{"files": {}}')
    assert names("sft", "model_type", "smollm2-135")[0].startswith("smollm2-135m")
    assert "rows.jsonl" in names("sft", "dataset", "row") and "self-cognition" in names("sft", "dataset", "self")
    assert "folder/" in names("sft", "model_id_or_path", "fol")
    assert names("eval", "ckpt_dir", "checkpoint-3") == [str(run / "checkpoint-3")]
    assert names("sft", "model_id_or_path", "/etc/") == []


def test_a_job_from_the_form_to_its_end(client: TestClient, studio: Studio) -> None:
    (studio.cwd / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n')
    (studio.cwd / "empty").mkdir()
    values = {"model_id_or_path": "empty", "dataset": "rows.jsonl", "lora_rank": "4"}
    answer = client.post("/api/jobs", json={"command": "sft", "values": values, "dry": True})
    assert answer.status_code == 200, answer.text
    name = answer.json()["id"]
    with client.stream("GET", f"/jobs/{name}/events") as events:
        last = [line for line in events.iter_lines() if line.startswith("data:")][-1]
    job = studio.jobs.get(name)
    assert job is not None and job.state == "failed" and job.words[-2:] == ["--dry_run", "true"]
    assert '"over": true' in last and '"errors": {"' in last
    assert client.get(f"/jobs/{name}").status_code == 200
    assert "error" in client.get(f"/jobs/{name}/log").text
    again = client.get(f"/new/sft?job={name}").text
    assert again.count('class="field set"') == 4
    assert studio.listed(10) == [], "a dry run is no entry of the list"
    until(lambda: client.post(f"/api/jobs/{name}/remove").status_code == 200)


def test_what_a_log_says_stands_at_its_field() -> None:
    log = "[INFO] x\nerror: --optim takes a, not b, write c\nerror: --dataset x is no file\n"
    assert set(log_errors("sft", log)) == {"optim", "dataset"}
    assert log_errors("sft", "error: the weights do not fit\n where: --batch_size\n  why: 3 GiB\n") == {
        "batch_size": ["the weights do not fit where: --batch_size why: 3 GiB"]
    }
    assert log_errors("sft", "all is well\n") == {}


def test_runs_of_a_terminal_have_a_page(client: TestClient, studio: Studio) -> None:
    first, second = run_folder(studio.output / "a"), run_folder(studio.output / "b", lora_rank=3)
    assert "a" in client.get("/").text and 'name="run"' in client.get("/").text
    page = client.get("/runs", params={"path": str(first)}).text
    assert "<svg" in page and "sft · tiny · lora" in page
    both = client.get("/compare", params={"run": [str(first), str(second)]}).text
    assert "lora_rank" in both and both.count("<svg") >= 4
    resumed = client.get("/new/sft", params={"resume": str(first)})
    assert resumed.status_code in (200, 422)


def test_gpus_are_chosen_in_the_form_and_jobs_wait_for_theirs(client: TestClient, studio: Studio) -> None:
    """As on a machine with three: the job sees what was chosen, and the next form offers what is free."""
    vars(studio)["devices"] = ("0", "1", "GPU-7f")
    studio.queue.end()  # nothing is to start here
    (studio.cwd / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n')
    (studio.cwd / "empty").mkdir()
    values = {"model_id_or_path": "empty", "dataset": "rows.jsonl"}

    def record(*devices: str) -> dict[str, object]:
        answer = client.post("/api/jobs", json={"command": "sft", "values": values, "devices": devices})
        job = studio.jobs.get(answer.json()["id"])
        assert job is not None
        return job.record["env"]

    def offered() -> list[tuple[str, bool]]:
        boxes = re.findall(r'name="device" value="([^"]+)"( checked)?', client.get("/new/sft").text)
        return [(name, bool(checked)) for name, checked in boxes]

    assert offered() == [("0", True), ("1", False), ("GPU-7f", False)]
    assert record("1", "GPU-7f") == {"CUDA_VISIBLE_DEVICES": "1,GPU-7f", "NPROC_PER_NODE": "2"}
    assert record() == {"CUDA_VISIBLE_DEVICES": "0"}
    assert record("9") == {"CUDA_VISIBLE_DEVICES": "0"}, "a device that is not there"
    assert studio.taken_devices() == {"0", "1", "GPU-7f"} and client.get("/new/sft").text.count("taken") == 3
    assert offered()[0] == ("0", True), "all are taken: the job waits for the first"
    for job in studio.jobs.all():
        studio.jobs.stop(job)
    assert studio.taken_devices() == set()
