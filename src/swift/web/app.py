"""The pages and what their buttons do, as a FastAPI app around a studio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from swift.core.errors import SwiftError
from swift.params.commands import COMMANDS
from swift.params.secrets import SECRETS
from swift.reports.document import CHART_STYLE
from swift.reports.run_files import LOG, PAGE, Run
from swift.web import chat, job_api, live
from swift.web.form_page import FORMS, sections
from swift.web.pages import compared, differences, live_parts, render
from swift.web.prefill import of_job, of_resume
from swift.web.request_facts import COOKIE, Here, Spoken, TheJob
from swift.web.studio import Studio

LISTED, COMPARED = 50, 6
pages = APIRouter()


def create_app(studio: Studio) -> FastAPI:
    """The app; its queue works as long as it runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        studio.queue.begin()
        yield
        await asyncio.to_thread(studio.queue.end)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.studio = studio
    app.add_middleware(GZipMiddleware, minimum_size=1000)
    app.add_exception_handler(SwiftError, _refused)
    app.get("/static/chart.css")(lambda: FileResponse(CHART_STYLE))
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")))
    for routes in (pages, job_api.routes, chat.routes):
        app.include_router(routes)
    return app


async def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"errors": {"": [" ".join(str(error).split())]}}, status_code=422)


def the_run(studio: Studio, path: str) -> Run:
    """The run in this folder. Raises 404, and SwiftError for a folder outside of those allowed."""
    folder = studio.paths.require(path)
    if not (folder / LOG).is_file() and not (folder / "sft_args.json").is_file():
        raise HTTPException(404, "there is no run in this folder")
    return Run(folder)


@pages.get("/", response_class=HTMLResponse)
def home(request: Request, studio: Here, spoken: Spoken, lang: str | None = None) -> Response:
    """What to do first, or the jobs and runs; `lang` changes the language and leads back."""
    if lang in ("zh", "en"):
        answer = Response(status_code=303, headers={"location": _back(request)})
        answer.set_cookie(COOKIE, lang, max_age=31536000, samesite="lax")
        return answer
    return HTMLResponse(render("home.html", spoken, rows=studio.listed(LISTED), studio=studio))


@pages.get("/new/{command}", response_class=HTMLResponse)
def form(
    request: Request, studio: Here, spoken: Spoken, command: str, job: str | None = None, resume: str | None = None
) -> str:
    """The form of a command: as it was left, with the values of the address, of a job, or of a run to go on with."""
    if command not in FORMS:
        raise HTTPException(404, "there is no such form")
    flags = COMMANDS[command].flags
    given = {name: text for name, text in request.query_params.items() if name in flags and name not in SECRETS}
    earlier = None if job is None else studio.jobs.get(job)
    if earlier is not None:
        given = of_job(earlier)
    elif resume is not None:
        given = of_resume(studio, command, studio.paths.require(resume))
    values = given or studio.draft(command)
    groups = sections(COMMANDS[command], spoken)
    return render("form.html", spoken, command=command, groups=groups, values=values, studio=studio)


@pages.get("/jobs/{name}", response_class=HTMLResponse)
def job_page(job: TheJob, spoken: Spoken) -> str:
    """A job and the run it writes."""
    run = None if job.result is None else Run(job.result)
    parts = live_parts(job, run, spoken)
    return render("job.html", spoken, job=job, run=run, parts=parts, source=f"jobs/{job.id}/events")


@pages.get("/jobs/{name}/log", response_class=PlainTextResponse)
def whole_log(job: TheJob) -> str:
    """The log as text."""
    return job.log_tail(50_000_000)


@pages.get("/jobs/{name}/events")
def job_events(request: Request, studio: Here, job: TheJob, spoken: Spoken) -> Response:
    """The changing parts of a job's page."""
    return live.stream(request, lambda: live.look_at_job(studio, job.id), spoken)


@pages.get("/runs", response_class=HTMLResponse)
def run_page(request: Request, studio: Here, spoken: Spoken, path: str) -> str:
    """A run that no job of ours writes."""
    run = the_run(studio, path)
    source = f"runs/events?{request.query_params}"
    return render("job.html", spoken, job=None, run=run, parts=live_parts(None, run, spoken), source=source)


@pages.get("/runs/events")
def run_events(request: Request, studio: Here, spoken: Spoken, path: str) -> Response:
    """The changing parts of a run's page."""
    folder = the_run(studio, path).folder
    return live.stream(request, lambda: (None, Run(folder)), spoken)


@pages.get("/events")
def list_events(request: Request, studio: Here, spoken: Spoken) -> Response:
    """The list of jobs and runs."""
    return live.stream_list(request, studio, LISTED, spoken)


@pages.get("/compare", response_class=HTMLResponse)
def compare(studio: Here, spoken: Spoken, run: Annotated[tuple[str, ...], Query()] = ()) -> Response:
    """The curves of up to six runs in the same charts; without any the list to choose from."""
    if not run:
        return Response(status_code=303, headers={"location": "./"})
    runs = [the_run(studio, path) for path in run[:COMPARED]]
    titles = [each.title for each in runs]
    named = {
        title if titles.count(title) == 1 else f"{title} ({each.folder.name})": each
        for title, each in zip(titles, runs, strict=True)
    }
    page = render("compare.html", spoken, runs=named, charts=compared(named), differences=differences(named))
    return HTMLResponse(page)


@pages.get("/report", response_class=HTMLResponse)
def report(studio: Here, path: str) -> HTMLResponse:
    """The report that a training or an evaluation wrote."""
    file = studio.paths.require(path) / PAGE
    if not file.is_file():
        raise HTTPException(404, "there is no report in this folder")
    # It brings its style along, and nothing else.
    policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    return HTMLResponse(file.read_text(encoding="utf-8"), headers={"content-security-policy": policy})


def _back(request: Request) -> str:
    """The page of ours that the reader came from; below this one, whatever is asked for."""
    return "./" + quote(request.query_params.get("to", "").lstrip("/"), safe="/?=&%+:,;@~!*()'$")
