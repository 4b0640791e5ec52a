"""Rows with images through `swift sft`, on tiny LLaVA and Qwen2-VL models."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.data.test_image_files import png
from tests.fixtures.tiny_multimodal import write_llava, write_qwen2_vl

from swift.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "data" / "shapes.jsonl"
Write = Callable[[Path, Path], Path]
FAMILIES = {
    "llava1_5-7b-instruct": (write_llava, "<s>USER: {}\nASSISTANT:", "</s>"),
    "qwen2-vl-2b-instruct": (
        write_qwen2_vl,
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_end|>",
    ),
}

VIDEO_FAULTS = {"llava1_5-7b-instruct": "the row has videos", "qwen2-vl-2b-instruct": "broken video"}


@pytest.fixture(scope="module", params=FAMILIES)
def model_type(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(model_type: str, tmp_path_factory: pytest.TempPathFactory, smollm2_tokenizer_dir: Path) -> Path:
    return FAMILIES[model_type][0](tmp_path_factory.mktemp("models") / "tiny", smollm2_tokenizer_dir)


def noise(path: Path, width: int, height: int) -> Path:
    Image.effect_noise((width, height), 90).convert("RGB").save(path)
    return path


def write_rows(folder: Path) -> Path:
    """Four good rows: with a tag, without one, with two images, with none."""
    one, two = noise(folder / "one.png", 60, 100), noise(folder / "two.png", 112, 56)
    link = "data:image/png;base64," + base64.b64encode(two.read_bytes()).decode()
    rows = [
        {"query": "See <image> there", "response": "red", "images": [str(one)]},
        {"query": "What?", "response": "blue", "images": ["two.png"]},
        {"query": "<image>or<image>?", "response": "both", "images": [str(one), link]},
        {"query": "Just text", "response": "fine"},
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(model_type: str, model: Path, rows: Path, output: Path, *more: str) -> Path:
    words = ["--model_type", model_type, "--model_id_or_path", str(model), "--dataset", str(rows)]
    words += ["--output_dir", str(output), "--add_output_dir_suffix", "false", "--dataset_test_ratio", "0"]
    words += ["--gradient_accumulation_steps", "1", "--batch_size", "4", "--warmup_ratio", "0", *more]
    assert main(["sft", *words]) == 0
    return output


def expected_loss(model_type: str, folder: Path, rows: Path) -> float:
    """Mean loss over the answers, one row at a time by transformers alone."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    _, prompt, end = FAMILIES[model_type]
    losses, count = 0.0, 0
    for line in rows.read_text().splitlines():
        row = json.loads(line)
        names = row.get("images", [])
        files = ["two.png" if name.startswith("data:") else name for name in names]
        images = [Image.open(rows.parent / name) for name in files]
        inputs: dict[str, Any] = dict(processor(images, return_tensors="pt")) if images else {}
        if "qwen" in model_type:
            sizes = [int(grid.prod()) // 4 for grid in inputs.get("image_grid_thw", [])]
            texts = [f"<|vision_start|>{'<|image_pad|>' * size}<|vision_end|>" for size in sizes]
        else:
            texts = ["<image>" * 4 + "\n"] * len(images)
        query = row["query"] if "<image>" in row["query"] else "<image>" * len(images) + row["query"]
        pieces = query.split("<image>")
        query = "".join(piece + text for piece, text in zip(pieces, [*texts, ""], strict=True))
        before = tokenizer(prompt.format(query), add_special_tokens=False)["input_ids"]
        answer = tokenizer(row["response"] + end, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([before + answer])
        if "qwen" in model_type and images:
            inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).long()
        with torch.no_grad():
            logits = model(input_ids=ids, **inputs).logits[0, len(before) - 1 : -1]
        losses += float(torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        count += len(answer)
    return losses / count


def test_trains_as_transformers_alone_resumes_and_merges(
    model_type: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    rows = write_rows(tmp_path)
    output = train(model_type, model, rows, tmp_path / "output", "--max_steps", "2", "--save_steps", "1")
    printed = capsys.readouterr().err
    assert "trained modules: 0 of the tower, 2 of the projector, 14 of the decoder" in printed
    losses = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
    assert losses[0]["loss"] == pytest.approx(expected_loss(model_type, model, rows), abs=1e-4)
    last = output / "checkpoint-2"
    assert (last / "preprocessor_config.json").is_file()
    adapted = load_file(last / "adapter_model.safetensors")
    assert all("language_model" in name or "projector" in name or "merger" in name for name in adapted)

    again = train(
        *(model_type, model, rows, tmp_path / "again", "--max_steps", "2"),
        *("--resume_from_checkpoint", str(output / "checkpoint-1")),
    )
    whole = load_file(last / "adapter_model.safetensors")
    resumed = load_file(again / "checkpoint-2" / "adapter_model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    assert main(["merge-lora", "--ckpt_dir", str(last)]) == 0
    merged = output / "checkpoint-2-merged"
    assert (merged / "preprocessor_config.json").is_file()
    train(model_type, merged, rows, tmp_path / "from-merged", "--max_steps", "1")


def test_longlora_attends_inside_groups_of_the_rows_alone(
    model_type: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One group holds a whole row where --max_length is four times as long; pictures are seen as ever."""
    rows = write_rows(tmp_path)
    shown = expected_loss(model_type, model, rows)

    def loss(longest: int) -> float:
        flags = ("--sft_type", "longlora", "--max_length", str(longest), "--max_steps", "1")
        run = train(model_type, model, rows, tmp_path / str(longest), *flags)
        return float(json.loads((run / "logging.jsonl").read_text().splitlines()[0])["loss"])

    assert loss(2048) == pytest.approx(shown, abs=1e-4)
    assert abs(loss(64) - shown) > 1e-3
    assert capsys.readouterr().err.count("4 rows: 4 kept, 0 truncated, 0 dropped") == 2


def test_rows_that_cannot_be_used_are_named(
    model_type: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path)
    noise(tmp_path / "whole.jpg", 200, 200)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    one = {"query": "<image>?", "response": "x"}
    bad: list[tuple[dict[str, Any], str]] = [
        ({**one, "images": ["gone.png"]}, "missing file"),
        ({**one, "images": ["cut.jpg"]}, "image file is truncated"),
        ({**one, "images": ["text.png"]}, "broken image"),
        ({**one, "images": ["empty.png"]}, "broken image"),
        ({**one, "images": ["data:image/png;base64,%%%"]}, "broken image"),
        ({**one, "query": "<image><image>", "images": ["one.png"]}, "the text has 2 <image> and the row 1 images"),
        ({**one, "images": []}, "the text has 1 <image> and the row 0 images"),
        ({**one, "images": ["one.png"], "videos": ["text.png"]}, VIDEO_FAULTS[model_type]),
        (
            {**one, "images": ["one.png"], "objects": [{"caption": "a", "bbox": [1, 2]}], "response": "<bbox>"},
            "wrong object",
        ),
        ({"query": "<image>" + "word " * 80, "response": "x", "images": ["one.png"]}, "too long"),
    ]
    with rows.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row, _ in bad)
    more = ("--max_length", "70", "--truncation_strategy", "truncation_left", "--max_drop_ratio", "1")
    train(model_type, model, rows, tmp_path / "output", *more)
    assert "14 rows: 4 kept, 0 truncated, 10 dropped" in capsys.readouterr().err
    ledger = (tmp_path / "output" / "data_ledger.jsonl").read_text()
    for number, (_, reason) in enumerate(bad, 5):
        line = next(line for line in ledger.splitlines() if f'"line": {number},' in line)
        assert reason in line


def test_an_image_that_breaks_only_when_decoded_costs_its_row_and_not_the_run(
    model_type: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path)
    # Its head and its checksums are those of a whole image; there are no pixels in it.
    (tmp_path / "hollow.png").write_bytes(png(60, 60))
    row = {"query": "<image>?", "response": "x", "images": ["hollow.png"]}
    rows.write_text(json.dumps(row) + "\n" + rows.read_text())
    train(model_type, model, rows, tmp_path / "output", "--batch_size", "1", "--max_steps", "5")
    printed = capsys.readouterr().err
    assert "5 rows: 5 kept" in printed
    assert f"{rows}:1" in printed and "the row behind it is trained instead" in printed
    assert (tmp_path / "output" / "checkpoint-5").is_dir()
    *_, entered, totals = (tmp_path / "output" / "data_ledger.jsonl").read_text().splitlines()
    assert json.loads(entered) | {"line": 1, "status": "dropped", "reason": "broken image"} == json.loads(entered)
    assert {"rows": 5, "kept": 4, "dropped": 1, "reasons": {"broken image": 1}}.items() <= json.loads(totals)[
        "summary"
    ].items()


@pytest.mark.parametrize("mode", [[], ["--packing", "true"], ["--streaming", "true"]])
def test_a_run_whose_images_all_break_when_decoded_ends_with_one_message(
    mode: list[str], tmp_path: Path, smollm2_tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = FAMILIES["qwen2-vl-2b-instruct"][0](tmp_path / "tiny", smollm2_tokenizer_dir)
    (tmp_path / "hollow.png").write_bytes(png(60, 60))
    rows, row = tmp_path / "rows.jsonl", {"query": "<image>?", "response": "x", "images": ["hollow.png"]}
    rows.write_text(f"{json.dumps(row)}\n" * 3)
    words = ["--model_type", "qwen2-vl-2b-instruct", "--model_id_or_path", str(model), "--dataset", str(rows)]
    words += ["--output_dir", str(tmp_path / "output"), "--dataset_test_ratio", "0", "--max_steps", "2"]
    assert main(["sft", *words, *mode, "--max_length", "256"]) == 2
    error = capsys.readouterr().err.rpartition("error: ")[2]
    what = "no row can be used" if "--streaming" in mode else "no row has media that can be decoded"
    assert error.startswith(what) and "hollow.png" in error and f"{rows}:" in error and "next: mend" in error


def test_a_dry_run_shows_an_image_as_one_line(
    model_type: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    write_rows(tmp_path)
    rows.write_text(rows.read_text().splitlines()[0] + "\n")
    train(model_type, model, rows, tmp_path / "output", "--dry_run", "true")
    shown = "".join(capsys.readouterr())
    assert f"<image: 60x100, {4 if 'llava' in model_type else 8} tokens>" in shown
    assert not (tmp_path / "output").exists()


def test_the_tower_is_frozen_or_trained_as_the_flags_say(
    model_type: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path)
    ways = {
        ("--sft_type", "full", "--freeze_vit", "true"): False,
        ("--target_modules", "ALL", "--freeze_vit", "false", "--vit_use_gc", "false"): True,
        ("--modules_to_save", "merger" if "qwen" in model_type else "multi_modal_projector"): False,
    }
    for number, (flags, trained) in enumerate(ways.items()):
        train(model_type, model, rows, tmp_path / str(number), "--max_steps", "1", "--eval_steps", "1", *flags)
        line = next(line for line in capsys.readouterr().err.splitlines() if "trained modules: " in line)
        assert ("0 of the tower" not in line) == trained, (flags, line)


def test_what_does_not_count_is_said_in_one_line(
    model_type: str, model: Path, tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path)
    words = ["sft", "--model_id_or_path", str(model), "--model_type", model_type, "--dataset", str(rows)]
    words += ["--output_dir", str(tmp_path / "output")]
    assert main([*words, "--dry_run", "true", "--preprocess_num_proc", "2"]) == 0
    assert "does not read --preprocess_num_proc" in capsys.readouterr().err
    assert main(["sft", *flags_of(tiny_llama_dir, rows, tmp_path), "--freeze_vit", "true"]) == 2
    assert "this model has none" in capsys.readouterr().err
    assert main(["sft", *flags_of(tiny_llama_dir, rows, tmp_path), "--rescale_image", "1000"]) == 2
    assert "this model takes none" in capsys.readouterr().err


def flags_of(model: Path, rows: Path, folder: Path) -> list[str]:
    return ["--model_id_or_path", str(model), "--dataset", str(rows), "--output_dir", str(folder / "text")]


def test_settings_of_the_image_processor_reach_it_and_stay_with_the_checkpoint(
    model_type: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_rows(tmp_path)
    rows.write_text(rows.read_text().splitlines()[0] + "\n")
    words = ["infer", "--ckpt_dir", str(tmp_path / "output" / "checkpoint-1"), "--val_dataset", str(rows)]
    words += ["--max_new_tokens", "2", "--result_dir", str(tmp_path / "results")]
    monkeypatch.setenv("HD_NUM", "4")
    if "llava" in model_type:
        assert main(["sft", *flags_of(model, rows, tmp_path), "--model_kwargs", '{"max_pixels": 9}']) == 2
        assert "max_pixels, which neither the model nor its image processor has" in capsys.readouterr().err
        return
    small = ("--model_kwargs", '{"max_pixels": 3136}')
    train(model_type, model, rows, tmp_path / "output", "--max_steps", "1", *small)
    shown = capsys.readouterr().err
    assert "<image: 60x100, 2 tokens>" in shown and "HD_NUM is set, and this model does not read it" in shown
    assert main(words) == 0
    assert "<image: 60x100, 2 tokens>" in capsys.readouterr().out
    assert main([*words, "--model_kwargs", '{"max_pixels": 6272}']) == 2
    assert "images: size is" in capsys.readouterr().err
    assert main(["merge-lora", "--ckpt_dir", str(tmp_path / "output" / "checkpoint-1")]) == 0
    merged = tmp_path / "output" / "checkpoint-1-merged"
    whole = ["--ckpt_dir", str(merged), "--merge_lora", "false"]
    assert main([*words, *whole]) == 0
    assert "<image: 60x100, 2 tokens>" in capsys.readouterr().out
    again = ["sft", *flags_of(model, rows, tmp_path), "--resume_from_checkpoint", words[2]]
    assert main([*again, "--model_kwargs", '{"max_pixels": 6272}']) == 2
    assert "images are treated otherwise" in capsys.readouterr().err
    monkeypatch.setenv("MAX_PIXELS", "3136")
    train(model_type, model, rows, tmp_path / "by-variable", "--dry_run", "true")
    assert "<image: 60x100, 2 tokens>" in "".join(capsys.readouterr())
    monkeypatch.setenv("SIZE_FACTOR", "8")  # first to 40x72, whose sides are then rounded to 28x84
    train(model_type, model, rows, tmp_path / "by-factor", "--dry_run", "true")
    assert "<image: 60x100, 3 tokens>" in "".join(capsys.readouterr())
    monkeypatch.setenv("MAX_PIXELS", "large")
    assert main(["sft", *flags_of(model, rows, tmp_path)]) == 2
    assert "MAX_PIXELS is 'large'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "own", "said"),
    [
        ("qwen2-vl-2b-instruct", {"patch_size": 16}, "cannot read what its media processor makes"),
        ("llava1_5-7b-instruct", {"do_center_crop": False}, "whose images keep their shape"),
    ],
)
def test_an_image_processor_of_another_model_is_refused(
    kind: str,
    own: dict[str, Any],
    said: str,
    tmp_path: Path,
    smollm2_tokenizer_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = FAMILIES[kind][0](tmp_path / "tiny", smollm2_tokenizer_dir)
    file = model / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **own}))
    words = ["sft", "--model_type", kind, "--max_steps", "1", "--dataset_test_ratio", "0"]
    assert main([*words, *flags_of(model, write_rows(tmp_path), tmp_path / "output")]) == 2
    assert said in capsys.readouterr().err


def test_a_type_with_code_of_its_own_is_refused_before_anything_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sft", "--model_type", "internvl2-2b", "--dataset", str(write_rows(tmp_path))]) == 2
    assert "OpenGVLab/InternVL3" in capsys.readouterr().err


def test_the_rows_of_the_documentation(
    model_type: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"--model_type {model_type} --model_id_or_path {model} --dataset {EXAMPLE} --output_dir {tmp_path}"
    assert main(["sft", *words.split(), "--dry_run"]) == 0
    assert "16 rows: 16 kept" in capsys.readouterr().err
