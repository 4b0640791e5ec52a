"""What the buttons of forms and jobs ask: the command line, its mistakes, a start, a stop."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.responses import Response

from swift.params.commands import COMMANDS
from swift.params.form import as_yaml, command_words, from_yaml
from swift.params.parse import read
from swift.params.secrets import SECRETS
from swift.web.form_page import FORMS, by_field, errors_of, problems
from swift.web.jobs import Job
from swift.web.queue import CPU, wanted_devices
from swift.web.request_facts import Here, TheJob
from swift.web.studio import Studio
from swift.web.suggestions import suggestions

TRAINING = ("sft", "pt", "rlhf")
routes = APIRouter(prefix="/api")


class Filled(BaseModel):
    """A form: the fields that were set, as text."""

    command: str
    values: dict[str, str]

    def texts(self) -> dict[str, str]:
        """The fields without secrets. Raises 404 for a command without a form, 422 for a flag it does not have."""
        if self.command not in FORMS:
            raise HTTPException(404, "there is no such form")
        flags = COMMANDS[self.command].flags
        if unknown := [name for name in self.values if name not in flags]:
            raise HTTPException(422, f"swift {self.command} has no flag {unknown[0]}")
        texts = {name: text.replace("\r\n", "\n") for name, text in self.values.items()}
        return {name: text for name, text in texts.items() if name not in SECRETS and "\0" not in text}


class Start(Filled):
    """A form to be run. `dry`: only show what would happen; `devices` is what it may use."""

    secrets: dict[str, str] = {}
    devices: list[str] = []
    dry: bool = False


class File(BaseModel):
    """A file of flags that was chosen in the browser."""

    command: str
    name: str
    content: str


def demo() -> list[str]:
    """The command line of the first run."""
    return tomllib.loads(Path(__file__).with_name("demo.toml").read_text(encoding="utf-8"))["words"]


def environment(studio: Studio, command: str, devices: tuple[str, ...]) -> dict[str, str]:
    """The variables that choose GPUs, on a machine that has several to choose from."""
    if studio.devices == (CPU,) or not devices or len(studio.devices) == 1:
        return {}
    several = {"NPROC_PER_NODE": str(len(devices))} if command in TRAINING and len(devices) > 1 else {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices), **several}


def start(studio: Studio, words: list[str], secrets: Mapping[str, str], chosen: list[str], *, dry: bool) -> Job:
    """Put a command line into the queue."""
    devices = wanted_devices(words[0], tuple(chosen), studio.devices, dry=dry)
    job = studio.jobs.add(
        words,
        env=environment(studio, words[0], devices),
        secrets_of_job={SECRETS[name]: value for name, value in secrets.items() if name in SECRETS and value},
        devices=devices,
        dry=dry,
    )
    studio.queue.hurry()
    return job


@routes.post("/command")
def command_line(studio: Here, filled: Filled) -> dict[str, Any]:
    """The command line of a form as it is filled now, and its mistakes; the form is kept."""
    texts = filled.texts()
    studio.keep_draft(filled.command, texts)
    line = shlex.join(["swift", *command_words(filled.command, texts)])
    return {"line": line, "errors": problems(filled.command, texts, studio.paths, studio.cwd)}


@routes.post("/yaml")
def yaml(filled: Filled) -> dict[str, str]:
    """A form as a file of flags."""
    return {"yaml": as_yaml(filled.command, filled.texts())[0]}


@routes.post("/file")
def file(given: File) -> dict[str, Any]:
    """A file of flags as the fields of a form."""
    if given.command not in FORMS:
        raise HTTPException(404, "there is no such form")
    texts, refused = from_yaml(COMMANDS[given.command], given.name, given.content)
    return {"values": texts, "errors": refused}


@routes.post("/jobs")
def start_job(studio: Here, filled: Start) -> Response:
    """Run a form, or say what is wrong with it."""
    texts = filled.texts()
    if filled.dry and filled.command in TRAINING:
        texts["dry_run"] = "true"
    words = command_words(filled.command, texts)
    errors = errors_of(read(words), studio.paths, studio.cwd)
    if errors:
        return JSONResponse({"errors": by_field(filled.command, errors)}, status_code=422)
    job = start(studio, words, filled.secrets, filled.devices, dry=filled.dry)
    return JSONResponse({"id": job.id, "to": f"jobs/{job.id}"})


@routes.post("/demo")
def start_demo(studio: Here) -> dict[str, str]:
    """Run the command line of the first run."""
    job = start(studio, demo(), {}, [], dry=False)
    return {"id": job.id, "to": f"jobs/{job.id}"}


@routes.post("/jobs/{name}/stop")
def stop(studio: Here, job: TheJob) -> dict[str, str]:
    """Ask a job to save and end."""
    studio.jobs.stop(job)
    return {"to": f"jobs/{job.id}"}


@routes.post("/jobs/{name}/kill")
def kill(studio: Here, job: TheJob) -> dict[str, str]:
    """End a job at once."""
    studio.jobs.kill(job)
    return {"to": f"jobs/{job.id}"}


@routes.post("/jobs/{name}/start")
def start_now(studio: Here, job: TheJob) -> dict[str, str]:
    """Start a queued job although its devices are taken."""
    if job.state != "queued":
        raise HTTPException(409, f"it is {job.state}")
    if studio.jobs.lacks_secrets(job):
        raise HTTPException(409, "its secret was given to an earlier server: start it again from its form")
    studio.jobs.start(job)
    return {"to": f"jobs/{job.id}"}


@routes.post("/jobs/{name}/remove")
def remove(studio: Here, job: TheJob) -> dict[str, str]:
    """Take a job that is over from the list."""
    if not studio.jobs.remove(job):
        raise HTTPException(409, f"it is {job.state}")
    return {"to": "./"}


@routes.get("/suggest")
def suggest(studio: Here, command: str, flag: str, typed: str = "") -> list[str]:
    """Values for a field that hold what was typed."""
    if command not in FORMS or flag not in COMMANDS[command].flags:
        raise HTTPException(404, "there is no such field")
    return suggestions(studio, COMMANDS[command].flags[flag], typed)
