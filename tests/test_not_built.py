"""The page of what is refused: it has each refusal of the source, and nothing else."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from swift.core.errors import NotBuilt
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.fsdp import plan_fsdp
from swift.plan.sequence_parallel import plan_sequence_parallel

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "not-built.md"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """`docs/not_built.py`, which makes the page."""
    spec = importlib.util.spec_from_file_location("not_built", ROOT / "docs" / "not_built.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["not_built"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_source_says(page: ModuleType, tmp_path: Path) -> None:
    page.write_not_built(tmp_path / "not-built.md")
    assert (tmp_path / "not-built.md").read_text("utf-8") == PAGE.read_text("utf-8"), "run `make docs`"


def test_each_place_that_refuses_has_a_row(page: ModuleType) -> None:
    """Counted in another way than the page does it: by the words that stand in the source."""
    rows = [row for row in page.refusals() if not row.built]
    for path in sorted((ROOT / "src" / "swift").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "NotBuilt":
                said = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else node.args
                words = [part for part in said if isinstance(part, ast.Constant)]
                fixed = [str(part.value).strip() for part in words if len(str(part.value)) > 3]
                assert any(all(part in row.what for part in fixed) for row in rows), (path.name, fixed)


def test_each_row_says_what_to_do_instead(page: ModuleType) -> None:
    rows = page.refusals()
    assert len(rows) > 40
    assert [row.what for row in rows if row.next in ("", page.OPEN)] == []
    assert [row.what for row in rows if re.fullmatch(r"[…\s]*", row.what.partition(" is not")[0])] == []


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("--fsdp no_shard", "--fsdp no_shard is not built"),
        ("--fsdp full_shard --quantization_bit 4", "--quantization_bit is not built yet with --fsdp, which"),
        ("--sequence_parallel_size 2 --loss_name long-ce", "--loss_name long-ce is not built yet with --sequence"),
        ("--sequence_parallel_size 2 --sft_type longlora", "--sft_type longlora is not built yet with --sequence"),
    ],
)
def test_a_message_of_the_tool_stands_there(words: str, refused: str) -> None:
    args = parse(["sft", "--model_type", "m", "--dataset", "d", *words.split()])
    machine = Machine(world_size=2, local_world_size=2)
    with pytest.raises(NotBuilt) as error:
        plan_fsdp(args, machine, sft_type="lora", dtype="bf16")
        plan_sequence_parallel(args, machine, args.values["sft_type"])
    assert refused in error.value.what and error.value.what in PAGE.read_text("utf-8")
