"""Links to media, as rows and requests write them."""

from __future__ import annotations

from urllib.parse import unquote

SCHEMES = ("http", "https", "data")


def plain_link(link: str) -> str:
    """The link with its scheme in small letters and no space around it; `file://` is the path that it stands for."""
    scheme, colon, rest = link.strip().partition(":")
    if scheme.lower() == "file" and rest.startswith("//"):
        return unquote(rest.removeprefix("//").removeprefix("localhost"))
    return f"{scheme.lower()}:{rest}" if colon and scheme.lower() in SCHEMES else link
