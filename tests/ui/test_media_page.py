"""Images and sounds on the chat page, in a real browser, over real tiny models: dropped, pasted, chosen, answered."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.fixtures.sounds import write_sound
from tests.fixtures.tiny_multimodal import write_tiny
from tests.ui.browser import HAS_CHROMIUM, complaints, find, opened, until

from swift.catalog import load_catalog
from swift.cli import main
from swift.core.machine import Machine
from swift.engines.factory import prepare, start
from swift.engines.sync_engine import SyncEngine
from swift.params.parse import parse
from swift.plan.infer import plan_infer

pytest.importorskip("gradio")
pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_CHROMIUM, reason="chromium is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
ARTEFACTS = Path(__file__).parents[2] / "artefacts"
SAMPLING = ("--max_new_tokens", "8", "--temperature", "0")


def colour(path: Path, name: str) -> Path:
    Image.new("RGB", (112, 84), name).save(path)
    return path


@contextmanager
def page_of(model: Path, model_type: str) -> Iterator[str]:
    """The address of the page over a model, as `swift app-ui` makes it."""
    from swift.ui.chat_page import ChatPage, launch
    from swift.ui.chat_turn import Controls, Talker

    words = ["app-ui", "--model_id_or_path", str(model), "--model_type", model_type, *SAMPLING]
    plan, catalog = plan_infer(parse(words), load_catalog(), Machine(), answers_rows=False), load_catalog()
    prepared = prepare(plan, catalog)
    takes = () if prepared.images is None else prepared.images.kinds
    with SyncEngine(lambda: start(plan, prepared)) as engine:
        talker = Talker(engine, prepared.encoder, prepared.sampling_of)
        page = ChatPage(talker, model_type, Controls(max_tokens=8), takes=takes).build()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        yield launch(page, "127.0.0.1", port)
        page.close(verbose=False)


def expected(model: Path, model_type: str, row: dict[str, Any], folder: Path) -> str:
    """What `swift infer` answers."""
    rows = folder / "rows.jsonl"
    rows.write_text(json.dumps(row) + "\n")
    words = ["--model_id_or_path", str(model), "--model_type", model_type, *SAMPLING, "--val_dataset", str(rows)]
    assert main(["infer", *words, "--result_dir", str(folder / "results"), "--load_dataset_config", "false"]) == 0
    (result,) = (folder / "results").glob("*.jsonl")
    return json.loads(result.read_text())["response"]


GIVEN = """
const [kind, name, type, data] = arguments;
const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], name, { type }));
const at = document.querySelector("#box textarea");
const event = kind === "paste"
  ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
  : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
at.dispatchEvent(event);
"""
"""Gives a file to the page as a person does with the clipboard or the mouse."""


def give(browser: Any, way: str, path: Path) -> None:
    browser.execute_script(GIVEN, way, path.name, "image/png", base64.b64encode(path.read_bytes()).decode())


def thumbnails(browser: Any, place: str) -> int:
    """Images that are there and have been drawn."""
    script = "return [...document.querySelectorAll(arguments[0] + ' img')].filter(i => i.naturalWidth >= 80).length"
    return browser.execute_script(script, place)


BESIDE = "return new Set([...document.querySelectorAll('#talk img')].map(i => i.getBoundingClientRect().bottom)).size"
LARGE = "return [...document.querySelectorAll('#talk img')].at(-1).getBoundingClientRect().height / innerHeight"
"""How much of the window the last image takes."""


def answers(browser: Any) -> list[str]:
    script = "return [...document.querySelectorAll('#talk .bot.message, #talk .message.bot')].map(e => e.innerText)"
    return browser.execute_script(script)


def test_images_are_chosen_pasted_and_dropped_and_the_answer_is_that_of_infer(
    tmp_path: Path, smollm2_tokenizer_dir: Path
) -> None:
    model = write_tiny("qwen2_vl", tmp_path / "tiny", smollm2_tokenizer_dir)
    files = [colour(tmp_path / f"{name}.png", name) for name in ("red", "green", "blue", "yellow")]
    row = {"query": "<image>" * 4 + "What are they?", "images": list(map(str, files))}
    answer = expected(model, "qwen2-vl-2b-instruct", row, tmp_path)
    with page_of(model, "qwen2-vl-2b-instruct") as address, opened() as browser:
        browser.set_window_size(1280, 860)
        browser.get(address)
        until(lambda: find(browser, "#box textarea"))
        find(browser, "#box input[type=file]").send_keys(f"{files[0]}\n{files[1]}")
        until(lambda: thumbnails(browser, "#box") == 2)
        give(browser, "paste", files[2])
        until(lambda: thumbnails(browser, "#box") == 3)
        give(browser, "drop", files[3])
        until(lambda: thumbnails(browser, "#box") == 4)
        find(browser, "#box textarea").send_keys("What are they?")
        ARTEFACTS.mkdir(exist_ok=True)
        browser.save_screenshot(str(ARTEFACTS / "chat-images-box.png"))
        find(browser, "#box button.submit-button").click()
        until(lambda: thumbnails(browser, "#talk") == 4)
        until(lambda: any(answer.split()[0] in text for text in answers(browser)))
        until(lambda: find(browser, "#box button.submit-button"))
        browser.save_screenshot(str(ARTEFACTS / "chat-images.png"))
        assert " ".join(answer.split()) in " ".join(" ".join(answers(browser)).split())
        assert not thumbnails(browser, "#box")
        assert browser.execute_script(BESIDE) == 1 and browser.execute_script(LARGE) < 0.3
        browser.execute_script("[...document.querySelectorAll('#talk [aria-label=Fullscreen]')].at(-1).click()")
        until(lambda: browser.execute_script(LARGE) > 0.9)
        assert not [line for line in complaints(browser) if "favicon" not in line]


SHOWN = """
return [...document.querySelectorAll('#talk .user-row .message-buttons button, #box button, #talk .bot-row button')]
  .filter(b => b.checkVisibility()).map(b => b.getAttribute('aria-label'))
"""
"""The buttons that can be seen, by their names."""


def test_a_chinese_page_has_its_buttons_only_and_names_them(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    model = write_tiny("qwen2_vl", tmp_path / "tiny", smollm2_tokenizer_dir)
    files = [colour(tmp_path / f"{name}.png", name) for name in ("red", "green")]
    with page_of(model, "qwen2-vl-2b-instruct") as address, opened("zh-CN") as browser:
        browser.set_window_size(1280, 860)
        browser.get(address)
        until(lambda: find(browser, "#box textarea"))
        find(browser, "#box input[type=file]").send_keys("\n".join(map(str, files)))
        until(lambda: thumbnails(browser, "#box") == 2)
        find(browser, "#box textarea").send_keys("What?")
        find(browser, "#box button.submit-button").click()
        until(lambda: set(browser.execute_script(SHOWN)) == {"撤销", "复制", "重试", "添加文件", "发送"})
        assert "消息" in find(browser, "#box").get_attribute("textContent")
        find(browser, "#talk .bot-row [aria-label=撤销]").click()
        until(lambda: thumbnails(browser, "#box") == 2 and not thumbnails(browser, "#talk"))
        assert find(browser, "#box textarea").get_attribute("value") == "What?"
        browser.refresh()
        until(lambda: find(browser, "#box textarea"))
        assert not thumbnails(browser, "#talk")


def test_a_question_that_gets_no_answer_goes_back_into_the_box(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    model = write_tiny("qwen2_vl", tmp_path / "tiny", smollm2_tokenizer_dir)
    (tmp_path / "broken.png").write_bytes(b"no image")
    answer = expected(model, "qwen2-vl-2b-instruct", {"query": "Who?"}, tmp_path)
    with page_of(model, "qwen2-vl-2b-instruct") as address, opened() as browser:
        browser.get(address)
        until(lambda: find(browser, "#box textarea"))
        find(browser, "#box input[type=file]").send_keys(str(tmp_path / "broken.png"))
        until(lambda: browser.find_elements("css selector", "#box .thumbnail-item"))
        find(browser, "#box textarea").send_keys("Who?")
        find(browser, "#box button.submit-button").click()
        until(lambda: "broken image: no image format that is known (broken.png)" in browser.page_source)
        until(lambda: find(browser, "#box textarea").get_attribute("value") == "Who?")
        until(lambda: find(browser, "#box button.submit-button"))
        browser.execute_script("document.querySelector('#box .delete-button').click()")
        until(lambda: not browser.find_elements("css selector", "#box .thumbnail-item"))
        find(browser, "#box button.submit-button").click()
        until(lambda: any(answer.split()[0] in text for text in answers(browser)))


def test_sounds_are_taken_where_the_model_hears_and_nothing_where_it_reads(
    tmp_path: Path, smollm2_tokenizer_dir: Path, tiny_llama_dir: Path
) -> None:
    pytest.importorskip("soundfile")
    model = write_tiny("qwen2_audio", tmp_path / "tiny", smollm2_tokenizer_dir)
    sound = write_sound(tmp_path / "one.wav")
    row = {"query": "<audio>What is heard?", "audios": [str(sound)]}
    answer = expected(model, "qwen2-audio-7b-instruct", row, tmp_path)
    with opened() as browser:
        browser.set_window_size(1280, 860)
        with page_of(model, "qwen2-audio-7b-instruct") as address:
            browser.get(address)
            until(lambda: find(browser, "#box textarea"))
            until(lambda: "icrophone" in find(browser, "#box").get_attribute("innerHTML"))
            find(browser, "#box input[type=file]").send_keys(str(sound))
            until(lambda: browser.find_elements("css selector", "#box .thumbnail-item"))
            find(browser, "#box textarea").send_keys("What is heard?")
            find(browser, "#box button.submit-button").click()
            until(lambda: any(answer.split()[0] in text for text in answers(browser)))
            until(lambda: find(browser, "#talk [aria-label*='component of type audio']"))
            ARTEFACTS.mkdir(exist_ok=True)
            browser.save_screenshot(str(ARTEFACTS / "chat-sound.png"))
            assert " ".join(answer.split()) in " ".join(" ".join(answers(browser)).split())
        with page_of(tiny_llama_dir, "llama3_2-1b-instruct") as address:
            browser.get(address)
            until(lambda: find(browser, "#box textarea"))
            assert not browser.find_elements("css selector", "#box input[type=file]")
