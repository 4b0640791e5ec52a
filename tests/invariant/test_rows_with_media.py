"""Rows with images, videos and sounds: end to end, packed and padded they are the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands.test_multimodal_families import write_rows as write_image_rows
from tests.commands.test_multimodal_sounds import write_rows as write_sound_rows
from tests.commands.test_multimodal_videos import write_rows as write_video_rows
from tests.fixtures.tiny_multimodal import write_tiny
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from swift.cli import main
from swift.data.image_files import ImageReader
from swift.data.sound_files import SoundReader
from swift.data.video_files import VideoReader
from swift.models.families import Readers, load_media_processor
from swift.models.families.qwen_vl import Qwen2VL
from swift.training.batches import Collate
from swift.training.rows_with_media import keep_apart
from swift.training.varlen_attention import NAME

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]
QUICK = ("qwen2_5_vl",)
IMAGES = (
    *("llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "internvl", "idefics3"),
    *("smolvlm", "paligemma", "gemma3", "deepseek_vl", "janus", "got_ocr2", "ovis2", "pixtral"),
)
SOUNDS = ("qwen2_audio", "audios")
VIDEOS = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "llava_next_video")


def logged(kind: str, folder: Path, model: Path, rows: Path, *more: str, pairs: bool = False) -> list[dict[str, Any]]:
    """Loss, gradient and evaluation of three steps, each over all rows."""
    words = ["dpo" if pairs else "sft", "--model_id_or_path", str(model), "--template_type", "qwen2-vl"]
    words += ["--dataset", str(rows)]
    words += ["--val_dataset", str(rows), "--output_dir", str(folder), "--add_output_dir_suffix", "false"]
    words += ["--batch_size", "8", "--gradient_accumulation_steps", "1", "--max_steps", "3", "--logging_steps", "1"]
    words += ["--eval_steps", "1", "--warmup_ratio", "0", "--learning_rate", "0.003", "--lora_dropout", "0"]
    words += ["--save_strategy", "no", "--lr_scheduler_type", "constant"]
    words += [] if pairs else ["--acc_strategy", "sentence"]
    assert main([*words, *more]) == 0
    lines = [json.loads(line) for line in (folder / "logging.jsonl").read_text().splitlines()]
    names = ("loss", "grad_norm", "acc", "eval_loss", "eval_acc", "logps/chosen", "logps/rejected")
    numbers = ({name: line[name] for name in names if name in line} for line in lines)
    return [each for each in numbers if each]


def assert_alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert len(one) == len(other) >= 6
    for mine, theirs in zip(one, other, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        *(pytest.param(k, "images", marks=[] if k in QUICK else pytest.mark.slow, id=k) for k in IMAGES),
        *(pytest.param(k, "videos", marks=pytest.mark.slow, id=f"{k}-videos") for k in VIDEOS),
        pytest.param("qwen2_audio", "audios", marks=pytest.mark.slow, id="qwen2_audio"),
    ],
)
def test_end_to_end_packed_and_padded_are_the_same_run(
    kind: str,
    shown: str,
    tmp_path: Path,
    smollm2_tokenizer_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = write_tiny(kind, tmp_path / "tiny", smollm2_tokenizer_dir)
    if shown == "images":
        rows = write_image_rows(kind, tmp_path)
    else:
        rows = write_video_rows(kind, tmp_path) if shown == "videos" else write_sound_rows(tmp_path)
    flat = logged(kind, tmp_path / "flat", model, rows)
    assert "rows lie end to end" in capsys.readouterr().err
    length = 200 if shown == "images" else 1200
    packed = logged(kind, tmp_path / "packed", model, rows, "--packing", "true", "--max_length", str(length))
    printed = capsys.readouterr().err
    assert "train: packed" in printed and "rows lie end to end" in printed
    monkeypatch.setattr("swift.training.train.keep_apart", lambda *_: False)
    padded = logged(kind, tmp_path / "padded", model, rows)
    assert "batches are padded" in capsys.readouterr().err
    assert_alike(flat, padded)
    assert_alike(packed, padded)


def write_pairs(rows: Path) -> Path:
    """The rows as pairs of answers, of which the worse ones begin as the better ones or otherwise."""
    path = rows.with_name("pairs.jsonl")
    read = [json.loads(line) for line in rows.read_text().splitlines()]
    for number, row in enumerate(read):
        row["rejected_response"] = f"{row['response']} perhaps" if number % 2 else "no"
    path.write_text("".join(json.dumps(row) + "\n" for row in read))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "shown"),
    [*((kind, "images") for kind in (*IMAGES, "mllama")), *((kind, "videos") for kind in VIDEOS), SOUNDS],
)
def test_pairs_that_share_what_they_show_are_those_apart_and_padded(
    kind: str,
    shown: str,
    tmp_path: Path,
    smollm2_tokenizer_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = write_tiny(kind, tmp_path / "tiny", smollm2_tokenizer_dir)
    if shown == "images":
        rows = write_image_rows(kind, tmp_path)
    else:
        rows = write_video_rows(kind, tmp_path) if shown == "videos" else write_sound_rows(tmp_path)
    pairs = write_pairs(rows)
    share = () if kind == "mllama" else ("--share_prompts", "true")
    shared = logged(kind, tmp_path / "shared", model, pairs, *share, pairs=True)
    assert ("prompts are shared" in capsys.readouterr().err) is bool(share)
    apart = logged(kind, tmp_path / "apart", model, pairs, "--share_prompts", "false", pairs=True)
    assert_alike(shared, apart)
    monkeypatch.setattr("swift.training.train.keep_apart", lambda *_: False)
    assert_alike(shared, logged(kind, tmp_path / "padded", model, pairs, pairs=True))


def trial(kind: str, folder: Path) -> tuple[Any, Collate]:
    """A tiny model and its collator of flat rows."""
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    image = ImageReader()
    images = load_media_processor(config, folder, tokenizer, Readers(image, VideoReader(image), SoundReader()), {})
    return model, Collate(True, 2, images, model)


def test_a_model_whose_rows_reach_into_each_other_stays_as_it_was(
    tmp_path: Path, smollm2_tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, collate = trial("qwen2_vl", write_tiny("qwen2_vl", tmp_path / "tiny", smollm2_tokenizer_dir))
    coordinates: Any = Qwen2VL.positions
    for wrong in (
        lambda *_: None,  # tokens one by one, as in text
        lambda *given: torch.zeros_like(coordinates(*given)),
        lambda *given: coordinates(*given).flip(0),
    ):
        monkeypatch.setattr(Qwen2VL, "positions", wrong)
        assert not keep_apart(model, collate)
        assert model.config.get_text_config()._attn_implementation == "sdpa"
    monkeypatch.undo()
    assert keep_apart(model, collate)
    assert model.config.get_text_config()._attn_implementation == NAME
    assert model.config.vision_config._attn_implementation == "sdpa"


def test_llama_vision_is_padded(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    model, collate = trial("mllama", write_tiny("mllama", tmp_path / "tiny", smollm2_tokenizer_dir))
    assert not keep_apart(model, collate)
    assert model.config.get_text_config()._attn_implementation == "sdpa"
