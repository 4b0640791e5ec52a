"""The web pages."""

from __future__ import annotations

from typing import Annotated

from swift.params.flag import Alias, Basic, Range
from swift.params.frozen import Frozen


class Page(Frozen):
    """The web pages."""

    host: Annotated[str, Basic()] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is reachable from other machines."""
    port: Annotated[int, Range(0, 65535)] = 7860
    """Port to listen on."""
    share: bool = False
    """Make a public gradio link."""
    lang: str = "zh"
    """Language of the page: zh or en."""
    server_name: Annotated[str | None, Alias("host")] = None
    """Another spelling of host."""
    server_port: Annotated[int | None, Alias("port"), Range(0, 65535)] = None
    """Another spelling of port."""
