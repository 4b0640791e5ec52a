"""What the tool refuses, read off the source: every `NotBuilt(…)`, and what is said not to go together."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swift.params.leftovers import TABLE

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "swift"
MARKS = ("<!-- refusals -->", "<!-- end of refusals -->")
OPEN = "…"
"""Stands for what is only known when the tool runs."""
TOGETHER = ("does not go together", "does not reach")
AREAS = (
    ("plan", "Training"),
    ("training", "Training"),
    ("engines", "Engines"),
    ("models", "Models"),
    ("catalog", "Data sets"),
)
Names = Mapping[str, str]


@dataclass(frozen=True)
class Refusal:
    """One message of the tool, with `…` where it names something of the moment."""

    area: str
    built: bool
    what: str
    why: str
    next: str


@dataclass
class Module:
    """One source file as the reading needs it: its constants, and what each node stands in."""

    path: Path
    tree: ast.Module
    constants: dict[str, ast.expr] = field(default_factory=dict)
    calls: list[tuple[str, ast.Call]] = field(default_factory=list)
    """The name of each function that is called by its name, and the call."""
    imported: set[str] = field(default_factory=set)
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Module:
        """Parse a file."""
        module = cls(path, ast.parse(path.read_text(encoding="utf-8")))
        for node in module.tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                else:
                    pairs = [(target, node.value)]
                module.constants |= {each.id: value for each, value in pairs if isinstance(each, ast.Name)}
        for node in ast.walk(module.tree):
            module.parents |= dict.fromkeys(ast.iter_child_nodes(node), node)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                module.calls.append((node.func.id, node))
            if isinstance(node, ast.ImportFrom):
                module.imported |= {name.name for name in node.names}
        return module

    def around(self, node: ast.AST) -> list[ast.AST]:
        """What a node stands in, the nearest first."""
        found: list[ast.AST] = []
        while node in self.parents:
            node = self.parents[node]
            found.append(node)
        return found


def text(node: ast.expr | None, names: Names, module: Module) -> str:
    """An expression as text, as far as it can be told."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part, names, module) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return text(node.value, names, module)
    if isinstance(node, ast.Name):
        constant = module.constants.get(node.id)
        return names[node.id] if node.id in names else text(constant, names, module) if constant else OPEN
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and isinstance(node.slice, ast.Name):
        table = module.constants.get(node.value.id)
        entries = zip(table.keys, table.values, strict=True) if isinstance(table, ast.Dict) else ()
        return next((text(v, {}, module) for k, v in entries if text(k, {}, module) == names.get(node.slice.id)), OPEN)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
        of = module.constants.get(node.args[0].id) if isinstance(node.args[0], ast.Name) else None
        items = list(_items(of, module)) if isinstance(of, ast.Tuple) else [OPEN]
        return text(node.func.value, names, module).join(items)
    return OPEN


def _items(of: ast.Tuple, module: Module) -> Iterator[str]:
    for item in of.elts:
        starred = item.value if isinstance(item, ast.Starred) else None
        inside = module.constants.get(starred.id) if isinstance(starred, ast.Name) else None
        yield from _items(inside, module) if isinstance(inside, ast.Tuple) else [text(item, {}, module)]


def readings(node: ast.AST, module: Module, modules: list[Module]) -> Iterator[Names]:
    """Every way to read the names around a call: what loops run over, what is asked of them, what callers pass."""
    choices: list[list[Names]] = []
    outer = module.around(node)
    function = next((each for each in outer if isinstance(each, ast.FunctionDef)), None)
    for each in outer:
        if isinstance(each, ast.For):
            choices.append(list(_of_loop(each, function, module)))
        if isinstance(each, ast.If) and (asked := _of_question(each.test, module)):
            choices.append(asked)
    if function is not None:
        choices += _of_locals(function)
        choices.append(list(_of_callers(function, [m for m in modules if m is module or function.name in m.imported])))
    for chosen in itertools.product(*(choice for choice in choices if choice)):
        yield {name: value for names in chosen for name, value in names.items()}


def _of_loop(loop: ast.For, function: ast.FunctionDef | None, module: Module) -> Iterator[Names]:
    targets = loop.target.elts if isinstance(loop.target, ast.Tuple) else [loop.target]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    of = loop.iter
    if isinstance(of, ast.Call) and isinstance(of.func, ast.Attribute) and isinstance(of.func.value, ast.Name):
        of = _assigned(of.func.value.id, function) or module.constants.get(of.func.value.id)
    if isinstance(of, ast.Dict):
        for key, value in zip(of.keys, of.values, strict=True):
            for inside in _of_question(value, module) or [{}]:
                yield {names[0]: text(key, inside, module)}
    if isinstance(of, ast.Tuple | ast.List):
        for item in of.elts:
            parts = item.elts if isinstance(item, ast.Tuple) else [item]
            yield {name: text(part, {}, module) for name, part in zip(names, parts, strict=False)}


def _of_question(test: ast.expr, module: Module) -> list[Names]:
    """`name in TABLE`, also where more is asked for."""
    for each in ast.walk(test):
        if isinstance(each, ast.Compare) and isinstance(each.ops[0], ast.In) and isinstance(each.left, ast.Name):
            among = each.comparators[0]
            among = module.constants.get(among.id) if isinstance(among, ast.Name) else among
            items = among.keys if isinstance(among, ast.Dict) else among.elts if isinstance(among, ast.Tuple) else []
            return [{each.left.id: text(item, {}, module)} for item in items if item is not None]
    return []


def _assigned(name: str, function: ast.FunctionDef | None) -> ast.expr | None:
    nodes = ast.walk(function) if function else ()
    found = (n.value for n in nodes if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == name)
    return next(found, None)


def _of_locals(function: ast.FunctionDef) -> Iterator[list[Names]]:
    """Texts that have a name of their own, some of them one of two."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            said = [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
            if all(isinstance(each, ast.Constant) and isinstance(each.value, str) for each in said):
                yield [{node.targets[0].id: ast.literal_eval(each)} for each in said]


def _of_callers(function: ast.FunctionDef, modules: list[Module]) -> Iterator[Names]:
    names = [arg.arg for arg in function.args.args]
    for module in modules:
        for called, node in module.calls:
            if called == function.name:
                given = {name: text(arg, {}, module) for name, arg in zip(names, node.args, strict=False)}
                yield {name: value for name, value in given.items() if value != OPEN}


def refusals() -> list[Refusal]:
    """Every refusal of the source, once."""
    modules = [Module.read(path) for path in sorted(SOURCE.rglob("*.py"))]
    found: dict[Refusal, None] = {}
    for module in modules:
        for name, node in module.calls:
            for refusal in _refusals_of(node, name, module, modules):
                found[refusal] = None
    return list(found)


def _refusals_of(call: ast.Call, name: str, module: Module, modules: list[Module]) -> Iterator[Refusal]:
    inside = [each.name for each in module.around(call) if isinstance(each, ast.FunctionDef)]
    stated = name == "SwiftError" and any(words in ast.unparse(call) for words in TOGETHER) and "refused" not in inside
    helper = name == "refused" and "FLAG" in module.constants
    if not (stated or helper or name == "NotBuilt"):
        return
    given = {**dict(zip(("what", "why", "next"), call.args, strict=False)), **{k.arg: k.value for k in call.keywords}}
    folder = module.path.relative_to(SOURCE).parts[0]
    area = next((title for start, title in AREAS if start == folder), "Commands")
    tail = f" does not go together with {text(ast.Name('FLAG'), {}, module)}" if helper else ""
    for names in readings(call, module, modules):
        what, why, then = (text(given.get(part), names, module) for part in ("what", "why", "next"))
        yield Refusal(area, name != "NotBuilt", what + tail, why if "why" in given else "", then)


def write_not_built(path: Path) -> None:
    """docs/not-built.md with the tables of refusals between its marks."""
    page = (ROOT / "docs" / "not-built.md").read_text(encoding="utf-8")
    before, after = page.partition(MARKS[0])[0], page.partition(MARKS[1])[2]
    path.write_text("\n".join([before + MARKS[0], *_tables(refusals()), MARKS[1] + after]), encoding="utf-8")


def _tables(rows: list[Refusal]) -> Iterator[str]:
    yield "\n## Not built\n"
    for area in dict.fromkeys(title for _, title in (*AREAS, ("", "Commands"))):
        here = [row for row in rows if row.area == area and not row.built]
        if here:
            yield f"\n### {area}\n\n| refused | why | instead |\n|---|---|---|"
            yield from (f"| {_cell(row.what)} | {_cell(row.why)} | {_cell(row.next)} |" for row in here)
    yield "\n## What does not go together\n\n| refused | why | instead |\n|---|---|---|"
    yield from (f"| {_cell(row.what)} | {_cell(row.why)} | {_cell(row.next)} |" for row in rows if row.built)
    yield "\n## What 2.5 has for other libraries\n\n| refused | what it is for | instead |\n|---|---|---|"
    for row in TABLE:
        value = f" {' or '.join(row.values)}" if row.values else ""
        commands = f" of {', '.join(row.commands)}" if row.commands else ""
        yield f"| `--{row.flag}{value}`{commands} | {_cell(row.what)} | {_cell(row.instead)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
