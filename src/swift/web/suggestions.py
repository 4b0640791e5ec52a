"""Values to choose from while a field is filled: names of the catalog, checkpoints of runs, files and folders."""

from __future__ import annotations

from swift.catalog import load_catalog
from swift.params.flag import Flag, Known, OneOf
from swift.reports.run_files import find_runs
from swift.web.form_page import CHECKPOINTS
from swift.web.paths import AllowedPaths
from swift.web.studio import Studio

MOST = 60


def suggestions(studio: Studio, flag: Flag, typed: str) -> list[str]:
    """At most `MOST` values for the flag that hold what was typed, those that begin with it first."""
    known = flag.marker(Known)
    names = [*map(str, flag.choices), *(known.names if known is not None else ())]
    registry = flag.marker(OneOf)
    if registry is not None:
        catalog = load_catalog()
        names += list(
            {"models": catalog.models, "templates": catalog.templates, "datasets": catalog.datasets}[registry.registry]
        )
    if flag.name == "model_id_or_path":
        names += [hub_id for entry in load_catalog().models.values() for hub_id in entry.ids]
    if flag.name in CHECKPOINTS:
        names += _checkpoints(studio)
    low = typed.lower()
    fitting = [name for name in dict.fromkeys(names) if low in name.lower()]
    fitting.sort(key=lambda name: not name.lower().startswith(low))
    paths = _paths(studio.paths, flag, typed, studio) if "str" in flag.kinds else []
    return [*fitting[:MOST], *paths][:MOST]


def _checkpoints(studio: Studio) -> list[str]:
    runs = [run for folder in studio.output_folders() for run in find_runs(folder)]
    return [str(each.path) for run in runs for each in run.checkpoints if each.whole]


def _paths(paths: AllowedPaths, flag: Flag, typed: str, studio: Studio) -> list[str]:
    registry = flag.marker(OneOf)
    if registry is not None and registry.registry != "datasets":
        return []
    return paths.below(typed, studio.cwd, MOST)
