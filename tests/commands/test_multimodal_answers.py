"""Rows and requests with images through `swift infer` and the server: what transformers' own generate says."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from tests.commands.test_multimodal import FAMILIES, noise, train, write_rows
from tests.data.test_image_files import png
from tests.fixtures.videos import write_video

import swift
from swift.catalog import load_catalog
from swift.cli import main
from swift.core.machine import Machine
from swift.engines.factory import prepare, start
from swift.params.parse import parse
from swift.plan.infer import plan_infer
from swift.plan.serve import MediaPolicy, ServePlan
from swift.serving.server import Server, bind
from swift.serving.service import Loaded, Service

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
TOKENS = 8


class Trained:
    """A model with an adapter that has been trained a little, and rows with images to answer."""

    def __init__(self, model_type: str, folder: Path, tokenizer_dir: Path):
        self.model_type, self.folder = model_type, folder
        self.model = FAMILIES[model_type][0](folder / "tiny", tokenizer_dir)
        self.rows = write_rows(folder)
        flags = ("--max_steps", "2", "--learning_rate", "0.001", "--lora_rank", "4", "--save_only_model", "true")
        flags += ("--lora_dropout", "0")
        self.checkpoint = train(model_type, self.model, self.rows, folder / "output", *flags) / "checkpoint-2"

    def words(self, *more: str) -> list[str]:
        return ["--ckpt_dir", str(self.checkpoint), "--max_new_tokens", str(TOKENS), "--temperature", "0", *more]

    def infer(self, rows: Path, *more: str) -> list[dict[str, Any]]:
        results = self.folder / f"results-{len(list(self.folder.iterdir()))}"
        words = self.words("--val_dataset", str(rows), "--result_dir", str(results), "--load_dataset_config", "false")
        assert main(["infer", *words, *more]) == 0
        (path,) = results.glob("*.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def expected(self, rows: Path) -> list[str]:
        """The answers that transformers and PEFT give, one row at a time, cut where the model ends them."""
        from peft import PeftModel
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        base = AutoModelForImageTextToText.from_pretrained(self.model)
        model: Any = PeftModel.from_pretrained(base, self.checkpoint).eval()
        tokenizer, processor = AutoTokenizer.from_pretrained(self.model), AutoImageProcessor.from_pretrained(self.model)
        _, prompt, end = FAMILIES[self.model_type]
        answers = []
        for line in rows.read_text().splitlines():
            row = json.loads(line)
            images = [_opened(name, rows.parent) for name in row.get("images", [])]
            inputs: dict[str, Any] = dict(processor(images, return_tensors="pt")) if images else {}
            if "qwen" in self.model_type:
                sizes = [int(grid.prod()) // 4 for grid in inputs.get("image_grid_thw", [])]
                texts = [f"<|vision_start|>{'<|image_pad|>' * size}<|vision_end|>" for size in sizes]
            else:
                texts = ["<image>" * 4 + "\n"] * len(images)
            query = row["query"] if "<image>" in row["query"] else "<image>" * len(images) + row["query"]
            pieces = query.split("<image>")
            query = "".join(piece + text for piece, text in zip(pieces, [*texts, ""], strict=True))
            ids = torch.tensor([tokenizer(prompt.format(query), add_special_tokens=False)["input_ids"]])
            if "qwen" in self.model_type and images:
                inputs["mm_token_type_ids"] = (ids == base.config.image_token_id).int()
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                **inputs,
                max_new_tokens=TOKENS,
                do_sample=False,
                eos_token_id=tokenizer.convert_tokens_to_ids(end) if end != "</s>" else tokenizer.eos_token_id,
                pad_token_id=tokenizer.eos_token_id,
            )
            answers.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
        return answers


def _opened(name: str, folder: Path) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(name.partition(",")[2])) if "," in name else folder / name)


@pytest.fixture(
    scope="module",
    params=["qwen2-vl-2b-instruct", pytest.param("llava1_5-7b-instruct", marks=pytest.mark.slow)],
)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smollm2_tokenizer_dir: Path
) -> Trained:
    return Trained(request.param, tmp_path_factory.mktemp("trained"), smollm2_tokenizer_dir)


@pytest.fixture(scope="module")
def ask(trained: Trained) -> Iterator[Callable[..., httpx.Response]]:
    """POST to a chat of the served adapter; files below the folder of the rows may be named."""
    with served(trained.words(), trained.folder) as post:
        yield post


@contextmanager
def served(words: list[str], folder: Path) -> Iterator[Callable[..., httpx.Response]]:
    """POST to a chat of a model or adapter that is served by the words of a command."""
    with address(words, folder) as (url, adapter):

        def post(messages: list[dict[str, Any]], **fields: Any) -> httpx.Response:
            body = {"model": adapter or "tiny", "messages": messages, "max_tokens": TOKENS, "temperature": 0, **fields}
            return httpx.post(f"{url}/chat/completions", json=body, timeout=60)

        yield post


@contextmanager
def address(words: list[str], folder: Path) -> Iterator[tuple[str, str | None]]:
    """The address of such a server, below which files may be named, and its adapter."""
    catalog = load_catalog()
    infer = plan_infer(parse(["deploy", *words]), catalog, Machine(), answers_rows=False)
    service = Service(ServePlan(model_name="tiny", media=MediaPolicy(folder=folder)))
    prepared, ready = prepare(infer, catalog, scores=True), threading.Event()

    def load(loop: asyncio.AbstractEventLoop) -> Loaded:
        engine = asyncio.run(start(infer, prepared))
        return Loaded(engine, prepared.encoder, service.plan.defaults(prepared.sampling), frozenset(prepared.heads))

    with bind("127.0.0.1", 0) as listener:
        server = Server(service, listener, load, ready.set)
        thread = threading.Thread(target=server.answer, daemon=True)
        thread.start()
        assert ready.wait(60)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", infer.engine.default_adapter
        server.stop()
        thread.join(30)


def data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def test_answers_are_those_of_transformers_before_and_after_the_merge(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = trained.expected(trained.rows)
    assert len(set(expected)) > 1
    answers = trained.infer(trained.rows)
    assert [row["response"] for row in answers] == expected
    assert answers[2]["images"][0] == str(trained.folder / "one.png")
    shown = capsys.readouterr().out
    assert "<image: 60x100, " in shown and shown.count("<|image_pad|>") == 0
    merged = trained.infer(trained.rows, "--merge_lora", "true")
    assert [row["response"] for row in merged] == expected


def test_images_of_rows_that_cannot_be_used_are_named_and_the_others_answered(trained: Trained) -> None:
    rows = trained.folder / "bad.jsonl"
    (trained.folder / "text.png").write_text("no image")
    good = json.loads(trained.rows.read_text().splitlines()[0])
    (trained.folder / "hollow.png").write_bytes(png(60, 60))  # whole but for its pixels
    bad = [{**good, "images": names} for names in (["text.png"], ["gone.png"], [], ["hollow.png"])]
    rows.write_text("".join(json.dumps(row) + "\n" for row in [*bad, good]))
    answers = trained.infer(rows)
    assert [row["response"] is None for row in answers] == [True] * 4 + [False]
    reasons = ("broken image: ", "missing file", "1 <image> and the row 0 images", "broken image: ")
    for number, (row, reason) in enumerate(zip(answers, reasons, strict=False), 1):
        assert reason in row["error"] and row["error"].endswith(f"({rows}:{number})")
        assert all(name in row["error"] for name in bad[number - 1]["images"])


def test_a_chat_at_the_terminal_asks_for_the_image(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = trained.expected(trained.rows)
    entries = (
        f"See <image> there\n'file://{trained.folder / 'one.png'}'\nclear\n<image>?\n{trained.folder / 'none.png'}\n"
        f"clear\n<img>{trained.folder / 'two.png'}</img>What?\n"
    )
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(entries.encode())))
    assert main(["infer", *trained.words("--save_result", "false", "--eval_human", "true")]) == 0
    given = capsys.readouterr()
    assert expected[0] in given.out and expected[1] in given.out and given.out.count("path or URL of image") == 2
    assert "missing image" in given.err


def test_a_call_from_python_reads_images_of_parts_and_of_the_text(trained: Trained) -> None:
    picture = str(trained.folder / "one.png")
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": "What?"}]
    with swift.load(trained.checkpoint, max_new_tokens=TOKENS, temperature=0) as model:
        in_text = model.generate(f"<img>{picture}</img>What?")
        assert in_text == model.generate([{"role": "user", "content": parts}]) != model.generate("What?")
        with pytest.raises(swift.SwiftError, match="missing file"):
            model.generate("<img>gone.png</img>What?")


def test_the_server_answers_as_infer_whichever_way_images_come(
    trained: Trained, ask: Callable[..., httpx.Response]
) -> None:
    expected = trained.expected(trained.rows)
    one, two = trained.folder / "one.png", trained.folder / "two.png"
    parts = [
        {"type": "text", "text": "See "},
        {"type": "image_url", "image_url": {"url": data_url(one)}},
        {"type": "text", "text": " there"},
    ]
    plain = [{"role": "user", "content": "See <image> there"}]
    both = [{"role": "user", "content": "<image>or<image>?"}]
    ways = [
        (ask([{"role": "user", "content": parts}]), expected[0]),
        (ask(plain, images=[data_url(one)]), expected[0]),
        (ask(plain, images=[base64.b64encode(one.read_bytes()).decode()]), expected[0]),
        (ask(plain, images=["one.png"]), expected[0]),
        (ask(plain, images=[f"file://{one}"]), expected[0]),
        (ask([{"role": "user", "content": "What?"}], images=[data_url(two)]), expected[1]),
        (
            ask([{"role": "user", "content": f"<img>{base64.b64encode(two.read_bytes()).decode()}</img>What?"}]),
            expected[1],
        ),
        (ask([{"role": "user", "content": [{"type": "text", "text": "<img>two.png</img>What?"}]}]), expected[1]),
        (ask(both, images=[data_url(one), data_url(two)]), expected[2]),
        (ask([{"role": "user", "content": "Just text"}]), expected[3]),
    ]
    for response, answer in ways:
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["message"]["content"] == answer
    cached = [response.json()["usage"]["prompt_tokens_details"]["cached_tokens"] for response, _ in ways]
    assert cached[1] > cached[0]  # the same picture again: its tokens are not computed again


def test_videos_are_answered_as_by_infer_and_refused_by_the_name_of_the_field(
    trained: Trained, ask: Callable[..., httpx.Response]
) -> None:
    pytest.importorskip("av")
    if "qwen" not in trained.model_type:
        return
    video = write_video(trained.folder / "a.mp4")
    rows = trained.folder / "videos.jsonl"
    frames = [str(trained.folder / name) for name in ("one.png", "two.png")]
    given = [{"query": "See <video> there", "videos": [str(video)]}, {"query": "<video>?", "videos": [frames]}]
    rows.write_text("".join(json.dumps(row) + "\n" for row in given))
    expected = [row["response"] for row in trained.infer(rows)]
    link = "data:video/mp4;base64," + base64.b64encode(video.read_bytes()).decode()
    parts = [
        {"type": "text", "text": "See "},
        {"type": "video_url", "video_url": {"url": link}},
        {"type": "text", "text": " there"},
    ]
    plain = [{"role": "user", "content": "See <video> there"}]
    listed = [{"type": "video", "video": ["one.png", "two.png"]}, {"type": "text", "text": "?"}]
    ways = [
        (ask([{"role": "user", "content": parts}]), expected[0]),
        (ask(plain, videos=[link]), expected[0]),
        (ask(plain, videos=["a.mp4"]), expected[0]),
        (ask([{"role": "user", "content": "<video>?"}], videos=[["one.png", "two.png"]]), expected[1]),
        (ask([{"role": "user", "content": listed}]), expected[1]),
    ]
    for response, answer in ways:
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["message"]["content"] == answer
    cut = "data:video/mp4;base64," + base64.b64encode(video.read_bytes()[:900]).decode()
    whole = write_video(trained.folder / "b.mp4", 60, 10, (64, 48), head_first=True).read_bytes()
    (trained.folder / "cut.mp4").write_bytes(whole[: len(whole) * 3 // 4])  # found when its frames are decoded
    refused = {
        "one.txt": "no such file",
        cut: "broken video",
        "cut.mp4": "cannot be decoded",
        "http://127.0.0.1:9/a.mp4": "not a public address",
    }
    for source, reason in refused.items():
        response = ask(plain, videos=[source])
        error = response.json()["error"]
        assert response.status_code == 400 and reason in error["message"].lower(), error
        assert error["param"] == "videos[0]"
    (trained.folder / "text.png").write_text("no image")
    for videos, field in (([["one.png", "text.png"]], "videos[0][1]"), ([[]], "videos[0]"), ([link] * 5, "videos[4]")):
        response = ask([{"role": "user", "content": "?"}], videos=videos)
        assert response.status_code == 400 and response.json()["error"]["param"] == field, response.text


def test_the_server_refuses_what_is_no_image_or_not_to_be_read_by_the_name_of_the_field(
    trained: Trained, ask: Callable[..., httpx.Response], tmp_path: Path
) -> None:
    outside = noise(tmp_path / "outside.png", 30, 30)
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, "PNG")
    bomb_url = "data:image/png;base64," + base64.b64encode(bomb.getvalue()).decode()
    (trained.folder / "link.png").symlink_to(outside)
    (trained.folder / "circle.png").symlink_to(trained.folder / "circle.png")
    (trained.folder / "hollow.png").write_bytes(png(60, 60))
    jpeg = noise(trained.folder / "whole.jpg", 200, 200).read_bytes()
    (trained.folder / "cut.jpg").write_bytes(jpeg[:-200])
    cut = "data:image/jpeg;base64," + base64.b64encode(jpeg[:-200]).decode()
    good = data_url(trained.folder / "one.png")
    refused = {
        "http://127.0.0.1:9/a.png": "not a public address",
        "http://localhost:9/a.png": "not a public address",
        "http://[::ffff:127.0.0.1]:9/a.png": "not a public address",
        "http://169.254.169.254/latest/meta-data": "not a public address",
        "http://0x7f000001/a.png": "not a public address",
        "http://2130706433:9/a.png": "not a public address",
        "http://0177.0.0.1:9/a.png": "invalid ipv4 address",
        "http://0:9/a.png": "not a public address",
        "http://[::127.0.0.1]:9/a.png": "not a public address",
        "http://[::]:9/a.png": "not a public address",
        "http://[64:ff9b::7f00:1]:9/a.png": "not a public address",
        "http://[2002:7f00:1::]:9/a.png": "not a public address",
        "http://[fe80::1]:9/a.png": "not a public address",
        "http://example.org@127.0.0.1:9/a.png": "not a public address",
        str(outside): "no such file",
        "../outside.png": "no such file",
        "link.png": "no such file",
        "/etc/passwd": "no such file",
        "file:///etc/passwd": "no such file",
        "ftp://example.org/a.png": "no such file",
        "a\0b": "no such file",
        "data:image/png;base64,%%%": "broken image",
        "data:text/plain,hello": "broken image",
        "data:": "broken image",
        "circle.png": "no such file",
        "x" * 5000: "no such file",
        "hollow.png": "broken image",
        "cut.jpg": "broken image",
        cut: "broken image",
        bomb_url: "image too large",
    }
    for source, reason in refused.items():
        for field, body in (
            ("messages[0].content[1].image_url", {"content": [{"type": "text", "text": "?"}, _part(source)]}),
            ("images[1]", {"content": "?", "images": [good, source]}),
        ):
            images = {"images": body.pop("images")} if "images" in body else {}
            response = ask([{"role": "user", **body}], **images)
            error = response.json()["error"]
            assert response.status_code == 400, (source[:50], error)
            assert reason in error["message"].lower() and error["param"] == field, (source[:50], error)
    for source in ("/etc/passwd", "http://127.0.0.1:9/a.png", "link.png"):
        asked = [
            {"role": "user", "content": "Hi"},
            {"role": "user", "content": f"<img>one.png</img><img>{source}</img>"},
        ]
        response = ask(asked)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "messages[1].content"), response.text
        assert ask([*asked, {"role": "user", "content": [_part(good)]}]).json()["error"]["param"] == "images"
    wrong = [
        ({"type": "image_url", "image_url": 5}, "messages[0].content[0].image_url"),
        ({"type": "image_url", "image_url": {"url": 5}}, "messages[0].content[0].image_url"),
        ({"type": "image_url"}, "messages[0].content[0].image_url"),
        ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}, "messages[0].content[0].video_url"),
        ({"type": "audio_url", "audio_url": {"url": good}}, "messages[0].content[0].audio_url"),
        ({"type": "image_url", "image_url": {"url": ""}}, "messages[0].content[0].image_url"),
    ]
    for part, field in wrong:
        response = ask([{"role": "user", "content": [part]}])
        assert response.status_code == 400 and field in response.json()["error"]["param"], response.text
    for images, field in (("a.png", "images"), ([5], "images[0]"), ([good, None], "images[1]"), ([""], "images[0]")):
        response = ask([{"role": "user", "content": "?"}], images=images)
        assert response.status_code == 400 and response.json()["error"]["param"] == field, response.text
    many = ask([{"role": "user", "content": "?"}], images=[good] * 40)
    assert many.status_code == 400 and "at most 32" in many.json()["error"]["message"]
    mixed = ask([{"role": "user", "content": [_part(good)]}], images=[good])
    assert mixed.status_code == 400 and mixed.json()["error"]["param"] == "images"


def _part(source: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": source}}
