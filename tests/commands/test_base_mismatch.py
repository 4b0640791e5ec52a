"""An adapter on another base than its own is refused before the weights are loaded, wherever the two meet."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from swift import models, tuners
from swift.catalog import load_catalog
from swift.cli import main
from swift.core.errors import SwiftError
from swift.core.probe import probe
from swift.core.transaction import seal
from swift.engines.factory import prepare, start
from swift.params.parse import parse
from swift.plan.infer import plan_infer
from swift.plan.model import ModelPlan
from swift.plan.tuner import TunerPlan
from swift.tuners.adapter_saving import Card

REFUSED = "is not the model that"


@pytest.fixture(scope="module")
def other_base(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the same shapes, with one tensor tuned a little."""
    folder = Path(shutil.copytree(tiny_llama_dir, tmp_path_factory.mktemp("models") / "other"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] += 1e-3
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def checkpoint(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of the tiny Llama, as training writes it."""
    folder = tmp_path_factory.mktemp("run") / "checkpoint-1"
    folder.mkdir()
    plan = ModelPlan(model_type="tiny-llama", source=str(tiny_llama_dir), hub="local", dtype="fp32")
    tuner = TunerPlan(sft_type="lora", settings={"r": 4, "lora_alpha": 8, "init_lora_weights": False})
    torch.manual_seed(0)
    tuned = tuners.attach(models.load_model(plan), tuner)
    tuners.save(tuned, folder, Card(model=plan, tuner=tuner, base=models.identity(tiny_llama_dir)))
    saved = {"model_type": "tiny-llama", "model_id_or_path": str(tiny_llama_dir), "sft_type": "lora", "dtype": "fp32"}
    (folder / "sft_args.json").write_text(json.dumps(saved))
    seal(folder)
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "What is red?", "response": "A colour."}\n')
    return path


COMMANDS = {
    "infer": "infer --ckpt_dir {checkpoint} --model_id_or_path {other} --val_dataset {rows} --result_dir {out}",
    "infer-merged": "infer --ckpt_dir {checkpoint} --model_id_or_path {other} --merge_lora true --val_dataset {rows}",
    "deploy": "deploy --ckpt_dir {checkpoint} --model_id_or_path {other}",
    "deploy-modules": "deploy --model_id_or_path {other} --lora_modules it={checkpoint}",
    "app-ui": "app-ui --ckpt_dir {checkpoint} --model_id_or_path {other}",
    "export": "export --ckpt_dir {checkpoint} --model_id_or_path {other} --merge_lora true",
    "ollama": "export --ckpt_dir {checkpoint} --model_id_or_path {other} --to_ollama true --template_type chatml",
    "gguf": "export --ckpt_dir {checkpoint} --model_id_or_path {other} --merge_lora true --to_gguf f16",
    "quantize": "export --ckpt_dir {checkpoint} --model_id_or_path {other} --merge_lora true "
    "--quant_bits 8 --quant_method bnb",
    "eval": "eval --ckpt_dir {checkpoint} --model_id_or_path {other} --custom_eval_config {suites} "
    "--eval_output_dir {out}",
    "merge-lora": "merge-lora --ckpt_dir {checkpoint} --model_id_or_path {other}",
    "resume": "sft --model_id_or_path {other} --resume_from_checkpoint {checkpoint} --resume_only_model true "
    "--dataset {rows} --output_dir {out}",
    "rlhf": "rlhf --rlhf_type dpo --model_id_or_path {other} --resume_from_checkpoint {checkpoint} "
    "--resume_only_model true --dataset {rows} --output_dir {out}",
    "dry-run": "sft --model_id_or_path {other} --resume_from_checkpoint {checkpoint} --resume_only_model true "
    "--dataset {rows} --output_dir {out} --dry_run true",
}


@pytest.fixture
def suites(tmp_path: Path) -> Path:
    """Own questions, one of them."""
    (tmp_path / "talk.jsonl").write_text('{"query": "Say hello", "response": "hello"}\n')
    path = tmp_path / "suites.json"
    suite = {"name": "talk", "pattern": "general_qa", "dataset": str(tmp_path), "subset_list": ["talk"]}
    path.write_text(json.dumps([suite]))
    return path


def words_of(command: str, **places: Path) -> list[str]:
    return [word.format(**places) for word in COMMANDS[command].split()]


@pytest.mark.parametrize("command", COMMANDS)
def test_another_base_is_refused(
    command: str,
    other_base: Path,
    checkpoint: Path,
    rows: Path,
    suites: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = words_of(command, checkpoint=checkpoint, other=other_base, rows=rows, suites=suites, out=tmp_path / "out")
    assert main(words) == 2
    given = capsys.readouterr().err
    assert REFUSED in given and "--ignore_base_mismatch true" in given and "Traceback" not in given
    assert not list((tmp_path / "out").rglob("*")) and not list(checkpoint.parent.glob("*merged*"))


def test_it_goes_on_where_that_is_said(
    other_base: Path, checkpoint: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of("infer", checkpoint=checkpoint, other=other_base, rows=rows, out=tmp_path / "out")
    assert main([*words, "--ignore_base_mismatch", "true", "--max_new_tokens", "2"]) == 0
    assert "was trained on other weights" in capsys.readouterr().err


def test_an_adapter_that_is_added_later(other_base: Path, checkpoint: Path, tiny_llama_dir: Path) -> None:
    async def add(base: Path) -> tuple[str, ...]:
        catalog = load_catalog()
        plan = plan_infer(parse(["infer", "--model_id_or_path", str(base)]), catalog, probe())
        engine = await start(plan, prepare(plan, catalog))
        try:
            await engine.add_adapter("late", str(checkpoint))
            return engine.adapters
        finally:
            await engine.close()

    assert asyncio.run(add(tiny_llama_dir)) == ("late",)
    with pytest.raises(SwiftError, match=REFUSED):
        asyncio.run(add(other_base))
