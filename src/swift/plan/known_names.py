"""Names of models, templates and datasets that nothing is registered under: found before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from swift.catalog import Catalog, load_catalog
from swift.core.errors import SwiftError
from swift.core.hubs import default_hub
from swift.params.args import Args
from swift.params.commands import COMMANDS
from swift.params.flag import OneOf
from swift.plan.data import parse_dataset, resolve
from swift.plan.prompt import JINJA


def unknown_names(args: Args) -> list[SwiftError]:
    """One error a name that the user gave and nobody registered; a register file of the user's may bring any name."""
    if args.values.get("custom_register_path") or args.values.get("custom_dataset_info"):
        return []
    given = {
        name: flag
        for name, flag in COMMANDS[args.command].flags.items()
        if args.is_explicit(name) and args.values[name]
    }
    if args.values.get("eval_url"):
        given.pop("model_type", None)  # the name that the server has for its model
    named = [(name, mark.registry) for name, flag in given.items() if (mark := flag.marker(OneOf)) is not None]
    catalog = load_catalog()
    default_hub()  # a wrong word in USE_HF is no fault of a name
    return [error for name, registry in named for error in _unknown(name, registry, args.values[name], catalog)]


def _unknown(flag: str, registry: str, value: str | tuple[str, ...], catalog: Catalog) -> Iterator[SwiftError]:
    for name in (value,) if isinstance(value, str) else value:
        try:
            if registry == "datasets":
                resolve(parse_dataset(name), catalog)
            elif registry == "models":
                catalog.models.get(name)
            elif name not in ("AUTO", JINJA):
                catalog.templates.get(name)
        except SwiftError as error:
            yield SwiftError(f"--{flag}: {error.what}", why=error.why, next=error.next)
