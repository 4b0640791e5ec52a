"""Every command line that the README shows is one that parses, and every path that a page names exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from swift.cli import main
from swift.commands.check import own_words
from swift.params.commands import COMMANDS, OWN, find_command, with_training_command
from swift.params.parse import parse

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "swift"
CONTROLS = ("--help", "--help-all", "--print_config")
FENCE = re.compile(r"```(?:sh|bash)\n(.*?)```", re.DOTALL)
ASSIGNED = re.compile(r"^(?:[A-Z_]+=\S+ +)+")
INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*swift [a-z][^`\n]*)`")


def commands_of(page: Path) -> list[str]:
    """The command lines of `swift` in the blocks of a page, without variables before and what a shell does behind."""
    lines: list[str] = []
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        whole = block.replace("\\\n", " ")
        lines += [ASSIGNED.sub("", line.strip()) for line in whole.splitlines()]
    return [re.split(r" [#|>&;]", line)[0] for line in lines if line.startswith("swift ")]


WITH_COMMANDS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def named_in(page: Path) -> list[str]:
    """The command lines that stand in the sentences and tables of a page; what only names a flag has no value there."""
    found = (ASSIGNED.sub("", line) for line in INLINE.findall(page.read_text(encoding="utf-8")))
    return [line for line in found if "|" not in line and not re.search(r"--\w+$", line)]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_parses(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for line in [*commands_of(page), *named_in(page)]:
        command, *words = [word for word in shlex.split(line)[1:] if word not in CONTROLS]
        if "…" in line or command in ("COMMAND", "--version"):
            continue
        if command in OWN and command != "check":
            assert main([command, "--help"]) == 0
        else:
            if command == "check":
                command, *words = with_training_command(own_words(words)[1])
            assert parse([command, *words]).command == find_command(command)[0].name, line


def test_commands_stand_in_blocks_that_are_checked() -> None:
    indented = re.compile(r"^ {4,}(?:pip install|swift) ", re.MULTILINE)
    assert [page.name for page in WITH_COMMANDS if indented.search(page.read_text(encoding="utf-8"))] == []


def test_the_site_names_each_page_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    named = re.findall(r"(?<=[ ])[\w/.-]+\.md$", navigation, re.MULTILINE)
    assert len(named) == len(set(named)) > 20
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    apart = {page for page in pages if page.startswith(("reference/", "decisions/"))}
    assert pages - apart == set(named) - apart


PLAIN_PAGES = [
    *(ROOT / "docs" / "commands").glob("*.md"),
    *(ROOT / "docs" / "zh").glob("*.md"),
    *(ROOT / "docs" / f"{name}.md" for name in ("first-run", "rows", "symptoms", "metrics", "check", "python-api")),
]
"""Pages that speak of no other tool's flags."""
NOT_OF_A_COMMAND = {"help", "help_all", "debug", "json", "all", "version", "result_path", "steps"}


def test_every_flag_that_a_page_names_is_one() -> None:
    flags = {name for command in COMMANDS.values() for name in command.flags} | NOT_OF_A_COMMAND
    for page in PLAIN_PAGES:
        text = "\n".join(line for line in page.read_text(encoding="utf-8").splitlines() if "pip install" not in line)
        named = {word.replace("-", "_") for word in re.findall(r"--([a-z][a-z0-9_-]+)", text)}
        assert named <= flags, page.name


def test_the_glossary_has_every_metric_that_objectives_return() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    sources = [*SOURCE.glob("training/objectives/*.py"), *SOURCE.glob("training/policy_gradient/*.py")]
    slashed = r'"((?:rewards|logps|logits|objective|policy|val|loss|clip_ratio|completions|eval)/[a-z_/]+)"'
    plain = r'"(acc|accuracy|nll_loss|kl|reward|reward_std|log_odds_chosen|log_odds_ratio)"'
    names = {name for path in sources for name in re.findall(f"{slashed}|{plain}", path.read_text(encoding="utf-8"))}
    names = {name for pair in names for name in pair if name} - {"val/ratio_square"}  # which becomes `val/ratio_var`
    assert len(names) > 25 and {name for name in names if f"`{name}`" not in text} == set()


PAGES = sorted(path for path in ROOT.rglob("*.md") if not any(part[0] == "." for part in path.relative_to(ROOT).parts))
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
PATH = re.compile(
    r"(?<![\w/.<-])(?:(?:src|tests|docs|bench|examples)/[\w./*-]*[\w*/]|[\w-]+(?:/[\w-]+)*\.(?:py|md|toml|sh))"
)
MODULE = re.compile(r"`(swift(?:\.\w+)+)")
OF_ANOTHER_RELEASE = {"swift.llm"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    site = ROOT / "docs" if ROOT / "docs" in page.parents else ROOT  # which holds the pages alone
    links = {link: (page.parent / link).resolve() for link in LINK.findall(text)}
    gone = [link for link, place in links.items() if not (place.exists() and site in (place, *place.parents))]
    gone += [path for path in PATH.findall(re.sub(r"https?:\S+", "", text)) if not _is_there(path, page)]
    gone += [name for name in MODULE.findall(text) if name not in OF_ANOTHER_RELEASE and not _is_module(name)]
    assert gone == []


def _is_there(path: str, page: Path) -> bool:
    if any(list(root.glob(path.rstrip("/"))) for root in (page.parent, ROOT, SOURCE, ROOT / "docs")):
        return True
    return "/" not in path and any(SOURCE.rglob(path))


def _is_module(name: str) -> bool:
    """Whether the dotted name is a module or something that a module has in its text."""
    path = SOURCE.parent
    for part in name.split("."):
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if (path / part).is_dir() or (path / f"{part}.py").is_file():
            path = path / part
        else:
            return file.is_file() and re.search(rf"\b{part}\b", file.read_text(encoding="utf-8")) is not None
    return True
