"""Help and mistakes answer without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "datasets", "pydantic", "numpy", "peft", "accelerate", "gradio", "yaml")
CODE = "import sys; from swift import cli; code = cli.main(sys.argv[1:]); print(code, *sys.modules, file=sys.stderr)"


def loaded(*words: str) -> tuple[int, set[str]]:
    """The exit code of a command line and the top-level modules it imported."""
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=True)
    code, *modules = done.stderr.splitlines()[-1].split()
    return int(code), {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["sft", "--help"], 0),
        (["sft", "--help-all"], 0),
        (["deploy", "--help-all"], 0),
        (["infer", "--print_config", "yaml"], 0),
        (["stf"], 2),
        (["sft", "--lerning_rate", "1"], 2),
        (["sft", "--sft_type", "lorra"], 2),
        (["sft"], 2),
        (["sft", "--model_id_or_path", "/no/such/model", "--dataset", "rows.jsonl"], 2),
        (["infer", "--model_id_or_path", "/no/such/model"], 2),
    ],
)
def test_nothing_heavy_is_imported(words: list[str], code: int) -> None:
    ended, modules = loaded(*words)
    assert ended == code
    assert modules.isdisjoint(HEAVY)


def test_help_reads_no_flag() -> None:
    done = subprocess.run([sys.executable, "-c", CODE, "--help"], capture_output=True, text=True, check=True)
    assert "swift.params.groups" not in done.stderr.split()


def test_the_package_itself_is_light() -> None:
    code = "import sys, swift; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {module.partition(".")[0] for module in done.stdout.split()} & set(HEAVY)


@pytest.mark.parametrize("words", [[], ["--sft_type", "full", "--packing", "true"]], ids=["lora", "full"])
def test_a_dry_run_of_a_plain_decoder_is_without_torch(words: list[str], tiny_llama_dir: Path, tmp_path: Path) -> None:
    assert dry_run_modules(tiny_llama_dir, tmp_path, *words).isdisjoint(WORKING | {"torch"})


def test_a_dry_run_that_measures_loads_no_trainer(tiny_llama_dir: Path, tmp_path: Path) -> None:
    modules = dry_run_modules(tiny_llama_dir, tmp_path, "--use_dora", "true")
    assert "torch" in modules and modules.isdisjoint(WORKING)


WORKING = {"pandas", "datasets", "tensorboard", "gradio", "sklearn", "wandb"}
"""What only a run itself takes."""


def dry_run_modules(model: Path, folder: Path, *words: str) -> set[str]:
    """The top-level modules that a dry run of four rows imports."""
    rows = folder / "rows.jsonl"
    rows.write_text('{"query": "Say it", "response": "It is said"}\n' * 4)
    given = ["sft", "--model_id_or_path", str(model), "--dataset", str(rows), "--output_dir", str(folder)]
    ended, modules = loaded(*given, *words, "--dry_run", "true")
    assert ended == 0
    return modules


@pytest.mark.parametrize("module", ["evaluation.run", "serving.server", "inference.batch", "engines.remote"])
def test_what_a_server_may_do_is_imported_without_torch(module: str) -> None:
    code = f"import sys, swift.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers"} & set(done.stdout.split())


def test_answering_loads_what_answers(tiny_llama_dir: Path, tmp_path: Path) -> None:
    """Neither PEFT, which brings bitsandbytes and the compiler of torch along, nor anything that trains."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "Say it", "response": "It is said"}\n')
    words = [
        "infer",
        "--model_id_or_path",
        str(tiny_llama_dir),
        "--template_type",
        "chatml",
        "--val_dataset",
        str(rows),
    ]
    words += ["--save_result", "false", "--max_new_tokens", "1"]
    serve = "import swift.commands.deploy, swift.serving.server, swift.serving.service, swift.serving.banner"
    code = CODE.replace("; print", f"; {serve}; print")
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    ended, *modules = done.stderr.splitlines()[-1].split()
    assert ended == "0" and "swift.serving.app" in modules
    training = {"peft", "bitsandbytes", "transformers.trainer_utils", "swift.training.trainer"}
    beside = {"torch._inductor.compile_fx", "datasets", "pandas", "sklearn", "scipy", "gradio", "tensorboard", "wandb"}
    assert (training | beside).intersection(modules) == set()
