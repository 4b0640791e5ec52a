"""Every multimodal family on rows and requests whose images cannot be used: each is named, and the others go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.commands.test_multimodal import noise
from tests.commands.test_multimodal_answers import data_url, served
from tests.commands.test_multimodal_families import KINDS
from tests.data.test_image_files import png
from tests.fixtures.tiny_multimodal import write_tiny

from swift.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
TAG = {"query": "<image>?", "response": "x"}
BAD: list[tuple[dict[str, Any], str]] = [
    ({**TAG, "images": ["text.png"]}, "broken image"),
    ({**TAG, "images": ["gone.png"]}, "missing file"),
    ({**TAG, "images": ["zero.png"]}, "broken image"),
    ({**TAG, "images": ["empty.png"]}, "broken image"),
    ({**TAG, "images": ["cut.jpg"]}, "broken image"),
    ({**TAG, "images": ["folder"]}, "missing file"),
    ({**TAG, "images": []}, "the text has 1 <image> and the row 0 images"),
    ({**TAG, "query": "<image><image>?", "images": ["good.png"]}, "the text has 2 <image> and the row 1 images"),
    ({**TAG, "images": ["good.png"], "audios": ["text.png"]}, "the row has audios, which this model does not take"),
]
REFUSED = {
    "text.png": "broken image",
    "gone.png": "no such file",
    "zero.png": "broken image",
    "empty.png": "broken image",
    "cut.jpg": "broken image",
    "folder": "no such file",
    "data:image/png;base64,AAAA": "broken image",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_used_is_named_and_the_others_are_trained_and_answered(
    kind: str, tmp_path: Path, smollm2_tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_tiny(kind, tmp_path / "tiny", smollm2_tokenizer_dir), tmp_path / "rows.jsonl"
    write_files(tmp_path)
    good = {**TAG, "images": ["good.png"]}
    rows.write_text("".join(json.dumps(row) + "\n" for row in [*(row for row, _ in BAD), good, good]))
    words = ["--model_id_or_path", str(model), "--template_type", "qwen2-vl", "--dataset", str(rows)]
    words += ["--output_dir", str(tmp_path / "output"), "--add_output_dir_suffix", "false", "--max_steps", "1"]
    words += ["--dataset_test_ratio", "0", "--max_drop_ratio", "1", "--batch_size", "1"]
    assert main(["sft", *words, "--gradient_accumulation_steps", "1"]) == 0
    assert f"{len(BAD) + 2} rows: 2 kept, 0 truncated, {len(BAD)} dropped" in capsys.readouterr().err
    ledger = (tmp_path / "output" / "data_ledger.jsonl").read_text().splitlines()
    for number, (row, reason) in enumerate(BAD, 1):
        line = next(line for line in ledger if f'"line": {number},' in line)
        assert reason in line, row
        assert all(name in line for name in row["images"] if reason in ("broken image", "missing file")), line

    answer = ["--ckpt_dir", str(tmp_path / "output" / "checkpoint-1"), "--max_new_tokens", "2", "--temperature", "0"]
    results = ["--val_dataset", str(rows), "--result_dir", str(tmp_path / "results"), "--load_dataset_config", "false"]
    assert main(["infer", *answer, *results]) == 0
    (path,) = (tmp_path / "results").glob("*.jsonl")
    answers = [json.loads(line) for line in path.read_text().splitlines()]
    assert [each["response"] is None for each in answers] == [True] * len(BAD) + [False] * 2
    for each, (row, reason) in zip(answers, BAD, strict=False):
        assert reason in each["error"], row

    with served(answer, tmp_path) as ask:
        for source, reason in REFUSED.items():
            response = ask([{"role": "user", "content": "<image>?"}], images=[source])
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (400, "images[0]"), (source, error)
            assert reason in error["message"].lower(), (source, error)
        for text, images in (("<image>?", []), ("<image><image>?", ["good.png"])):
            assert ask([{"role": "user", "content": text}], images=images).status_code == 400, text
        sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
        heard = ask([{"role": "user", "content": [sound]}])
        assert heard.status_code == 400 and heard.json()["error"]["param"] == "messages[0].content[0].input_audio"
        response = ask(
            [{"role": "user", "content": "<image>?"}], images=[data_url(tmp_path / "good.png")], max_tokens=2
        )
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["message"]["content"] == answers[-1]["response"]


def write_files(folder: Path) -> None:
    """One image that is whole, and those of BAD."""
    noise(folder / "good.png", 60, 100)
    noise(folder / "whole.jpg", 200, 200)
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:2000])
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "zero.png").write_bytes(png(0, 40))
    (folder / "folder").mkdir()
