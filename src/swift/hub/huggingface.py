"""Hugging Face, through `huggingface_hub`."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage] (of whichever HTTP library the client uses)
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from swift.core.errors import SwiftError

TITLE = "Hugging Face"


def endpoint() -> str:
    """Address of the hub: `HF_ENDPOINT`, else the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


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
        folder = snapshot_download(
            id,
            repo_type=kind,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            allow_patterns=allow,
            ignore_patterns=ignore,
            local_files_only=local_only,
            endpoint=endpoint(),
        )
    except LocalEntryNotFoundError:
        if local_only:
            raise
        raise _broken_off("download", id, None) from None
    except (HfHubHTTPError, HFValidationError) as error:
        raise explain(error, id, kind, revision, token) from error
    except (HTTPError, OSError) as error:
        raise _broken_off("download", id, error) from error
    return Path(str(folder))


def open_repository(id: str, *, token: str | None, private: bool) -> tuple[str, bool | None]:
    """Make the repository if it is missing. -> its whole name, and whether it is private."""
    api = HfApi(endpoint=endpoint(), token=token)
    try:
        if "/" not in id:
            id = f"{api.whoami()['name']}/{id}"
        api.create_repo(id, repo_type="model", private=private, exist_ok=True)
        return id, api.repo_info(id, repo_type="model").private
    except (HfHubHTTPError, HFValidationError) as error:
        raise explain(error, id, "model", None, token) from error
    except (HTTPError, OSError) as error:
        raise _broken_off("upload", id, error) from error


def push(folder: Path, id: str, *, token: str | None, path_in_repo: str, message: str) -> str:
    """Commit the folder to the repository."""
    api = HfApi(endpoint=endpoint(), token=token)
    try:
        api.upload_folder(
            repo_id=id,
            repo_type="model",
            folder_path=folder,
            path_in_repo=path_in_repo or None,
            commit_message=message,
        )
    except HfHubHTTPError as error:
        raise explain(error, id, "model", None, token) from error
    except ValueError as error:  # what the hub says of the front matter
        raise SwiftError(f"the hub does not take the README.md of {id}", where=TITLE, why=str(error)) from error
    except (HTTPError, OSError, RuntimeError) as error:  # the client wraps a failed upload in a RuntimeError
        raise _broken_off("upload", id, error) from error
    return f"{endpoint()}/{id}"


def explain(error: Exception, id: str, kind: str, revision: str | None, token: str | None) -> SwiftError:
    """What the client's error means for the user."""
    where = f"{TITLE} ({endpoint()})"
    page = f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{id}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if isinstance(error, HFValidationError):
        return SwiftError(f"{id!r} is not a repository id", where=where, next="write owner/name")
    if isinstance(error, RevisionNotFoundError):
        return SwiftError(f"the {kind} {id} has no revision {revision!r}", where=where, next="check --model_revision")
    if isinstance(error, GatedRepoError) or status == 403:
        return SwiftError(
            f"access to the {kind} {id} is not granted", where=where, next=f"ask for access at {page}, and set HF_TOKEN"
        )
    if status == 401 and (token or os.environ.get("HF_TOKEN")):
        return SwiftError(
            "the hub rejects the token", where=where, why=f"401 for {id}", next="check --hub_token or HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
        return SwiftError(
            f"there is no {kind} {id}, or it is private",
            where=where,
            next="check the spelling, set HF_TOKEN for a private one, or unset USE_HF to look on ModelScope",
        )
    return SwiftError(f"the hub refuses the {kind} {id}", where=where, why=str(error).splitlines()[0])


def _broken_off(what: str, id: str, error: Exception | None) -> SwiftError:
    return SwiftError(
        f"the {what} of {id} broke off",
        where=f"{TITLE} ({endpoint()})",
        why=str(error).splitlines()[0] if error else None,
        next="run the command again: it goes on where it stopped",
    )
