"""Taking a port before the work begins, so that one that is not free shows at once."""

from __future__ import annotations

import errno
import socket

from swift.core.errors import SwiftError


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any. Raises SwiftError when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        ours = not isinstance(error, socket.gaierror) and error.args[:1] != (errno.EADDRNOTAVAIL,)
        raise SwiftError(
            f"cannot listen on {host}:{port}",
            where="--host, --port",
            why=str(error),
            next="choose another --port" if ours else "--host 127.0.0.1 for this machine alone, 0.0.0.0 for others too",
        ) from error
    return listener
