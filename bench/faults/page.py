"""docs/evidence.md, written from faults.toml and results.json by `make docs`: only what was run is printed."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from judge import VERDICTS

HERE = Path(__file__).parent
TITLES = {"swift": "swift", "ms-swift": "ms-swift", "trl": "TRL", "llamafactory": "LLaMA-Factory"}
MARKS = {
    "stopped": "🟢 stopped",
    "warned": "🟢 warned",
    "right": "🟢 right",
    "during": "🟡 during",
    "silent": "🔴 silent",
    "crashed": "🔴 crashed",
    "hung": "🔴 hung",
    "none": "–",
    "unproved": "?",
}
GOOD = ("stopped", "warned", "right")
PRINTED = {
    "bench/defaults.py": "Speed and memory with nothing set but a model and rows",
    "bench/cli.py": "How soon the command lines answer, and what ours take to start (ratios to the first of a block)",
}
"""What other benchmarks print, where their output was kept in bench/printed/NAME.txt."""

INTRO = """# Evidence

Faults that users of fine-tuning tools reported, made on purpose, and what each tool did with them. Every cell was run:
the commands stand below, with the line that the verdict rests on. `python bench/faults/run.py` runs them again, with
`--tools trl --faults kto-one-label` a single one, and `make docs` writes this page; `python
bench/faults/environments.py` installs the peers first. The commands are typed in the folder of their cell,
`~/.cache/swift/bench/faults/TOOL/FAULT`: `--prepare` makes it, with the model and the rows, and runs nothing. What the
rows look like says `bench/faults/prepare.py`; which words count as naming a fault, the same for all tools,
`bench/faults/faults.toml`. The model is a Llama of two layers with SmolLM2's chat template, on a CPU, one thread,
without network.
"""


RULES = [
    "A metric that is logged (a loss of 0) and a bare `KeyError` or `IndexError` do not name a fault;",
    "a message that speaks of it does, from whichever library it comes. Settings that are echoed and progress bars do",
    "not count.",
    "",
    "ms-swift 2.5.2 ran with the libraries of its time but with torch 2.13, which is newer.",
    "",
]


def write(path: Path) -> None:
    """Write the page."""
    path.write_text("\n".join(lines()), encoding="utf-8")


def lines() -> Iterator[str]:
    """The page, line by line."""
    faults = tomllib.loads((HERE / "faults.toml").read_text(encoding="utf-8"))["fault"]
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    tools = [name for name in TITLES if name in results["tools"]]
    yield INTRO
    yield from _versions(results["tools"], tools)
    yield from _table(faults, results["cells"], tools)
    yield from _legend()
    yield from _printed()
    yield "## The cells"
    yield ""
    for fault in faults:
        cells = results["cells"].get(fault["id"], {})
        yield from _cells(fault, {name: cells[name] for name in tools if name in cells})


def _versions(installed: dict[str, dict[str, str]], tools: list[str]) -> Iterator[str]:
    yield "| tool | version | with |"
    yield "|---|---|---|"
    for name in tools:
        (_, version), *others = installed[name].items()
        yield f"| {TITLES[name]} | {version} | {', '.join(f'{package} {one}' for package, one in others)} |"
    yield ""


def _table(faults: list[dict[str, Any]], cells: dict[str, Any], tools: list[str]) -> Iterator[str]:
    yield f"| fault | {' | '.join(TITLES[name] for name in tools)} |"
    yield f"|---|{'---|' * len(tools)}"
    part = ""
    for fault in faults:
        if fault["part"] != part:
            part = fault["part"]
            yield f"| **{part}** |{' |' * len(tools)}"
        found = [cells.get(fault["id"], {}).get(name) for name in tools]
        marks = [MARKS[cell["verdict"]] if cell else "not run" for cell in found]
        yield f"| [{fault['what']}](#{fault['id']}) | {' | '.join(marks)} |"
    yield f"| **stopped, warned or right** | {' | '.join(_share(cells, name) for name in tools)} |"
    yield ""


def _share(cells: dict[str, Any], tool: str) -> str:
    verdicts = [found[tool]["verdict"] for found in cells.values() if tool in found]
    counted = [verdict for verdict in verdicts if verdict not in ("none", "unproved")]
    return f"**{sum(verdict in GOOD for verdict in counted)} of {len(counted)}**"


def _legend() -> Iterator[str]:
    for verdict, meaning in VERDICTS.items():
        yield f"- {MARKS[verdict]}: {meaning}"
    yield ""
    yield from RULES


def _printed() -> Iterator[str]:
    kept = {script: HERE.parent / "printed" / f"{Path(script).stem}.txt" for script in PRINTED}
    if any(file.is_file() for file in kept.values()):
        yield "## Beside the peers"
        yield ""
    for script, file in kept.items():
        if file.is_file():
            yield f"{PRINTED[script]}: `python {script}` printed"
            yield ""
            yield from ("```text", file.read_text(encoding="utf-8").rstrip(), "```", "")


def _cells(fault: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    yield f'### <a id="{fault["id"]}"></a>{fault["what"]}'
    yield ""
    where = re.sub(r"https://github.com/([\w.-]+/[\w.-]+)/(?:issues|pull)/", r"\1#", fault["thread"])
    yield f"Reported: {fault['reported']} ([{where}]({fault['thread']}))."
    yield ""
    yield "```text"
    for name, cell in found.items():
        ended = "" if cell["exit"] is None else f", exit code {cell['exit']}"
        yield f"# {TITLES[name]}: {cell['verdict'] if cell['verdict'] != 'none' else 'no such step'}{ended}"
        yield from cell["commands"]
        if cell["line"]:
            yield f"    {quoted(cell['line'])}"
    yield "```"
    yield ""


def quoted(line: str) -> str:
    """A line of output without a progress bar before it, and without folders and line numbers of the machine."""
    line = re.sub(r"^.*(?:examples|it)/s\]", "", line)
    return re.sub(r"[\w./~-]*?([\w-]+)\.py\b(:\d+)?", r"\1", line)
