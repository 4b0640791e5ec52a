"""Media that lie apart from their rows, on a hub: a converter names the file, and it is fetched with the first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.core.hubs import HubName
from swift.core.log import log
from swift.data.fields import MEDIA_KEYS
from swift.data.source import SourceFile
from swift.data.unpack_archive import unpack
from swift.prompts.bad_row import BadRow


@dataclass(frozen=True)
class Member:
    """A file in one of several archives of a data repository; without archives, a file of the repository itself."""

    path: str
    archives: tuple[str, ...] = ()
    """Their paths in the repository; `{folder}` is the folder of the rows. They are fetched in this order until the
    file is found, or there is no further one: a series may be shorter than the names given for it."""
    repository: str | None = None
    """A repository on ModelScope; None is the one the rows come from."""

    def named(self, folder: str) -> tuple[str, ...]:
        """The archives of rows in this folder."""
        return tuple(name.replace("{folder}", folder) for name in self.archives)


def placed(row: Any, file: SourceFile) -> Any:
    """The row with a path for each Member in it; its bare address where media are left out.

    Raises BadRow for a file that is in none of its archives, and SwiftError for an archive that cannot be had.
    """
    if not isinstance(row, Mapping):
        return row
    changed = {}
    for key in _KEYS.intersection(row):
        value = row[key]
        links = value if isinstance(value, list) else [value]
        if any(isinstance(link, Member) for link in links):
            changed[key] = [_place(link, key, file) if isinstance(link, Member) else link for link in links]
    return {**row, **changed} if changed else row


_KEYS = frozenset(key for keys in MEDIA_KEYS.values() for key in keys)


def _place(member: Member, key: str, file: SourceFile) -> str:
    names = member.named(file.path.parent.name)
    if file.media is None:
        return "/".join(part for part in (member.repository, *names[:1], member.path) if part)
    if member.repository is not None:
        hub, repository = "modelscope", member.repository
    elif file.home is not None:
        hub, repository = file.home
    else:
        raise BadRow("missing file", key=key, expected="rows that come from their hub", value=member.path)
    for number, name in enumerate(names):
        folder = _unpacked(hub, repository, name, file.media, file.token)
        if folder is None and number == 0:
            raise _no_archive(hub, repository, name)
        if folder is None:
            break
        if (folder / member.path).is_file():
            return str(folder / member.path)
    if not names:
        loose = _fetched(hub, repository, member.path, file.token) / member.path
        if loose.is_file():
            return str(loose)
    within = names[0] if len(names) == 1 else f"{len(names)} archives" if names else "its files"
    raise BadRow("missing file", key=key, expected=f"a file of {repository} in {within}", value=member.path)


def _no_archive(hub: HubName, repository: str, name: str) -> SwiftError:
    return SwiftError(
        f"there is no archive {name}",
        where=f"{repository} ({hub})",
        why="the media of the data set are in it; the repository has changed, or the hub is out of reach",
        next="use another data set, or download it by hand and give its rows as a file",
    )


def _fetched(hub: HubName, repository: str, name: str, token: str | None) -> Path:
    """The folder of the repository, with this file of it if the repository has it."""
    from swift.hub import download

    return download(repository, hub=hub, kind="dataset", token=token, allow=[name])


@lru_cache(maxsize=1024)
def _unpacked(hub: HubName, repository: str, name: str, media: Path, token: str | None) -> Path | None:
    """The folder with what is in an archive, None without the archive; downloaded and unpacked once for all runs."""
    log.info("%s/%s: fetching media of the rows; this may be many gigabytes, the first time", repository, name)
    archive = _fetched(hub, repository, name, token) / name
    if not archive.is_file():
        return None
    state = archive.stat()
    # A new version of the archive gets a folder of its own, so that runs that use the old one go on.
    version = f"{state.st_size:x}-{state.st_mtime_ns:x}"
    return unpack(archive, media / hub / repository.replace("/", "--") / f"{name.replace('/', '--')}-{version}")
