"""Rows with and without images, shared out over processes, train as in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.fixtures.tiny_multimodal import write_tiny

from training.parallel_runs import FULL, ROWS, SGD, ZERO_3, Launch, furthest, launcher, losses

Make = Any
WHOLE = [*FULL, *SGD, "--freeze_vit", "false", "--weight_decay", "0"]
"""Without decay: DeepSpeed decays weights that no row reads as well, such as the last layer of LLaVA's tower."""


@pytest.fixture
def launch_of(smollm2_tokenizer_dir: Path, tmp_path: Path) -> Make:
    """What launches a kind of model, with a command, on rows of which every fifth shows something."""

    def of(kind: str, command: str) -> Launch:
        Image.effect_noise((60, 100), 90).convert("RGB").save(tmp_path / "one.png")
        rows: list[dict[str, Any]] = [{"query": f"Say {i}", "response": "so " * (i % 7) + f"{i}"} for i in range(ROWS)]
        for row in rows[::5]:
            row |= {"images": ["one.png"], "query": "See <image> there"}
        for row in rows if command != "sft" else ():
            row["rejected_response"] = "no"
        model = write_tiny(kind, tmp_path / kind, smollm2_tokenizer_dir)
        method = {} if command == "sft" else {"rlhf_type": command}
        name = "rlhf" if method else command
        return launcher(name, model, tmp_path, rows, {"template_type": "qwen2-vl", **method})

    return of


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "command", "engine", "flags"),
    [
        ("qwen2_vl", "sft", ["--deepspeed", "default-zero2"], []),
        ("llava", "sft", ["--deepspeed", ZERO_3], WHOLE),
        ("qwen2_vl", "sft", ["--deepspeed", ZERO_3], []),
        ("qwen2_vl", "sft", ["--fsdp", "full_shard"], WHOLE),
        ("llava", "dpo", ["--deepspeed", "default-zero2"], []),
        ("qwen2_vl", "dpo", ["--deepspeed", ZERO_3], []),
        ("llava", "dpo", ["--fsdp", "full_shard"], []),
        ("llava", "rm", [], SGD),
        ("qwen2_vl", "rm", [], WHOLE),
        ("llava", "rm", ["--deepspeed", ZERO_3], WHOLE),
        ("qwen2_vl", "rm", ["--deepspeed", "default-zero2"], SGD),
        ("qwen2_vl", "rm", ["--fsdp", "full_shard"], SGD),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else str(value),
)
def test_what_is_shared_out_equals_one_process(
    kind: str, command: str, engine: list[str], flags: list[str], launch_of: Make
) -> None:
    if "--deepspeed" in engine:
        pytest.importorskip("deepspeed")
    launch = launch_of(kind, command)
    one, several = launch("one", 1, *flags), launch("several", 2, *flags, *engine)
    assert losses(several) == pytest.approx(losses(one), rel=1e-5)
    assert furthest(one, several) < 1e-5
