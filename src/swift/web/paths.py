"""Which folders the page may show and use: outside of them a path is refused, before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from swift.core.environment import cache_home
from swift.core.errors import SwiftError
from swift.params.args import Args
from swift.params.commands import COMMANDS


class AllowedPaths:
    """The roots that the page may go into."""

    def __init__(self, roots: Sequence[Path]):
        self.roots = tuple(dict.fromkeys(root.expanduser().resolve() for root in roots))

    def __contains__(self, path: Path) -> bool:
        resolved = path.resolve()
        return any(resolved.is_relative_to(root) for root in self.roots)

    def require(self, text: str) -> Path:
        """The path as it is, if the page may go there. Raises SwiftError."""
        path = Path(text).expanduser()
        if "\0" in text or path not in self:
            raise SwiftError(
                f"{text!r} is outside of the folders that this page may use",
                why=f"these are {', '.join(map(str, self.roots))}",
                next="start swift web-ui with --allowed_paths FOLDER",
            )
        return path

    def mistakes(self, args: Args, cwd: Path) -> Iterator[SwiftError]:
        """One error for each value the user gave that is a path outside."""
        for name in COMMANDS[args.command].flags:
            for text in _texts(args.values[name]) if args.is_explicit(name) else ():
                path = _path_in(text, cwd)
                if path is not None and path not in self:
                    yield SwiftError(
                        f"--{name} {text} is outside of the folders that this page may use",
                        next="start swift web-ui with --allowed_paths FOLDER",
                    )

    def below(self, text: str, cwd: Path, limit: int) -> list[str]:
        """Paths that begin as `text` does, folders with a slash at their end."""
        folder_text, slash, beginning = text.rpartition("/")
        folder = cwd / Path(folder_text + slash).expanduser()
        if folder not in self or not folder.is_dir():
            return []
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            return []
        named = [path for path in entries if path.name.startswith(beginning) and not path.name.startswith(".")]
        return [f"{folder_text}{slash}{path.name}{'/' if path.is_dir() else ''}" for path in named[:limit]]


def default_roots(cwd: Path) -> tuple[Path, ...]:
    """The working folder, the user's home and the folder of models and data sets that were downloaded."""
    return (cwd, Path.home(), cache_home())


def _texts(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, str):
            yield item


def _path_in(text: str, cwd: Path) -> Path | None:
    """The path that a value is or begins with (`rows.jsonl#100`, `name=folder`); None for names and other texts."""
    for candidate in (text, text.partition("#")[0], text.partition("=")[2]):
        if not candidate or "\0" in candidate or "\n" in candidate or len(candidate) > 1024:
            continue
        path = cwd / Path(candidate).expanduser()
        if candidate.startswith(("/", "~")) or ".." in path.parts or path.exists():
            return path
    return None
