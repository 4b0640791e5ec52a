"""`swift examples`: copy the rows, files of flags and the notebook that the documentation uses."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import files
from pathlib import Path

from swift.core.errors import SwiftError
from swift.core.installation import DISTRIBUTION
from swift.core.own_parser import OwnParser

USAGE = """usage: swift examples [FOLDER]

Copies the examples that the documentation uses (rows, files of flags, a notebook) into FOLDER, `examples` if none is
named. A file that is there already is left as it is."""
SHARED = f"share/{DISTRIBUTION}/examples/"


def run(words: Sequence[str]) -> int:
    """Copy what is not there. -> exit code."""
    parser = OwnParser("examples")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("examples"))
    parser.add_argument("-h", "--help", "--help-all", action="store_true")
    given = parser.parse_args(list(words))
    if given.help:
        print(USAGE)
        return 0
    from swift.core.writable import writing

    copied = left = 0
    for name, source in sorted(installed_examples().items()):
        target = given.folder / name
        if target.exists():
            left += 1
            continue
        with writing(target, where=f"swift examples {given.folder}", next="name another folder"):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        copied += 1
    print(f"{given.folder}: {copied} files copied" + (f", {left} were there already" if left else ""))
    return 0


def installed_examples() -> dict[str, Path]:
    """The examples of this installation by their name in the folder. Raises SwiftError where there are none."""
    checkout = Path(__file__).parents[3] / "examples"
    if (checkout.parent / "pyproject.toml").is_file() and checkout.is_dir():
        here = {path.relative_to(checkout): path for path in checkout.rglob("*") if path.is_file()}
        return {name.as_posix(): path for name, path in here.items() if not name.as_posix().startswith((".", "__"))}
    beside = Path(__file__).parents[2] / SHARED  # where `pip install --target` puts them
    listed = [path for path in files(DISTRIBUTION) or () if SHARED in path.as_posix() and path.suffix != ".pyc"]
    places = {path.as_posix().partition(SHARED)[2]: Path(str(path.locate())) for path in listed}
    found = {name: place if place.is_file() else beside / name for name, place in places.items()}
    if not found:
        raise SwiftError("this installation has no examples", next=f"pip install --force-reinstall {DISTRIBUTION}")
    return found
