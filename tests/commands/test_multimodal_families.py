"""Every multimodal family through `swift sft` and `swift infer`: the prompts, losses and answers of transformers."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.commands.test_multimodal import noise
from tests.fixtures.tiny_multimodal import write_tiny

from swift.catalog import load_catalog
from swift.cli import main

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    # GLM-4V's own processor multiplies a text by a tensor.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]
PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
KINDS = {
    "deepseek_vl": ("DeepseekVLProcessor", "<image_placeholder>"),
    "gemma3": ("Gemma3Processor", "<start_of_image>"),
    "glm4v": ("Glm4vProcessor", "<|begin_of_image|><|image|><|end_of_image|>"),
    "got_ocr2": ("GotOcr2Processor", "<image>"),
    "idefics3": ("Idefics3Processor", "<image>"),
    "internvl": ("InternVLProcessor", "<IMG_CONTEXT>\n"),
    "janus": ("JanusProcessor", "<image_placeholder>"),
    "llava": ("LlavaProcessor", "<image>\n"),
    "llava_next": ("LlavaNextProcessor", "<image>\n"),
    "llava_next_video": ("LlavaNextVideoProcessor", "<image>\n"),
    "llava_onevision": ("LlavaOnevisionProcessor", "<image>\n"),
    "mllama": ("MllamaProcessor", "<|image|>"),
    "ovis2": ("Ovis2Processor", "<image>\n"),
    "paligemma": ("PaliGemmaProcessor", "<image>"),
    "pixtral": ("LlavaProcessor", "<image>"),  # its own needs torchvision
    "qwen2_vl": ("Qwen2VLProcessor", "<|vision_start|><|image_pad|><|vision_end|>"),
    "qwen2_5_vl": ("Qwen2_5_VLProcessor", "<|vision_start|><|image_pad|><|vision_end|>"),
    "qwen3_vl": ("Qwen3VLProcessor", "<|vision_start|><|image_pad|><|vision_end|>"),
    "smolvlm": ("Idefics3Processor", "<image>"),  # its own needs a package to write numbers in words
}
"""The processor of transformers that tells what a prompt is, and what stands for an image in the text it is given."""
ALONE = {"paligemma": "<image>" * 4 + "<bos>", "got_ocr2": f"<img>{'<imgpad>' * 4}</img>\n", "pixtral": ""}
TOKENS = 8


class Reference:
    """transformers with its own processor, on the rows of a file."""

    def __init__(self, kind: str, folder: Path, rows: Path, adapter: Path | None = None):
        from peft import PeftModel
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        self.kind, self.rows = kind, rows
        base: Any = AutoModelForImageTextToText.from_pretrained(folder)
        self.model: Any = (base if adapter is None else PeftModel.from_pretrained(base, adapter)).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        images = AutoImageProcessor.from_pretrained(folder, backend="pil")
        name, self.tag = KINDS[kind]
        own: Any = getattr(importlib.import_module("transformers"), name)
        # What it checks of a processor of videos needs torchvision.
        cls = type(name, (own,), {"check_argument_for_proper_class": lambda *_: None})
        config = base.config
        lengths = {"gemma3": 4, "internvl": 1, "ovis2": 4}
        length = {"image_seq_length": lengths[kind]} if kind in lengths else {}
        if "idefics3" in name.lower():
            length = {"image_seq_len": 1}
        length |= {"num_image_tokens": 4} if kind in ("deepseek_vl", "janus") else {}
        if name.startswith("Llava"):
            length = {"patch_size": 14, "vision_feature_select_strategy": config.vision_feature_select_strategy}
            length |= {"num_image_tokens": 4, "vision_aspect_ratio": "anyres_max_2"} if "One" in name else {}
            length |= {} if "One" in name else {"num_additional_image_tokens": 1}
        self.processor: Any = cls(image_processor=images, tokenizer=self.tokenizer, **length)

    def inputs(self, row: dict[str, Any]) -> dict[str, Any]:
        """The prompt of a row as the processor makes it."""
        query, files = row["query"], row.get("images", [])
        if "<image>" not in query:
            query = "<image>" * len(files) + query
        text = PROMPT.format(query.replace("<image>", self.tag))
        opened = [Image.open(file).convert("RGB") for file in files]
        if self.kind in ALONE:
            return self._alone(text, opened)
        if not opened:
            return dict(self.tokenizer([text], return_tensors="pt", add_special_tokens=False))
        given = self.processor(text=[text], images=[opened], return_tensors="pt", add_special_tokens=False)
        return {name: value for name, value in given.items() if name != "labels"}

    def _alone(self, text: str, images: list[Image.Image]) -> dict[str, Any]:
        """For processors that have a prompt of their own, and make nothing of another."""
        pixels = dict(self.processor.image_processor(images, return_tensors="pt")) if images else {}
        pixels.pop("num_patches", None)
        for height, width in pixels["image_sizes"].tolist() if self.kind == "pixtral" and images else ():
            rows = ["[IMG]" * (width // 14)] * (height // 14)
            text = text.replace("<image>", "[IMG_BREAK]".join(rows) + "[IMG_END]", 1)
        text = text.replace("<image>", ALONE[self.kind])
        given = dict(self.tokenizer([text], return_tensors="pt", add_special_tokens=False))
        kinds = {"token_type_ids": torch.zeros_like(given["input_ids"])} if self.kind == "paligemma" else {}
        return {**given, **pixels, **kinds}

    def loss(self) -> float:
        """The mean over all trained tokens."""
        total, count = 0.0, 0
        for row in self._rows():
            given = self.inputs(row)
            answer = self.tokenizer([f"{row['response']}<|im_end|>"], return_tensors="pt", add_special_tokens=False)
            ids, prompt = torch.cat([given["input_ids"], answer["input_ids"]], 1), given["input_ids"].shape[1]
            for name in ("attention_mask", "mm_token_type_ids", "token_type_ids"):
                if name in given:
                    fill = 1 if name == "attention_mask" or self.kind == "paligemma" else 0
                    added = torch.full_like(answer["input_ids"], fill)
                    given[name] = torch.cat([given[name], added], 1)
            if "cross_attention_mask" in given:
                mask = given["cross_attention_mask"]
                last = mask[:, -1:].expand(-1, ids.shape[1] - prompt, -1, -1)
                given["cross_attention_mask"] = torch.cat([mask, last], 1)
            with torch.no_grad():
                logits = self.model(**{**given, "input_ids": ids}).logits[0, prompt - 1 : -1]
            total += float(torch.nn.functional.cross_entropy(logits, answer["input_ids"][0], reduction="sum"))
            count += answer["input_ids"].shape[1]
        return total / count

    def answers(self) -> list[str]:
        """What `generate` says to each row."""
        answers = []
        for row in self._rows():
            given = self.inputs(row)
            output = self.model.generate(
                **given,
                max_new_tokens=TOKENS,
                do_sample=False,
                eos_token_id=self.tokenizer.convert_tokens_to_ids("<|im_end|>"),
                pad_token_id=2,
            )
            answers.append(self.tokenizer.decode(output[0, given["input_ids"].shape[1] :], skip_special_tokens=True))
        return answers

    def _rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.rows.read_text().splitlines()]


def write_rows(kind: str, folder: Path) -> Path:
    """Rows with one image of different shapes, and, where the family takes them, with two and with none."""
    one, two = noise(folder / "one.png", 60, 100), noise(folder / "two.png", 112, 56)
    rows: list[dict[str, Any]] = [
        {"query": "See <image> there", "response": "red", "images": [str(one)]},
        {"query": "What?", "response": "blue", "images": [str(two)]},
    ]
    if kind != "paligemma":
        rows.append({"query": "<image>or<image>?", "response": "both", "images": [str(one), str(two)]})
        rows.append({"query": "Just text", "response": "fine"})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_family_that_the_list_of_models_calls_trained_here_is() -> None:
    catalog = load_catalog()
    marked = {catalog.family(model) for model in catalog.models.values() if model.multimodal and not model.quant}
    assert marked - {None} <= {*KINDS, "qwen2_audio", "florence2"}  # which have files of their own, beside this one


QUICK = ("mllama",)


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k in QUICK else pytest.mark.slow) for k in KINDS])
def test_prompts_losses_and_answers_are_those_of_transformers(
    kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_tiny(kind, tmp_path / "tiny", smollm2_tokenizer_dir), write_rows(kind, tmp_path)
    words = ["--model_id_or_path", str(model), "--template_type", "qwen2-vl", "--dataset", str(rows)]
    words += ["--output_dir", str(tmp_path / "output"), "--add_output_dir_suffix", "false", "--max_steps", "1"]
    together = kind != "mllama"  # in which rows of a batch see each other's padding
    words += ["--gradient_accumulation_steps", "1" if together else "4", "--batch_size", "4" if together else "1"]
    words += ["--warmup_ratio", "0", "--lora_rank", "4"]
    words += ["--dataset_test_ratio", "0", "--learning_rate", "0.0005", "--save_only_model", "true"]
    assert main(["sft", *words]) == 0
    assert "trained modules: 0 of the tower, " in capsys.readouterr().err
    losses = [json.loads(line) for line in (tmp_path / "output" / "logging.jsonl").read_text().splitlines()]
    assert losses[0]["loss"] == pytest.approx(Reference(kind, model, rows).loss(), abs=1e-4)
    checkpoint = tmp_path / "output" / "checkpoint-1"
    expected = Reference(kind, model, rows, checkpoint).answers()
    assert len(set(expected)) > 1
    for more in ([], ["--merge_lora", "true"]):
        results = tmp_path / f"results-{len(more)}"
        words = ["--ckpt_dir", str(checkpoint), "--max_new_tokens", str(TOKENS), "--temperature", "0", *more]
        words += ["--val_dataset", str(rows), "--result_dir", str(results), "--load_dataset_config", "false"]
        assert main(["infer", *words]) == 0
        (path,) = results.glob("*.jsonl")
        assert [json.loads(line)["response"] for line in path.read_text().splitlines()] == expected
