"""`swift sft` and `swift pt` from the command line to the files they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from swift.cli import main
from swift.core.transaction import fault
from swift.training.objectives.sft import SftObjective


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"query": f"Say {i}", "response": f"{i} it is"}) + "\n" for i in range(20)))
    return path


def flags(**values: Any) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def run_of(output: Path, model: Path) -> Path:
    (run,) = (output / model.name).iterdir()
    return run


def test_a_run_leaves_everything_in_its_place(
    tiny_llama_dir: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = flags(
        model_id_or_path=tiny_llama_dir,
        dataset=rows,
        output_dir=tmp_path / "output",
        max_steps=3,
        batch_size=2,
        gradient_accumulation_steps=1,
        eval_steps=2,
        dataset_test_ratio=0.2,
    )
    assert main(["sft", *words]) == 0
    run = run_of(tmp_path / "output", tiny_llama_dir)
    assert run.name.startswith("v0-")
    names = {path.name for path in run.iterdir()}
    assert names == {
        "checkpoint-2",
        "checkpoint-3",
        "data_ledger.jsonl",
        "environment.json",
        "images",
        "logging.jsonl",
        "report.html",
        "runs",
        "sft_args.json",
        "training_args.json",
    }
    last = run / "checkpoint-3"
    assert fault(last) is None
    held = {path.name for path in last.iterdir()}
    expected = "adapter_config.json adapter_model.safetensors additional_config.json configuration.json "
    expected += "generation_config.json manifest.json optimizer.pt rng_state.pth scheduler.pt sft_args.json "
    expected += "tokenizer.json tokenizer_config.json trainer_state.json"
    assert set(expected.split()) <= held

    saved = json.loads((last / "sft_args.json").read_text())
    assert saved == json.loads((run / "sft_args.json").read_text())
    assert saved["learning_rate"] == 1e-4
    assert saved["dtype"] == "fp32"
    assert saved["template_type"] == "jinja"
    assert saved["gradient_accumulation_steps"] == 1
    assert saved["dataset"] == [str(rows)]
    assert saved["model_id_or_path"] == str(tiny_llama_dir)
    assert "hub_token" not in saved

    said = capsys.readouterr().err
    assert "⟦" in said
    assert "16 kept" in said or "20 kept" in said
    assert "swift infer --ckpt_dir" in said
    assert "images_dir" in said


def test_it_trains_on_a_data_set_by_its_name(tiny_llama_dir: Path, tmp_path: Path) -> None:
    words = flags(model_id_or_path=tiny_llama_dir, output_dir=tmp_path / "output", max_steps=1, report_to="none")
    names = ["--model_name", "小柏", "Juniper", "--model_author", "艾克米实验室", "Acme Lab"]
    assert main(["sft", *words, "--dataset", "self-cognition#20", *names]) == 0
    assert (run_of(tmp_path / "output", tiny_llama_dir) / "checkpoint-1").is_dir()


@pytest.mark.parametrize("flag", ["predict_with_generate", "metric_for_best_model"])
def test_what_asks_for_validation_rows_is_refused_without_them(
    flag: str, tiny_llama_dir: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"predict_with_generate": "true", "metric_for_best_model": "acc"}[flag]
    words = flags(model_id_or_path=tiny_llama_dir, dataset=rows, dataset_test_ratio=0, output_dir=tmp_path / "output")
    assert main(["sft", *words, f"--{flag}", given, "--dry_run", "true"]) == 2
    assert f"error: --{flag} has no validation rows" in capsys.readouterr().err


@pytest.mark.parametrize("steps", [20, 2])
def test_a_run_that_is_not_short_shows_answers_before_and_after(
    steps: int, tiny_llama_dir: Path, rows: Path, tmp_path: Path
) -> None:
    common = {"model_id_or_path": tiny_llama_dir, "dataset": rows, "batch_size": 4, "gradient_accumulation_steps": 1}
    common |= {"max_steps": steps, "evaluation_strategy": "no", "save_strategy": "no", "report_to": "none"}
    taken = {}
    for sft_type, rate in (("lora", 0.1), ("full", 0.01)):  # the base answers afterwards, and beforehand
        output = tmp_path / sft_type
        words = flags(**common, sft_type=sft_type, learning_rate=rate, output_dir=output)
        assert main(["sft", *words, "--target_modules", "ALL"]) == 0
        run = run_of(output, tiny_llama_dir)
        assert ("Answers before and after" in (run / "report.html").read_text()) == (steps == 20)
        if steps == 20:
            taken[sft_type] = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
        else:
            assert not (run / "samples.jsonl").exists()
    for samples in taken.values():
        assert len(samples) == 2 and all(sample["after"] != sample["before"] for sample in samples)
    assert len({tuple(sample["before"] for sample in samples) for samples in taken.values()}) <= 1


def test_a_second_run_gets_the_next_version_and_auto_goes_on_in_the_first(
    tiny_llama_dir: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = flags(
        model_id_or_path=tiny_llama_dir, dataset=rows, output_dir=tmp_path / "output", report_to="none", save_steps=1
    )
    assert main(["sft", *words, "--max_steps", "1", "--lora_rank", "4", "--learning_rate", "1e-3"]) == 0
    first = run_of(tmp_path / "output", tiny_llama_dir)
    assert main(["sft", *words, "--max_steps", "2", "--resume_from_checkpoint", "auto"]) == 0
    assert (first / "checkpoint-2").is_dir()
    capsys.readouterr()
    going_on = [*words, "--max_steps", "3", "--resume_from_checkpoint", str(first / "checkpoint-2")]
    for more in (["--lora_rank", "16"], ["--sft_type", "full"], ["--optim", "adafactor"]):
        assert main(["sft", *going_on, *more]) == 2
        assert f"the checkpoint cannot go on with {' '.join(more)}" in capsys.readouterr().err
    assert main(["sft", *going_on, "--learning_rate", "3e-4"]) == 0
    assert "from here on: --max_steps 3 (it was 2), --learning_rate 0.0003 (it was 0.001)" in capsys.readouterr().err
    saved = json.loads((first / "sft_args.json").read_text())
    assert (saved["lora_rank"], saved["learning_rate"], saved["max_steps"]) == (4, 3e-4, 3)
    assert main(["sft", *words, "--max_steps", "4", "--resume_from_checkpoint", "auto"]) == 0
    saved = json.loads((first / "sft_args.json").read_text())
    assert (saved["lora_rank"], saved["learning_rate"], saved["max_steps"]) == (4, 3e-4, 4)
    assert json.loads((first / "checkpoint-4" / "adapter_config.json").read_text())["r"] == 4
    assert main(["sft", *words, "--output_dir", str(first), "--add_output_dir_suffix", "false"]) == 2
    assert "holds another run, up to checkpoint-4" in capsys.readouterr().err
    options = ["--resume_from_checkpoint", str(first / "checkpoint-4"), "--resume_only_model", "true"]
    assert main(["sft", *words, "--max_steps", "1", *options]) == 0
    second = next(path for path in first.parent.iterdir() if path != first)
    assert second.name.startswith("v1-")
    assert (second / "checkpoint-1").is_dir()


def test_pre_training_trains_every_token_of_a_text(tiny_qwen2_dir: Path, tmp_path: Path) -> None:
    rows = tmp_path / "texts.jsonl"
    rows.write_text("".join(json.dumps({"text": f"The number {i} follows {i - 1}."}) + "\n" for i in range(12)))
    words = flags(
        model_id_or_path=tiny_qwen2_dir,
        dataset=rows,
        output_dir=tmp_path / "run",
        add_output_dir_suffix="false",
        max_steps=2,
        batch_size=2,
        report_to="none",
    )
    assert main(["pt", *words]) == 0
    checkpoint = tmp_path / "run" / "checkpoint-2"
    assert (checkpoint / "model.safetensors").is_file()
    assert (checkpoint / "config.json").is_file()
    saved = json.loads((checkpoint / "sft_args.json").read_text())
    assert (saved["sft_type"], saved["template_type"]) == ("full", "default-generation")
    before, after = (json.loads((each / "config.json").read_text()) for each in (tiny_qwen2_dir, checkpoint))
    assert after == before


def test_the_summary_counts_the_rows_of_every_epoch(tiny_llama_dir: Path, rows: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = flags(
        model_id_or_path=tiny_llama_dir,
        dataset=rows,
        output_dir=run,
        add_output_dir_suffix="false",
        num_train_epochs=2,
        batch_size=3,
        gradient_accumulation_steps=1,
        report_to="none",
        dataset_test_ratio=0,
    )
    assert main(["sft", *words]) == 0
    summary = json.loads((run / "logging.jsonl").read_text().splitlines()[-1])
    assert summary["train_time"]["n_train_samples"] == 40
    seconds = summary["train_time"]["train_runtime"]
    assert summary["train_time"]["train_samples_per_second"] == pytest.approx(40 / seconds)


def test_a_stream_and_packed_rows_train(tiny_llama_dir: Path, rows: Path, tmp_path: Path) -> None:
    words = flags(
        model_id_or_path=tiny_llama_dir,
        dataset=rows,
        add_output_dir_suffix="false",
        max_steps=2,
        batch_size=2,
        gradient_accumulation_steps=1,
        report_to="none",
        evaluation_strategy="no",
    )
    assert main(["sft", *words, "--streaming", "true", "--output_dir", str(tmp_path / "stream")]) == 0
    place = json.loads((tmp_path / "stream" / "checkpoint-2" / "data_state.json").read_text())
    assert place["consumed"] == 4
    packed = ["--packing", "true", "--max_length", "64", "--output_dir", str(tmp_path / "packed")]
    assert main(["sft", *words, *packed]) == 0


def test_answers_are_generated_and_scored(tiny_llama_dir: Path, rows: Path, tmp_path: Path) -> None:
    words = flags(
        model_id_or_path=tiny_llama_dir,
        dataset=rows,
        output_dir=tmp_path / "run",
        add_output_dir_suffix="false",
        max_steps=1,
        predict_with_generate="true",
        max_new_tokens=4,
        dataset_test_ratio=0.1,
        report_to="none",
    )
    assert main(["sft", *words]) == 0
    events = [json.loads(line) for line in (tmp_path / "run" / "logging.jsonl").read_text().splitlines()]
    evaluation = next(event for event in events if "eval_loss" in event)
    assert {"eval_rouge-1", "eval_rouge-2", "eval_rouge-l", "eval_bleu-4"} <= set(evaluation)


def test_a_lack_of_memory_is_one_message(
    tiny_llama_dir: Path,
    rows: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 GiB free")

    monkeypatch.setattr(SftObjective, "sums", full)
    words = flags(model_id_or_path=tiny_llama_dir, dataset=rows, output_dir=tmp_path / "output", batch_size=4)
    for more in ([], ["--auto_find_batch_size", "true"], ["--rehearse", "true"]):
        assert main(["sft", *words, *more]) == 2
        told = capsys.readouterr().err
        assert told.count("error: ") == 1 and "Tried to allocate 2.00 GiB" in told
        assert "--batch_size 1 --gradient_accumulation_steps 16, the same rows a step" in told
    assert main(["check", *words]) == 2
    assert capsys.readouterr().err.count("Tried to allocate 2.00 GiB") == 1


def test_a_rehearsal_says_what_it_did(
    tiny_llama_dir: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = flags(model_id_or_path=tiny_llama_dir, dataset=rows, output_dir=tmp_path / "output", max_steps=1)
    words += flags(rehearse="true", max_new_tokens=4)
    step = "rehearsed a step of the longest rows"
    told = f"{step}; an evaluation of the longest validation rows, without the answers of --predict_with_generate"
    answers = ["--predict_with_generate", "true", "--val_dataset", str(rows)]
    for more, line in (
        (answers, f"{told}; a checkpoint: "),
        (["--dataset_test_ratio", "0"], f"{step}; a checkpoint: "),
    ):
        assert main(["sft", *words, *more]) == 0
        assert line in capsys.readouterr().err


def test_a_stream_goes_back_to_where_it_was_when_memory_was_short(
    tiny_llama_dir: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "sft",
        *flags(model_id_or_path=tiny_llama_dir, dataset=rows, streaming="true", max_steps=4, lora_dropout=0),
    ]
    words += flags(save_steps=2, logging_steps=1, dataset_test_ratio=0, micro_batching="said", warmup_ratio=0)
    assert main([*words, *flags(output_dir=tmp_path / "same", batch_size=2, gradient_accumulation_steps=2)]) == 0
    sums, passes = SftObjective.sums, 0

    def fits_two(self: Any, model: Any, batch: Any) -> Any:
        nonlocal passes
        passes += 1
        if batch["items"] > 1 and passes in (2, 8):  # at the second step, and behind checkpoint-2
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return sums(self, model, batch)

    monkeypatch.setattr(SftObjective, "sums", fits_two)
    words += flags(auto_find_batch_size="true", output_dir=tmp_path / "short", gradient_accumulation_steps=1)
    assert main([*words, "--batch_size", "4"]) == 0
    same, short = (run_of(tmp_path / name, tiny_llama_dir) for name in ("same", "short"))
    losses = [
        [line["loss"] for line in map(json.loads, (run / "logging.jsonl").read_text().splitlines()) if "loss" in line]
        for run in (same, short)
    ]
    assert len(losses[0]) == 4 and losses[1] == pytest.approx(losses[0], rel=1e-6)
    ledgers = [(run / "data_ledger.jsonl").read_text().splitlines()[-1] for run in (same, short)]
    assert ledgers[0] == ledgers[1]
    place = [json.loads((run / "checkpoint-4" / "data_state.json").read_text())["consumed"] for run in (same, short)]
    assert place == [16, 16]


def test_a_dry_run_shows_the_rows_and_writes_nothing(
    tiny_llama_dir: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = {"role": "assistant", "content": "And it is", "weight": 0.5}
    turns = [[{"role": "user", "content": f"Say {i}"}, half] for i in range(20)]
    rows.write_text("\n".join(json.dumps({"messages": messages}) for messages in turns))
    words = flags(model_id_or_path=tiny_llama_dir, dataset=rows, output_dir=tmp_path / "output", batch_size=2)
    assert main(["sft", *words, "--dry_run"]) == 0
    said = capsys.readouterr().out
    for part in (" it ", "trained", "· 0.5\n", "steps      2", "20 kept", "memory", "disk", "parameters 3,2"):
        assert part in said
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--optim", "adamw_torhc"], "did you mean adamw_torch"),
        (["--resume_from_checkpoint", "."], "is not a checkpoint"),
        (["--output_dir", "/proc/nowhere"], "cannot be written to"),
        (["--system", "x", "--template_type", "qwne"], "qwen"),
    ],
)
def test_mistakes_end_before_the_weights_are_loaded(
    words: list[str], said: str, tiny_llama_dir: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(model_id_or_path=tiny_llama_dir, dataset=rows, output_dir=tmp_path / "output")
    assert main(["sft", *given, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Params" not in error


@pytest.mark.parametrize("road", [["--streaming", "true", "--max_steps", "3"], ["--lazy_tokenize", "true"]])
def test_a_dry_run_works_where_lengths_are_not_known(
    road: list[str], tiny_llama_dir: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = flags(model_id_or_path=tiny_llama_dir, dataset=rows, output_dir=tmp_path / "output", batch_size=2)
    assert main(["sft", *words, *road, "--dry_run"]) == 0
    assert "steps " in capsys.readouterr().out


def test_a_choice_of_prompts_is_told_where_it_is_made(
    tiny_llama_dir: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "does not write what the tokenizer's chat template does"
    words = flags(model_id_or_path=tiny_llama_dir, dataset=rows, output_dir=tmp_path, max_steps=1, report_to="none")
    assert main(["pt", *words, "--dry_run", "true"]) == 0 and told not in capsys.readouterr().err
    assert main(["sft", *words, "--template_type", "llama3"]) == 0 and told in capsys.readouterr().err
    checkpoint = run_of(tmp_path, tiny_llama_dir) / "checkpoint-1"
    questions = flags(val_dataset=rows, show_dataset_sample=1, max_new_tokens=1, system="Be short.")
    assert main(["infer", "--ckpt_dir", str(checkpoint), *questions]) == 0 and told not in capsys.readouterr().err


def test_versions_that_nobody_has_tried_are_named(
    tiny_llama_dir: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("swift.core.installation.requires", lambda _: ["transformers<1,>=0.5", "torch>=2"])
    words = flags(model_id_or_path=tiny_llama_dir, dataset=rows, output_dir=tmp_path / "output", max_steps=1)
    assert main(["sft", *words]) == 0
    told = capsys.readouterr().err
    assert "is outside the tested range >=0.5,<1: pip install 'transformers>=0.5,<1'" in told
    assert told.count("outside the tested range") == 1
    report = (run_of(tmp_path / "output", tiny_llama_dir) / "report.html").read_text(encoding="utf-8")
    assert "outside the tested range" in report
