"""ModelScope and Hugging Face behind two functions, `download` and `push`, each through its own client."""

from __future__ import annotations

import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from swift.core.environment import read_bool
from swift.core.errors import SwiftError
from swift.core.hubs import TITLES, HubName
from swift.core.log import log
from swift.hub.staging import stage

Kind = Literal["model", "dataset"]
ANSWER_SECONDS = 5
"""How long a hub may take to answer before it counts as out of reach."""
NOT_LOADED = ("consolidated*", "*.pth", "*.gguf", "*.zip", "*.onnx", "onnx/*", "*.msgpack", "*.h5")
"""The same weights in other forms, which many model repositories have beside the ones we load."""


def download(
    id: str,
    *,
    hub: HubName,
    kind: Kind = "model",
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    allow: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    check_latest: bool = True,
) -> Path:
    """The local folder of a repository, downloaded into the hub client's own cache; a cut download is resumed.

    `allow` limits it to files of these patterns, `ignore` leaves some out; of a model, what is `NOT_LOADED` stays
    away. Offline (`HF_HUB_OFFLINE=1`, or no answer from the hub) and without `check_latest` the copy in the cache is
    taken. Raises SwiftError for a missing repository or revision, a wrong token, and a hub out of reach with nothing
    in the cache.
    """
    client = _client(hub)
    ask = {
        "revision": revision,
        "token": token,
        "cache_dir": cache_dir,
        "allow": list(allow) if allow else None,
        "ignore": [*(NOT_LOADED if kind == "model" else ()), *ignore] or None,
    }
    reason = _no_network(hub)
    if reason is None and check_latest:
        return client.download(id, kind, local_only=False, **ask)
    try:
        cached = client.download(id, kind, local_only=True, **ask)
    except FileNotFoundError:
        pass
    else:
        if reason:
            log.warning("%s: %s; taking %s from the cache", TITLES[hub], reason, id)
        return cached
    if reason is None:
        return client.download(id, kind, local_only=False, **ask)
    raise SwiftError(
        f"cannot download the {kind} {id}: {reason}",
        where=f"{TITLES[hub]} ({client.endpoint()})",
        why="it is not in the cache either",
        next="check the network or proxy, use a local folder, or the other hub (USE_HF=1 is Hugging Face)",
    )


def open_repository(id: str, *, hub: HubName, token: str | None, private: bool) -> str:
    """Make the repository if it is missing. -> its whole name, which a bare one gets from the owner of the token.

    Raises SwiftError for a wrong token, a name that may not be written to, a hub out of reach, and a repository that
    everybody can read where a `private` one is asked for.
    """
    client = _client(hub)
    where = f"{TITLES[hub]} ({client.endpoint()})"
    reason = _no_network(hub)
    if reason:
        raise SwiftError(
            f"cannot push to {id}: {reason}",
            where=where,
            next="check the network or proxy, or push to the other hub (USE_HF=1 is Hugging Face)",
        )
    whole, is_private = client.open_repository(id, token=token, private=private)
    if private and is_private is False:
        raise SwiftError(
            f"{whole} is there already, and everybody can read it",
            where=f"--hub_private_repo, {where}",
            next="make it private there, or push to another one",
        )
    return whole


def push(
    folder: Path,
    id: str,
    *,
    hub: HubName,
    token: str | None = None,
    private: bool = False,
    path_in_repo: str = "",
    message: str = "Upload by swift",
    ignore: Sequence[str] = (),
    beside: Sequence[Path] = (),
) -> str:
    """Upload a folder into a repository, made if it is missing, and return its web address.

    Files and folders whose name matches a pattern of `ignore` stay here. Of the folders `beside` go the files whose
    names are not taken. A push that broke off goes on where it stopped: what the hub has is not sent again.

    Raises SwiftError as `open_repository` does, and where the hub refuses what is sent.
    """
    id = open_repository(id, hub=hub, token=token, private=private)
    with tempfile.TemporaryDirectory(prefix="swift-push-") as place:
        staged = stage([folder, *beside], Path(place), ignore)
        return _client(hub).push(staged, id, token=token, path_in_repo=path_in_repo, message=message)


def _client(hub: HubName):  # type: ignore[no-untyped-def]
    """The module that speaks with a hub; imported on use, since each brings a client library."""
    if hub == "huggingface":
        from swift.hub import huggingface

        return huggingface
    from swift.hub import modelscope

    return modelscope


def offline() -> bool:
    """Whether the user forbids the network (`HF_HUB_OFFLINE=1` or `TRANSFORMERS_OFFLINE=1`)."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(read_bool(name) for name in names)


def _no_network(hub: HubName) -> str | None:
    """Why the hub cannot be asked, or None when it can. Clients retry for minutes, so one short question goes first."""
    if offline():
        return "offline mode is on (HF_HUB_OFFLINE)"
    request = urllib.request.Request(_client(hub).endpoint(), method="HEAD", headers={"User-Agent": "swift"})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS):
            return None
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        return f"no answer ({cause})"
