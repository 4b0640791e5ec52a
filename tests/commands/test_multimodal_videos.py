"""Rows with videos through `swift sft` and `swift infer`: the frames of qwen_vl_utils, the answers of transformers."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.commands.test_multimodal import noise
from tests.commands.test_multimodal_families import TOKENS, Reference
from tests.fixtures.tiny_multimodal import write_tiny
from tests.fixtures.videos import write_video

from swift.cli import main

av = pytest.importorskip("av")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
FRAMES, FPS = 22, 8
"""By the rule of qwen_vl_utils four of them are shown: 22 / 8 * 2 = 5.5, and an even number."""


def decoded(path: Path) -> list[Image.Image]:
    with av.open(str(path)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


class VideoReference(Reference):
    """transformers with frames that are chosen, resized and patched here."""

    def inputs(self, row: dict[str, Any]) -> dict[str, Any]:
        """The prompt of a row whose videos stand before its images."""
        if "videos" not in row:
            return super().inputs(row)
        texts, videos = [], []
        for source in row["videos"]:
            frames = [Image.open(one) for one in source] if isinstance(source, list) else decoded(Path(source))
            frames, seconds = self._chosen(frames, listed=isinstance(source, list))
            text, given = self._video(frames, seconds)
            texts.append(text)
            videos.append(given)
        query = row["query"] if "<video>" in row["query"] else "<video>" * len(texts) + row["query"]
        given = super().inputs({**row, "query": query.replace("<video>", "\0")})
        ids = self._ids(given["input_ids"], texts)
        joined = {name: torch.cat([one[name] for one in videos]) for name in videos[0]}
        if self.kind == "internvl" and "images" in row:
            pair = [joined["pixel_values"], given["pixel_values"]]
            joined["pixel_values"] = torch.cat(pair if query.index("<video>") < query.index("<image>") else pair[::-1])
        if "mm_token_type_ids" in given or self.kind.startswith("qwen"):
            image, video = self.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
            kinds = (ids == image).long() + 2 * (ids == video).long()
            joined["mm_token_type_ids"] = kinds
        return {**given, **joined, "input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def _ids(self, ids: torch.Tensor, texts: list[str]) -> torch.Tensor:
        """The ids with the texts of videos in the place of NUL, as one text, by the tokenizer."""
        text = self.tokenizer.decode(ids[0])
        for one in texts:
            text = text.replace("\0", one, 1)
        return self.tokenizer([text], return_tensors="pt", add_special_tokens=False)["input_ids"]

    def _chosen(self, frames: list[Image.Image], *, listed: bool) -> tuple[list[Image.Image], list[float]]:
        total = len(frames)
        if self.kind == "internvl":
            numbers = [int(total / 16 + at * total / 8) for at in range(8)]
        elif self.kind.startswith("llava"):
            numbers = [int(at * total / 16) for at in range(16)]
        elif listed:
            return frames, [at / 2 for at in range(total)]
        else:
            numbers = torch.linspace(0, total - 1, 4).round().long().tolist()
        return [frames[number] for number in numbers], [number / FPS for number in numbers]

    def _video(self, frames: list[Image.Image], seconds: list[float]) -> tuple[str, dict[str, Any]]:
        images = self.processor.image_processor
        if self.kind == "internvl":
            pixels = images(frames, crop_to_patches=False, return_tensors="pt")["pixel_values"]
            lines = [f"Frame{at}: <img><IMG_CONTEXT></img>\n" for at in range(1, len(frames) + 1)]
            return "".join(lines), {"pixel_values": pixels}
        if self.kind == "llava_onevision":
            resized = [frame.resize((28, 28), Image.Resampling.BICUBIC) for frame in frames]
            values = torch.stack([_values(frame, images) for frame in resized])
            return "<|video_pad|>" * (len(frames) + 1) + "\n", {"pixel_values_videos": values[None]}
        if self.kind == "llava_next_video":  # shorter side to 28, and 28x28 from the middle, as its own class does
            resized = [frame.resize((42, 28) if frame.width > frame.height else (28, 28), 3) for frame in frames]
            squares = [frame.crop((place := (frame.width - 28) // 2, 0, place + 28, 28)) for frame in resized]
            values = torch.stack([_values(frame, images) for frame in squares])
            return "<|video_pad|>" * len(frames) + "\n", {"pixel_values_videos": values[None]}
        return self._qwen(frames, seconds, images)

    def _qwen(self, frames: list[Image.Image], seconds: list[float], images: Any) -> tuple[str, dict[str, Any]]:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        (width, height), patch, count = frames[0].size, images.patch_size, len(frames)
        if self.kind == "qwen3_vl":
            # All frames together have 131072 to 786432 pixels; 4 and 5 frames of 60x40 have less.
            growth = (128 * 32 * 32 / (count * height * width)) ** 0.5
            size = ceil(height * growth / 32) * 32, ceil(width * growth / 32) * 32
        else:
            size = smart_resize(height, width, 28, 128 * 28 * 28, 768 * 28 * 28)
        resized = [frame.resize((size[1], size[0]), Image.Resampling.BICUBIC) for frame in frames]
        pixels = torch.stack([_values(frame, images) for frame in resized])
        pixels = torch.cat([pixels, *[pixels[-1:]] * (count % 2)])
        grid = len(pixels) // 2, size[0] // patch, size[1] // patch
        pieces = pixels.view(grid[0], 2, 3, grid[1] // 2, 2, patch, grid[2] // 2, 2, patch)
        patches = pieces.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).flatten(5).flatten(0, 4)
        given = {"pixel_values_videos": patches, "video_grid_thw": torch.tensor([grid])}
        tokens = "<|video_pad|>" * (grid[1] * grid[2] // 4)
        if self.kind == "qwen2_5_vl":
            length = FRAMES / FPS if seconds[1] > 0.5 else count / 2
            given["second_per_grid_ts"] = torch.tensor([2 / (count / length)])
        if self.kind != "qwen3_vl":
            return f"<|vision_start|>{tokens * grid[0]}<|vision_end|>", given
        seconds = [*seconds, *seconds[-1:] * (count % 2)]
        times = [(seconds[at] + seconds[at + 1]) / 2 for at in range(0, len(seconds), 2)]
        return "".join(f"<{time:.1f} seconds><|vision_start|>{tokens}<|vision_end|>" for time in times), given


def _values(frame: Image.Image, processor: Any) -> torch.Tensor:
    """Pixels of a frame as the model sees them, (3, height, width)."""
    values = torch.from_numpy(np.array(frame.convert("RGB"))).permute(2, 0, 1) * processor.rescale_factor
    mean, deviation = (torch.tensor(each)[:, None, None] for each in (processor.image_mean, processor.image_std))
    return ((values - mean) / deviation).float()


def write_rows(kind: str, folder: Path) -> Path:
    """A video alone, one with an image where they can be told apart, two, a data URL, a list of frames."""
    video = write_video(folder / "a.mp4", FRAMES, FPS)
    other = write_video(folder / "b.webm", FRAMES, FPS, (64, 64), codec="libvpx-vp9")
    image = noise(folder / "one.png", 60, 100)
    for number, frame in enumerate(decoded(video)[::5]):
        frame.save(folder / f"{number}.png")
    listed = [str(folder / f"{number}.png") for number in range(5)]
    rows: list[dict[str, Any]] = [
        {"query": "See <video> there", "response": "red", "videos": [str(video)]},
        {"query": "What?", "response": "blue", "videos": [str(other)]},
        {"query": "<video>or<video>?", "response": "both", "videos": [str(other), str(video)]},
        {"query": "<video> all", "response": "five", "videos": [listed]},
        {"query": "Just text", "response": "fine"},
    ]
    both: dict[str, Any] = {"response": "x", "videos": [str(video)], "images": [str(image)]}
    rows.append({"query": "<video>and<image>", **both})
    if kind == "internvl":  # whose images and videos are the same token, so their order matters
        rows.append({"query": "<image>and<video>", **both})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision", "llava_next_video", "internvl")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_answers_are_those_of_transformers(
    kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_tiny(kind, tmp_path / "tiny", smollm2_tokenizer_dir), write_rows(kind, tmp_path)
    words = ["--model_id_or_path", str(model), "--template_type", "qwen2-vl", "--dataset", str(rows)]
    words += ["--output_dir", str(tmp_path / "output"), "--add_output_dir_suffix", "false", "--max_steps", "1"]
    words += ["--gradient_accumulation_steps", "1", "--batch_size", "8", "--warmup_ratio", "0", "--lora_rank", "4"]
    words += ["--dataset_test_ratio", "0", "--learning_rate", "0.0005", "--save_only_model", "true"]
    assert main(["sft", *words]) == 0
    shown = capsys.readouterr().err
    losses = [json.loads(line) for line in (tmp_path / "output" / "logging.jsonl").read_text().splitlines()]
    assert losses[0]["loss"] == pytest.approx(VideoReference(kind, model, rows).loss(), abs=1e-4), shown
    checkpoint = tmp_path / "output" / "checkpoint-1"
    expected = VideoReference(kind, model, rows, checkpoint).answers()
    assert len(set(expected)) > 1
    assert answers(checkpoint, rows, tmp_path / "results") == expected


def answers(checkpoint: Path, rows: Path, results: Path, *more: str) -> list[str]:
    words = ["--ckpt_dir", str(checkpoint), "--max_new_tokens", str(TOKENS), "--temperature", "0", *more]
    words += ["--val_dataset", str(rows), "--result_dir", str(results), "--load_dataset_config", "false"]
    assert main(["infer", *words]) == 0
    (path,) = results.glob("*.jsonl")
    return [json.loads(line)["response"] for line in path.read_text().splitlines()]
