"""Media at http(s) addresses: fetched within bounds, and from public addresses only where others name them."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.request import getproxies, proxy_bypass

import httpx

from swift.prompts.images import BadImage, BadMedium

REDIRECTS = 3
PIECE = 2**16
MAX_PORT = 65535
NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            *("64:ff9b::/96", "64:ff9b:1::/48"),  # a gateway turns them into any IPv4 address: RFC 6052 and 8215
            "168.63.129.16/32",  # on Azure the host of a machine, which tells it its secrets
            "192.0.0.0/24",  # of protocols (RFC 6890); on Oracle's cloud the host is among them
            *("192.88.99.0/24", "3fff::/20"),  # given up (RFC 7526), and for documents (RFC 9637)
        ),
    )
)
"""Networks that are no public ones, whatever the table of this version of Python says."""


@dataclass(frozen=True)
class Bounds:
    """What a fetch may take."""

    bytes: int = 32 * 2**20
    seconds: float = 20.0
    private: bool = True
    """Whether addresses of this machine and its own network may be asked."""


def fetch(url: str, bounds: Bounds, fault: type[BadMedium] = BadImage) -> bytes:
    """What `fetched` gives, for those who may wait. Raises `fault`."""
    # In a thread of its own, as a notebook has an event loop in this one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, fetched(url, bounds, fault)).result()


async def fetched(url: str, bounds: Bounds, fault: type[BadMedium] = BadImage) -> bytes:
    """What is at an http(s) address. Raises `fault` for what cannot be had, or is out of bounds.

    A name is looked up once and the connection goes to the address that was checked; each redirect is checked again.
    Where addresses of one's own network may be asked, the proxy of HTTP_PROXY or HTTPS_PROXY is, as by other programs.
    The time holds for all of it: a timeout of a connection starts anew with every byte, and a server may send one a
    second.
    """
    try:
        async with asyncio.timeout(bounds.seconds):
            for _ in range(REDIRECTS + 1):
                body = await _answer(httpx.URL(url), bounds, fault)
                if isinstance(body, bytes):
                    return body
                url = str(body)
    except TimeoutError as error:
        raise fault(f"{fault.noun} not fetched", why=f"{_shown(url)} takes more than {bounds.seconds:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise fault(f"{fault.noun} not fetched", why=f"{_shown(url)}: {error or type(error).__name__}") from error
    raise fault(f"{fault.noun} not fetched", why=f"{_shown(url)}: more than {REDIRECTS} redirects")


async def _answer(url: httpx.URL, bounds: Bounds, fault: type[BadMedium]) -> bytes | httpx.URL:
    """The body of the answer, or where it sends to."""
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > MAX_PORT:
        raise fault(f"{fault.noun} not fetched", why=f"{_shown(str(url))} is no http(s) address")
    proxied = bounds.private and not proxy_bypass(url.host) and url.scheme in getproxies()
    address = None if proxied else await _address(url, fault, private=bounds.private)
    if url.userinfo and not bounds.private:
        raise fault(f"{fault.noun} not fetched", why=f"{_shown(str(url))} has a name or password in it")
    answer = await _read(url, address, bounds.bytes, fault.noun)
    if isinstance(answer, int):
        raise fault(f"{fault.noun} not fetched", why=f"{_shown(str(url))} answers {answer}")
    if isinstance(answer, bytes) and len(answer) > bounds.bytes:
        raise fault(f"{fault.noun} too large", why=f"{_shown(str(url))} has more than {bounds.bytes} bytes")
    return answer


async def _read(url: httpx.URL, address: str | None, limit: int, noun: str) -> bytes | httpx.URL | int:
    """The body of an answer as far as `limit` allows and a little more, where it sends to, or its status. A proxy is
    asked where there is no `address`."""
    headers = {"Host": url.netloc.decode(), "User-Agent": "swift", "Accept": f"{noun}/*"}
    headers["Accept-Encoding"] = "identity"
    to = url if address is None else url.copy_with(host=address)
    extensions = {} if address is None else {"sni_hostname": url.host}
    async with (
        httpx.AsyncClient(timeout=None, trust_env=address is None) as client,
        client.stream("GET", to, headers=headers, extensions=extensions) as response,
    ):
        if response.has_redirect_location:
            return url.join(response.headers["location"])
        if response.status_code != httpx.codes.OK:
            return response.status_code
        body = bytearray()
        async for piece in response.aiter_raw(PIECE):
            body += piece
            if len(body) > limit:
                break
        return bytes(body)


async def _address(url: httpx.URL, fault: type[BadMedium], *, private: bool) -> str:
    """The address to connect to. Raises `fault` where one of the host's addresses is not public."""
    port = url.port or (443 if url.scheme == "https" else 80)
    # A name server may take its time, which nothing but a thread that nobody else waits for can be kept from.
    thread = ThreadPoolExecutor(1)
    asked = thread.submit(socket.getaddrinfo, url.host, port, type=socket.SOCK_STREAM)
    thread.shutdown(wait=False)
    addresses = [str(info[4][0]) for info in await asyncio.wrap_future(asked)]
    inside = [address for address in addresses if not _is_public(address)]
    if inside and not private:
        raise fault(f"{fault.noun} not fetched", why=f"{_shown(str(url))} is not a public address")
    return addresses[0]


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    within = [parsed.ipv4_mapped, parsed.sixtofour] if isinstance(parsed, ipaddress.IPv6Address) else []
    every = [parsed, *(each for each in within if each is not None)]
    # ::127.0.0.1 and the like are global by the table, and lie in the block that is reserved.
    usual = [each.is_global and not each.is_multicast and not each.is_reserved for each in every]
    # fec0:: was each site's own before fc00::, and is in no table any more.
    own = isinstance(parsed, ipaddress.IPv6Address) and parsed.is_site_local
    return not own and all(usual) and not any(each in network for each in every for network in NOT_PUBLIC)


def _shown(url: str) -> str:
    """The address for a message: short, and without a password."""
    known = re.sub(r"(?<=//)[^/]*@", "…@", url)
    return known if len(known) <= 80 else f"{known[:79]}…"
