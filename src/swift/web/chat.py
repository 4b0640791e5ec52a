"""Chat with any checkpoint or model: `swift deploy` as a job, and a page that talks to it through this server."""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel

from swift.core.errors import raise_together
from swift.params.parse import read
from swift.params.secrets import SECRETS
from swift.web.form_page import errors_of
from swift.web.job_api import start
from swift.web.jobs import Job
from swift.web.live import STREAMED
from swift.web.pages import plain, render
from swift.web.processes import environment_of
from swift.web.request_facts import Here, Spoken, TheJob

LOOPBACK = "127.0.0.1"
ANY = {"0.0.0.0": LOOPBACK, "::": "::1"}
routes = APIRouter()
PATIENCE = httpx.Timeout(10.0, read=600.0)


class Model(BaseModel):
    """What to chat with: a checkpoint folder, or a model by name, id or folder."""

    ckpt_dir: str = ""
    model: str = ""


def address(job: Job) -> str:
    """Where the server of a deploy job listens, for clients of this machine."""
    values = read(job.words).args.values
    host = str(ANY.get(values["host"], values["host"]))
    scheme = "https" if values["ssl_certfile"] else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{values['port']}"


def curl(job: Job, name: str) -> str:
    """A line that asks the server from a terminal; a key stays in the environment."""
    body = {"model": name, "messages": [{"role": "user", "content": "Who are you?"}]}
    words = ["curl", f"{address(job)}/v1/chat/completions", "-H", "Content-Type: application/json"]
    key = ' -H "Authorization: Bearer $OPENAI_API_KEY"' if SECRETS["api_key"] in job.record["secrets"] else ""
    return f"{shlex.join(words)}{key} -d {shlex.quote(json.dumps(body))}"


def with_media(job: Job) -> str:
    """The command whose page takes images, videos and sounds for the same model; this one sends text alone."""
    values, names = read(job.words).args.values, ("ckpt_dir", "model_type", "model_id_or_path")
    return shlex.join(
        ["swift", "app-ui", *(word for name in names if values[name] for word in (f"--{name}", values[name]))]
    )


def _server(job: TheJob) -> Job:
    if job.command != "deploy":
        raise HTTPException(404, "this job serves no model")
    return job


TheServer = Annotated[Job, Depends(_server)]


@routes.post("/api/chat")
def open_chat(studio: Here, model: Model) -> dict[str, str]:
    """Serve a model, unless a job does so already, and lead to the chat with it."""
    words = [*_words(model), "--host", LOOPBACK]
    for job in studio.jobs.open():
        if job.command == "deploy" and job.words[: len(words)] == words:
            return {"to": f"chat/{job.id}"}
    raise_together(errors_of(read(words), studio.paths, studio.cwd))
    job = start(studio, [*words, "--port", str(_free_port())], {}, [], dry=False)
    return {"to": f"chat/{job.id}"}


@routes.get("/chat/{name}", response_class=HTMLResponse)
def chat_page(job: TheServer, spoken: Spoken) -> str:
    """The page that talks to the server of a job."""
    values = read(job.words).args.values
    title = values["ckpt_dir"] or values["model_id_or_path"] or values["model_type"]
    return render("chat.html", spoken, job=job, title=title, address=address(job))


@routes.get("/api/chat/{name}")
async def state(job: TheServer) -> dict[str, Any]:
    """Whether the server answers, with which models, and how to reach it from elsewhere."""
    cards = await _models(job) if job.state == "running" else []
    models = [card["id"] for card in cards]
    best = "default-lora" if "default-lora" in models else models[0] if models else ""
    return {
        "state": job.state,
        "models": models,
        "model": best,
        "address": f"{address(job)}/v1",
        "curl": curl(job, best) if best else "",
        "with_media": with_media(job) if any(card.get("is_multimodal") for card in cards) else "",
        "log": plain("\n".join(job.log_tail(6000).splitlines()[-12:])),
    }


@routes.post("/api/chat/{name}/completions")
async def completions(request: Request, job: TheServer) -> StreamingResponse:
    """An answer as it is written."""
    if job.state != "running":
        raise HTTPException(409, "the server is not running")
    body = {**await request.json(), "stream": True, "stream_options": {"include_usage": True}}
    return StreamingResponse(_answer(job, body), media_type="text/event-stream", headers=STREAMED)


async def _models(job: Job) -> list[dict[str, Any]]:
    try:
        async with _client(job) as client:
            answer = await client.get("/v1/models", timeout=3.0)
        return [entry for entry in answer.json()["data"] if entry["id"]] if answer.status_code == 200 else []
    except (httpx.HTTPError, ValueError, KeyError):
        return []  # it is still loading


def _words(model: Model) -> list[str]:
    if model.ckpt_dir:
        return ["deploy", "--ckpt_dir", model.ckpt_dir]
    return ["deploy", "--model_id_or_path", model.model]


async def _answer(job: Job, body: dict[str, Any]) -> AsyncIterator[bytes]:
    """The events of the server, passed on; what goes wrong becomes an event of its own. Closing it ends the request."""
    try:
        async with _client(job) as client, client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                text = (await answer.aread()).decode("utf-8", "replace")
                yield _error(text)
                return
            async for piece in answer.aiter_bytes():
                yield piece
    except httpx.HTTPError as error:
        yield _error(f"{type(error).__name__}: {error}")


def _error(text: str) -> bytes:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["error"]["message"]
    return f"data: {json.dumps({'error': {'message': text}})}\n\n".encode()


def _client(job: Job) -> httpx.AsyncClient:
    """A client of the job's server. Its key is in the environment it was started with, and nowhere else."""
    command = job.processes[1:]
    key = environment_of(*command[0]).get(SECRETS["api_key"]) if command else None
    headers = {"authorization": f"Bearer {key}"} if key else {}
    # The server is ours and on this machine: a certificate of its own is no reason to refuse it, nor is a proxy to ask.
    return httpx.AsyncClient(base_url=address(job), headers=headers, timeout=PATIENCE, verify=False, trust_env=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]
