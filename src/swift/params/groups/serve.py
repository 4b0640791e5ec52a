"""The HTTP server."""

from __future__ import annotations

from typing import Annotated, Literal

from swift.params.flag import Exists, Ours, Range, Text
from swift.params.frozen import Frozen


class Serve(Frozen):
    """The HTTP server."""

    host: str = "0.0.0.0"
    """Address to listen on; 0.0.0.0 is reachable from other machines."""
    port: Annotated[int, Range(0, 65535)] = 8000
    """Port to listen on."""
    api_key: str | None = None
    """Key clients must send; None reads SWIFT_API_KEY, and without it nothing is checked."""
    ssl_keyfile: Annotated[str | None, Exists()] = None
    """TLS key file."""
    ssl_certfile: Annotated[str | None, Exists()] = None
    """TLS certificate file."""
    log_interval: Annotated[int, Range(0)] = 10
    """Seconds between statistics lines, 0 for none."""
    owned_by: str = "swift"
    """Owner named by /v1/models."""
    served_model_name: str | None = None
    """Name of the model for clients; None means its model_type."""
    allowed_origins: Annotated[tuple[str, ...], Ours(), Text()] = ()
    """Web pages whose scripts may ask (CORS), such as https://chat.example.org; * means any."""
    allow_private_urls: Annotated[bool, Ours()] = False
    """Let requests name media at http(s) addresses of this machine and its own network."""
    allowed_media_dir: Annotated[str | None, Ours()] = None
    """Folder whose images, videos and sounds requests may name by their path; None means no files of this machine."""
    stream_usage: Annotated[Literal["on_request", "every"], Ours()] = "on_request"
    """Token counts of a stream: at its end where the request's stream_options ask for them, or in every chunk."""
