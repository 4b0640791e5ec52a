"""Addresses as a row or a request may name them: fetched within bounds of time and size, or refused in words."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from swift.data import image_fetch
from swift.data.image_fetch import Bounds, fetch
from swift.prompts.images import BadImage, BadMedium, BadVideo

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\n\r\n"


@contextmanager
def answering(*pieces: bytes, pause: float = 0.0) -> Iterator[str]:
    """The address of a server that sends the pieces to whoever connects, with a pause before each."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    try:
                        for piece in pieces:
                            time.sleep(pause)
                            connection.sendall(piece)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def refusal(url: str, bounds: Bounds, fault: type[BadMedium] = BadImage) -> str:
    with pytest.raises(fault) as error:
        fetch(url, bounds, fault)
    return f"{error.value.what}: {error.value.why}"


def test_what_is_there_is_fetched_and_a_redirect_followed() -> None:
    with answering(HEAD, b"abc", b"def") as url:
        assert fetch(url, Bounds()) == b"abcdef"
        with answering(f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode()) as first:
            assert fetch(first, Bounds()) == b"abcdef"


def test_bounds_of_size_and_time_hold_for_heads_and_bodies_that_drip() -> None:
    with answering(HEAD, bytes(5000)) as url:
        assert "video too large" in refusal(url, Bounds(bytes=4000), BadVideo)
    drips: list[Callable[[], tuple[bytes, ...]]] = [
        lambda: tuple(bytes([byte]) for byte in HEAD),
        lambda: (HEAD, *[b"x"] * 100),
        lambda: (b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n"] * 100),
    ]
    for pieces in drips:
        with answering(*pieces(), pause=0.1) as url:
            start = time.monotonic()
            assert "more than 0.5 s" in refusal(url, Bounds(seconds=0.5))
            assert time.monotonic() - start < 5


def test_a_name_that_is_looked_up_for_long_costs_no_more_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3) or [])
    start = time.monotonic()
    assert "more than 0.3 s" in refusal("http://slow.example/a.png", Bounds(seconds=0.3))
    assert time.monotonic() - start < 2


def test_a_redirect_into_ones_own_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = image_fetch._is_public
    seen: list[str] = []

    def public(address: str) -> bool:
        """The first that is asked counts as one from outside."""
        seen.append(address)
        return len(seen) == 1 or real(address)

    monkeypatch.setattr(image_fetch, "_is_public", public)
    to_inside = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/secret\r\nContent-Length: 0\r\n\r\n"
    with answering(to_inside) as url:
        assert "127.0.0.1:9/secret is not a public address" in refusal(url, Bounds(private=False))
    assert len(seen) == 2


def test_a_name_is_looked_up_once_and_what_was_checked_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server may say a public address first and one of this machine when it is asked again."""
    real, asked = socket.getaddrinfo, []

    def turning(host: str | bytes, *rest: Any, **named: Any) -> Any:
        if host not in ("turns.example", b"turns.example"):
            return real(host, *rest, **named)
        asked.append(host)
        return real("93.184.216.34" if len(asked) == 1 else "127.0.0.1", *rest, **named)

    connect, reached = socket.socket.connect, []

    def recorded(self: socket.socket, address: tuple[str, int]) -> None:
        reached.append(address[0])
        connect(self, address)  # the tests let nothing out

    monkeypatch.setattr(socket, "getaddrinfo", turning)
    monkeypatch.setattr(socket.socket, "connect", recorded)
    with answering(HEAD, b"secret") as here:
        url = here.replace("127.0.0.1", "turns.example")
        assert "connection attempts failed" in refusal(url, Bounds(private=False))
        assert len(asked) == 1 and set(reached) == {"93.184.216.34"}
        assert "not a public address" in refusal(url, Bounds(private=False))


def test_a_name_and_a_password_are_sent_for_rows_and_refused_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(HEAD, b"abc") as url:
        known = url.replace("127.0.0.1", "anna:secret@127.0.0.1")
        assert fetch(known, Bounds()) == b"abc"
        monkeypatch.setattr(image_fetch, "_is_public", lambda address: True)
        said = refusal(known, Bounds(private=False))
        assert "has a name or password in it" in said and "secret" not in said


def test_a_proxy_is_asked_for_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(HEAD, b"by proxy") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.removesuffix("/a.png"))
        monkeypatch.setenv("NO_PROXY", "own.example")
        assert fetch("http://nobody.invalid/a.png", Bounds()) == b"by proxy"
        assert "not known" in refusal("http://own.example.invalid/a.png", Bounds(private=False))
        assert "not a public address" in refusal(proxy, Bounds(private=False))


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1:11211/_stats", "javascript:1", "http://", "//"],
)
def test_a_redirect_to_what_is_no_web_address_is_refused(target: str) -> None:
    with answering(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()) as url:
        assert "image not fetched" in refusal(url, Bounds())


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "127.0.0.1:0", "a%00b", "[::1", "a b", "", "..", "a" * 300])
def test_an_address_that_nothing_can_be_at_is_refused(address: str) -> None:
    assert "image not fetched" in refusal(f"http://{address}/a.png", Bounds(seconds=2))


def test_redirects_have_an_end_and_other_answers_are_named() -> None:
    with answering(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n") as url:
        assert "more than 3 redirects" in refusal(url, Bounds())
    for status in (b"404 Not Found", b"500 Oops", b"204 No Content", b"206 Partial Content", b"304 Not"):
        with answering(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n") as url:
            assert f"answers {status[:3].decode()}" in refusal(url, Bounds())
    with answering(b"not http at all") as url:
        assert "image not fetched" in refusal(url, Bounds())


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST", "127.1", "0", "0.0.0.0", "2130706433", "0x7f000001", "0x7f.1", "[::1]",
        "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
        "[fe80::1]", "[fc00::1]", "[fec0::1]", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "user@127.0.0.1", "example.org@127.0.0.1",
        "example.org:80@127.0.0.1", "127.0.0.1.", "①②⑦.⓪.⓪.①", "127。0。0。1",
        "168.63.129.16", "[::ffff:168.63.129.16]", "192.0.2.1", "[2001:db8::1]", "[::ffff:0:7f00:1]",
        "192.0.0.192", "[::ffff:192.0.0.192]", "[2002:c000:c0::]", "[64:ff9b:1::7f00:1]", "[3fff::1]",
    ],
)  # fmt: skip
def test_addresses_of_this_machine_and_its_network_are_refused_however_they_are_written(host: str) -> None:
    said = refusal(f"http://{host}:9/a.png", Bounds(private=False, seconds=1))
    assert any(words in said for words in ("not a public address", "Invalid", "not known")), said
