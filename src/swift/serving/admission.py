"""Who is let in: a bounded number of answers at once, and no new request once the server drains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from swift.serving.errors import ApiError


class Gate:
    """Counts the requests inside and the answers under way (a request with n=3 makes three), queued ones included.

    The engine queues what it cannot run at once; the gate bounds that queue so that no client waits without end.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.requests = 0
        self.answers = 0
        self.fetches = 0
        self.draining = False

    def drain(self) -> None:
        """Let nobody in from now on. Requests that are inside go on to their end."""
        self.draining = True

    @contextmanager
    def request(self) -> Iterator[None]:
        """Stay inside for one request. Raises ApiError 503 while draining."""
        if self.draining:
            raise ApiError(503, "The server is shutting down.", code="shutting_down")
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def fetch(self) -> Iterator[None]:
        """Wait for what is at the addresses of one request, as many requests as answers may be under way. Raises
        ApiError 429."""
        if self.fetches >= self.limit:
            message = f"The queue is full ({self.fetches} requests wait for media at addresses). Try again shortly."
            raise ApiError(429, message, code="queue_full")
        self.fetches += 1
        try:
            yield
        finally:
            self.fetches -= 1

    @contextmanager
    def seats(self, answers: int) -> Iterator[None]:
        """Hold places for `answers`. Raises ApiError: 429 when the server is full, 400 when they can never fit."""
        if answers > self.limit:
            raise ApiError(400, f"{answers} answers were asked for at once; the limit is {self.limit}.", param="n")
        if self.answers + answers > self.limit:
            message = f"The queue is full ({self.answers} of {self.limit} answers under way). Try again shortly."
            raise ApiError(429, message, code="queue_full")
        self.answers += answers
        try:
            yield
        finally:
            self.answers -= answers
