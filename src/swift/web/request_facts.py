"""What routes learn from a request: the studio, and in which language its reader sees the page."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request

from swift.web.jobs import Job
from swift.web.studio import Studio
from swift.web.words import LANGUAGES, Language

COOKIE = "swift-lang"


def _studio(request: Request) -> Studio:
    return request.app.state.studio


Here = Annotated[Studio, Depends(_studio)]
"""The studio that the app was made around."""


def _language(request: Request, studio: Here) -> Language:
    """What the reader chose on the page, else what the command line gave."""
    chosen = request.cookies.get(COOKIE)
    return LANGUAGES[LANGUAGES.index(chosen)] if chosen in LANGUAGES else studio.language


Spoken = Annotated[Language, Depends(_language)]


def _job(studio: Here, name: str) -> Job:
    job = studio.jobs.get(name)
    if job is None:
        raise HTTPException(404, "there is no such job")
    return job


TheJob = Annotated[Job, Depends(_job)]
"""The job that the address names, else 404."""
