"""The web pages."""

from __future__ import annotations

from typing import Annotated, Literal

from swift.params.flag import Alias, Basic, Exists, Ours, Range
from swift.params.frozen import Frozen


class Page(Frozen):
    """The web pages."""

    host: Annotated[str, Basic()] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is reachable from other machines."""
    port: Annotated[int, Range(0, 65535)] = 7860
    """Port to listen on."""
    share: bool = False
    """Make a public gradio link."""
    lang: Literal["zh", "en"] = "zh"
    """Language of the page; the reader can change it there."""
    public_url: Annotated[str | None, Ours()] = None
    """Where a proxy shows the page, with its path: https://HOST/swift; web-ui then asks for a token."""
    output_dir: Annotated[str, Ours()] = "output"
    """Folder of runs: jobs are kept below it, and runs that were started in a terminal are listed too."""
    allowed_paths: Annotated[tuple[str, ...], Ours(), Exists("folder")] = ()
    """Further folders whose files the page may show and use, beside the working folder and the home folder."""
    server_name: Annotated[str | None, Alias("host")] = None
    """Another spelling of host."""
    server_port: Annotated[int | None, Alias("port"), Range(0, 65535)] = None
    """Another spelling of port."""
