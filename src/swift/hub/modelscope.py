"""ModelScope, through `modelscope_hub`, the client that the `modelscope` package itself stands on."""

from __future__ import annotations

import os
from pathlib import Path

from modelscope_hub import HubApi, errors
from modelscope_hub.config import HubConfig
from modelscope_hub.constants import Visibility

from swift.core.errors import SwiftError

TITLE = "ModelScope"


def endpoint() -> str:
    """Address of the hub: `MODELSCOPE_ENDPOINT` or `MODELSCOPE_DOMAIN`, else the public one."""
    given = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or "https://www.modelscope.cn"
    return (given if given.startswith(("http://", "https://")) else f"https://{given}").rstrip("/")


def download(
    id: str,
    kind: str,
    *,
    revision: str | None,
    token: str | None,
    cache_dir: str | Path | None,
    allow: list[str] | None,
    ignore: list[str] | None,
    local_only: bool,
) -> Path:
    """Download a snapshot, or find it in the cache. Raises SwiftError, and FileNotFoundError when `local_only`."""
    try:
        return _api(token).download_repo(
            id,
            kind,
            revision=revision,
            cache_dir=cache_dir,
            allow_patterns=allow,
            ignore_patterns=ignore,
            local_files_only=local_only,
        )
    except (errors.CacheError, FileNotFoundError) as error:
        if local_only:
            raise FileNotFoundError(id) from error
        raise
    except errors.HubError as error:
        raise explain(error, id, kind, revision, token) from error


def open_repository(id: str, *, token: str | None, private: bool) -> tuple[str, bool | None]:
    """Make the repository if it is missing. -> its whole name, and whether it is private; None where nobody says."""
    api = _api(token)
    try:
        if "/" not in id:
            id = f"{api.whoami().username}/{id}"
        if not api.repo_exists(id, "model"):
            api.create_repo(id, "model", visibility="private" if private else "public")
            return id, private
        info = api.get_repo(id, "model")
    except errors.HubError as error:
        raise explain(error, id, "model", None, token, what="upload") from error
    if info.private is not None or info.visibility is None:
        return id, info.private
    return id, info.visibility == Visibility.PRIVATE


def push(folder: Path, id: str, *, token: str | None, path_in_repo: str, message: str) -> str:
    """Commit the folder to the repository."""
    try:
        _api(token).upload_folder(
            id,
            "model",
            folder,
            path_in_repo=path_in_repo,
            commit_message=message,
            use_cache=False,
            disable_tqdm=True,
        )
    except errors.HubError as error:
        raise explain(error, id, "model", None, token, what="upload") from error
    return f"{endpoint()}/models/{id}"


def explain(
    error: Exception, id: str, kind: str, revision: str | None, token: str | None, what: str = "download"
) -> SwiftError:
    """What the client's error means for the user."""
    where = f"{TITLE} ({endpoint()})"
    if isinstance(error, errors.AuthenticationError) and not (token or os.environ.get("MODELSCOPE_API_TOKEN")):
        return SwiftError(
            f"the {kind} {id} asks for a token", where=where, next="set --hub_token or MODELSCOPE_API_TOKEN"
        )
    if isinstance(error, errors.AuthenticationError):
        return SwiftError(
            "the hub rejects the token",
            where=where,
            why=f"401 for {id}",
            next="check --hub_token or MODELSCOPE_API_TOKEN",
        )
    if isinstance(error, errors.PermissionDeniedError):
        return SwiftError(
            f"access to the {kind} {id} is not granted", where=where, next="ask its owner, and set MODELSCOPE_API_TOKEN"
        )
    if isinstance(error, errors.NotExistError):
        at = f" at revision {revision}" if revision else ""
        return SwiftError(
            f"there is no {kind} {id}{at}, or it is private",
            where=where,
            next="check the spelling and revision, or set USE_HF=1 to look on Hugging Face",
        )
    if isinstance(error, errors.FileDownloadError | errors.NetworkError | errors.FileIntegrityError):
        return SwiftError(
            f"the {what} of the {kind} {id} broke off",
            where=where,
            why=str(error).splitlines()[0],
            next="run the command again: it goes on where it stopped",
        )
    return SwiftError(f"the hub refuses the {kind} {id}", where=where, why=str(error).splitlines()[0])


def _api(token: str | None) -> HubApi:
    return HubApi(HubConfig(endpoint=endpoint(), token=token))
