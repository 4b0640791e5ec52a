"""`swift cache ls | rm`: what the token cache holds, and removing it."""

from __future__ import annotations

import time
from pathlib import Path

from swift.core.errors import SwiftError
from swift.core.own_parser import OwnParser
from swift.plan.data import default_cache

USAGE = """usage: swift cache ls [--cache_dir DIR]
       swift cache rm NAME … | --all [--cache_dir DIR]

The token cache keeps encoded rows between runs. It may be removed at any time; it is made again when it is needed."""


def run(argv: list[str]) -> int:
    """List or remove parts of the token cache. Raises SwiftError for a name that is not there."""
    parser = OwnParser("cache")
    parser.add_argument("action", nargs="?", choices=("ls", "rm"), default="ls")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--cache_dir", "--cache-dir", type=Path, default=None)
    parser.add_argument("-h", "--help", action="store_true")
    given = parser.parse_args(argv)
    if given.help:
        print(USAGE)
        return 0
    folder = given.cache_dir or default_cache()
    return _remove(folder, given.names, given.all) if given.action == "rm" else _list(folder)


def _list(folder: Path) -> int:
    from swift.data.token_cache import stored

    parts = stored(folder)
    total = sum(part.bytes for part in parts)
    print(f"{folder}: {len(parts)} part(s), {_size(total)}")
    for part in parts:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(part.used))
        print(f"  {part.recipe}  {_size(part.bytes):>9}  {part.shards:>6} shards  {used}  {part.about}")
    return 0


def _remove(folder: Path, names: list[str], everything: bool) -> int:
    from swift.data.token_cache import remove, stored

    if not names and not everything:
        raise SwiftError("nothing to remove was named", next="swift cache rm NAME, or --all")
    parts = {part.recipe: part for part in stored(folder)}
    chosen = list(parts) if everything else names
    for name in chosen:
        if name not in parts:
            raise SwiftError(f"the token cache has no part {name!r}", where=str(folder), next="swift cache ls")
    for name in chosen:
        remove(folder, name)
        print(f"removed {name} ({_size(parts[name].bytes)})")
    return 0


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError
