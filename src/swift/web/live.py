"""Server-sent events: the parts of a page that have changed, as HTML, as long as the page is open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from swift.reports.run_files import Run
from swift.web.form_page import log_errors
from swift.web.jobs import Job
from swift.web.pages import live_parts, render, version
from swift.web.studio import Studio
from swift.web.words import Language

INTERVAL = 0.5
BEAT = 15.0
"""Seconds after which a silent connection is given a sign of life."""
STREAMED = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""Headers of events: nginx would keep them back until there are many."""
Look = Callable[[], tuple[Job | None, Run | None]]


def look_at_job(studio: Studio, name: str) -> tuple[Job | None, Run | None]:
    """The job as it is now and the run it writes."""
    job = studio.jobs.get(name)
    return job, None if job is None or job.result is None else Run(job.result)


def stream(request: Request, look: Look, language: Language) -> StreamingResponse:
    """The parts of a job's or a run's page, each time they change; the last event says that it is over."""

    def parts() -> tuple[Any, dict[str, Any]]:
        job, run = look()
        if job is None and run is None:
            return "gone", {"over": True}
        over = job.over if job is not None else run is not None and not run.active
        event: dict[str, Any] = {"parts": live_parts(job, run, language), "over": over}
        if job is not None:
            event["state"] = job.state
            event["errors"] = log_errors(job.command, job.log_tail(8000)) if job.state == "failed" else {}
        return (*version(job, run), over), event

    def look_quickly() -> Any:
        job, run = look()
        return (*version(job, run), job.over if job is not None else run is not None and not run.active)

    return _response(_changes(request, look_quickly, parts))


def stream_list(request: Request, studio: Studio, limit: int, language: Language) -> StreamingResponse:
    """The list of jobs and runs, each time it changes."""

    def parts() -> tuple[Any, dict[str, Any]]:
        rows = studio.listed(limit)
        text = render("list.html", language, rows=rows)
        return text, {"parts": {"list": text}, "over": False}

    return _response(_changes(request, lambda: parts()[0], parts))


async def _changes(
    request: Request, look: Callable[[], Any], parts: Callable[[], tuple[Any, dict[str, Any]]]
) -> AsyncIterator[str]:
    yield "retry: 400\n\n"
    before: Any = None
    sent: dict[str, str] = {}
    silent = 0.0
    while not await request.is_disconnected():
        now = await asyncio.to_thread(look)
        if now != before:
            before, event = await asyncio.to_thread(parts)
            changed = {name: text for name, text in event.get("parts", {}).items() if sent.get(name) != text}
            sent |= changed
            yield _event({**event, "parts": changed})
            silent = 0.0
            if event["over"]:
                return
        elif silent >= BEAT:
            yield ": still here\n\n"
            silent = 0.0
        await asyncio.sleep(INTERVAL)
        silent += INTERVAL


def _event(event: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"


def _response(events: AsyncIterator[str]) -> StreamingResponse:
    return StreamingResponse(events, media_type="text/event-stream", headers=STREAMED)
