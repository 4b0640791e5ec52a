"""The folder that holds a model: a local one, a download, or the demo model out of its PyPI package."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from swift import hub
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.models import pypi
from swift.models.folder import check_folder
from swift.plan.model import ModelPlan

ENDPOINTS = {"modelscope": "https://www.modelscope.cn", "huggingface": "https://huggingface.co"}


def fetch(plan: ModelPlan) -> Path:
    """The plan's model folder, downloaded or converted where needed, and checked to be whole.

    Raises SwiftError when the hub does not answer or a file is missing or cut short.
    """
    folder = Path(plan.source) if plan.hub == "local" else _download(plan)
    check_folder(folder)
    return folder


def _download(plan: ModelPlan) -> Path:
    package = plan.entry.pypi if plan.entry else None
    if package is None:
        return _from_hub(plan)
    converted = pypi.converted_folder(package)
    if converted:
        return converted
    if pypi.package_installed(package) and not _answers(plan.hub):
        log.info("no answer from %s: taking %s from the PyPI package %s", plan.hub, plan.model_type, package)
        return pypi.convert(package)
    try:
        return _from_hub(plan)
    except SwiftError as error:
        raise SwiftError(
            error.what, where=error.where, why=error.why, next=f"pip install {package}: it brings this model, no hub needed"
        ) from error


def _from_hub(plan: ModelPlan) -> Path:
    return hub.download(
        plan.source,
        hub=plan.hub,
        kind="model",
        revision=plan.revision,
        cache_dir=plan.cache_dir,
        token=plan.token,
        check_latest=plan.check_latest,
    )


def _answers(hub_name: str) -> bool:
    """Whether the hub's web address answers within three seconds."""
    request = urllib.request.Request(ENDPOINTS[hub_name], method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=3):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
