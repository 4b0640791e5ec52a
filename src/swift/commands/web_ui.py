"""`swift web-ui`: do all of it on a web page."""

from __future__ import annotations

from swift.params.args import Args


def run(args: Args) -> int:
    """Serve the page until Ctrl-C; what it started goes on. -> exit code."""
    from pathlib import Path

    from swift.core.optional_imports import need
    from swift.core.writable import require_writable
    from swift.params.groups import Page

    for module in ("fastapi", "uvicorn"):
        need(module, extra="serve", why="swift web-ui")

    from swift.web.paths import AllowedPaths, default_roots
    from swift.web.server import serve
    from swift.web.studio import Studio

    page = args[Page]
    cwd = Path.cwd()
    output = (cwd / Path(page.output_dir).expanduser()).resolve()
    require_writable(output, "--output_dir", "--output_dir FOLDER")
    roots = [*default_roots(cwd), output, *(cwd / Path(path).expanduser() for path in page.allowed_paths)]
    studio = Studio(cwd, output, AllowedPaths(roots), page.lang)
    serve(studio, page.host, page.port, share=page.share, public_url=page.public_url or "")
    return 0
