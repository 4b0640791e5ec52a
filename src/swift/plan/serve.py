"""What the server will be: where it listens, who may ask, under which names, with which defaults. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MAX_IN_FLIGHT = 256
"""Answers under way at once, queued ones included, when nothing else is said; past it a client gets 429."""


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """How tokens are picked where a request does not say."""

    max_tokens: int | None = None
    """None: as many as the context holds."""
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    num_beams: int = 1
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ServePlan:
    """Everything the HTTP surface needs besides an engine and an encoder."""

    model_name: str
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    owned_by: str = "swift"
    is_chat: bool = True
    is_multimodal: bool = False
    verbose: bool = False
    log_interval: int = 10
    max_logprobs: int = 20
    max_in_flight: int = MAX_IN_FLIGHT
    defaults: Defaults = Defaults()
