"""The chat page in a real browser, on a phone and a wide screen: type, see the answer grow, stop it, load it again."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from serving.scripted import ScriptedEngine
from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.engines.base import SamplingParams
from swift.engines.sync_engine import SyncEngine
from swift.plan.prompt import PromptPlan
from swift.prompts.encode import build_encoder
from ui.browser import HAS_CHROMIUM, find, opened, resize, until

pytest.importorskip("gradio", reason="the page is made with gradio")
pytest.importorskip("selenium", reason="selenium drives the browser")
pytestmark = [
    pytest.mark.skipif(not HAS_CHROMIUM, reason="chromium is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ENTER = "\ue007"
ARTEFACTS = Path(__file__).parents[2] / "artefacts"
LONG = (
    """Here is an **answer** with a piece of code:

```python
def area(width: float, height: float) -> float:
    return width * height  # a line that is a little longer than a phone is wide
```

| side | length |
|---|---|
| width | 3 |
| height | 4 |

"""
    + "and a paragraph that goes on, so that it is seen how lines break. " * 60
)


@pytest.fixture(scope="module")
def engine(smollm2_tokenizer_dir: Path) -> ScriptedEngine:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_tokenizer_dir)

    def reply(prompt: str) -> str:
        turns = prompt.split("<|im_start|>")
        given = turns[-2].removeprefix("user\n").split("<|im_end|>")[0]
        system = next((t.split("\n")[1].split("<|im_end|>")[0] for t in turns if t.startswith("system")), "")
        return LONG if "long" in given else f"You said {given}. {system}"

    engine = ScriptedEngine(tokenizer, reply, pause=0.05, adapters=("default-lora",))
    engine.max_model_len = 2**15
    return engine


def test_a_public_link_that_does_not_come_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import gradio as gr
    from gradio import networking

    from swift.ui.chat_page import launch

    def unreachable(*_args: object, **_options: object) -> str:
        raise RuntimeError("no way to the server of tunnels")

    async def page() -> gr.Blocks:  # without a loop gradio makes one for each of its locks, and closes none
        with gr.Blocks() as blocks:
            gr.HTML("a page")
        return blocks

    monkeypatch.setattr(networking, "setup_tunnel", unreachable)  # no link is opened where there is a network
    with pytest.raises(SwiftError, match="tunnel did not come up"):
        launch(asyncio.run(page()), "127.0.0.1", 0, share=True)


@pytest.fixture(scope="module")
def address(engine: ScriptedEngine) -> Iterator[str]:
    from swift.ui.chat_page import ChatPage, launch
    from swift.ui.chat_turn import Controls, Talker

    async def start() -> ScriptedEngine:
        return engine

    encoder = build_encoder(PromptPlan(template_type="qwen", system=""), engine.tokenizer, load_catalog())
    with SyncEngine(start) as sync:
        talker = Talker(sync, encoder, lambda room: SamplingParams(max_tokens=room))
        page = ChatPage(talker, "tiny-model", Controls(max_tokens=20000)).build()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.MonkeyPatch.context() as patch:  # as in many offices: gradio asks its page whether it is there
            patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
            patch.setenv("http_proxy", "http://127.0.0.1:9")
            place = launch(page, "127.0.0.1", port)
        yield place
        page.close(verbose=False)


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[object]:
    with opened() as driver:
        driver.set_window_size(1440, 900)
        driver.get(address)
        until(lambda: find(driver, "#box textarea"))
        yield driver


def talk(browser) -> str:
    return find(browser, "#talk").text


def say(browser, text: str) -> None:
    until(lambda: find(browser, "#box button.submit-button"))
    find(browser, "#box textarea").send_keys(text)
    find(browser, "#box button.submit-button").click()


def answered(browser, text: str) -> None:
    """Until the text stands in the talk and the page is ready for the next question."""
    until(lambda: text in talk(browser) and find(browser, "#box button.submit-button"))


def shot(browser, name: str) -> None:
    ARTEFACTS.mkdir(exist_ok=True)
    browser.save_screenshot(str(ARTEFACTS / f"chat-{name}.png"))


def test_an_answer_grows_stops_and_outlives_a_reload(browser, engine: ScriptedEngine) -> None:
    until(lambda: find(browser, "#box textarea"))
    say(browser, "Hello")
    answered(browser, "You said Hello.")
    say(browser, "Something long")
    until(lambda: "piece of code" in talk(browser))
    grown = len(talk(browser))
    until(lambda: len(talk(browser)) > grown)
    find(browser, "#box button.stop-button").click()
    until(lambda: engine.running == 0)
    until(lambda: find(browser, "#box button.submit-button"))
    stopped = talk(browser)
    assert stopped.count("goes on") < 60
    shot(browser, "wide")
    time.sleep(0.5)
    assert talk(browser) == stopped
    browser.refresh()
    until(lambda: "You said Hello." in talk(browser) and "piece of code" in talk(browser))
    until(lambda: "stopped" in find(browser, "#facts").text)


@pytest.mark.slow
def test_a_new_chat_in_the_middle_of_an_answer_stays_empty(browser, engine: ScriptedEngine) -> None:
    new_chat(browser)
    say(browser, "Something long")
    until(lambda: "piece of code" in talk(browser))
    new_chat(browser)
    until(lambda: engine.running == 0)
    until(lambda: find(browser, "#box button.submit-button"))
    time.sleep(0.5)
    assert "Something long" not in talk(browser)
    browser.refresh()
    until(lambda: find(browser, "#box button.submit-button"))
    time.sleep(1)
    assert "Something long" not in talk(browser)


@pytest.mark.slow
def test_a_question_is_asked_again_and_changed(browser, engine: ScriptedEngine) -> None:
    new_chat(browser)
    say(browser, "First")
    answered(browser, "You said First.")
    before = len(engine.requests)
    until(lambda: browser.find_elements("css selector", "#talk button[aria-label='Retry']"))
    browser.find_elements("css selector", "#talk button[aria-label='Retry']")[-1].click()
    until(lambda: len(engine.requests) == before + 1)
    answered(browser, "You said First.")
    browser.find_elements("css selector", "#talk button[aria-label='Edit']")[-1].click()
    until(lambda: find(browser, "#talk textarea"))
    box = find(browser, "#talk textarea")
    box.clear()
    box.send_keys("Second")
    browser.find_elements("css selector", "#talk button[aria-label='Submit']")[-1].click()
    answered(browser, "You said Second.")
    assert "First" not in talk(browser)


@pytest.mark.slow
def test_a_question_in_the_middle_of_an_answer_waits_in_the_box(browser, engine: ScriptedEngine) -> None:
    new_chat(browser)
    say(browser, "Something long")
    until(lambda: "piece of code" in talk(browser))
    find(browser, "#box textarea").send_keys("Third" + ENTER)
    grown = len(talk(browser))
    until(lambda: len(talk(browser)) > grown + 50)
    find(browser, "#box button.stop-button").click()
    until(lambda: find(browser, "#box button.submit-button"))
    assert find(browser, "#box textarea").get_attribute("value") == "Third"
    find(browser, "#box textarea").send_keys(ENTER)
    answered(browser, "You said Third.")
    assert "piece of code" in talk(browser)


@pytest.mark.slow
def test_settings_reach_the_engine(browser, engine: ScriptedEngine) -> None:
    new_chat(browser)
    find(browser, "#settings .toggle-button").click()
    until(lambda: find(browser, "#system textarea").is_displayed())
    find(browser, "#system textarea").send_keys("Be brief.")
    until(lambda: find(browser, "#system textarea").get_attribute("value") == "Be brief.")
    find(browser, "#model input").click()
    until(lambda: browser.find_elements("css selector", "[role=option]"))
    shot(browser, "settings")
    next(o for o in browser.find_elements("css selector", "[role=option]") if "default-lora" in o.text).click()
    until(lambda: find(browser, "#model input").get_attribute("value") == "default-lora")
    find(browser, "#settings .toggle-button").click()
    until(lambda: not find(browser, "#system textarea").is_displayed())  # what moves is clicked beside
    say(browser, "Hi")
    answered(browser, "You said Hi. Be brief.")
    request = engine.requests[-1]
    assert request.adapter == "default-lora" and request.sampling.max_tokens == 20000


@pytest.mark.slow
def test_the_words_are_those_of_the_browsers_language(address: str) -> None:
    with opened("zh-CN") as driver:
        driver.get(address)
        until(lambda: find(driver, "#clear").text == "新对话")
        assert find(driver, "#box textarea").get_attribute("placeholder") == "输入消息…"


@pytest.mark.slow
def test_a_new_chat_can_be_undone_and_everything_has_a_name(browser, engine: ScriptedEngine) -> None:
    new_chat(browser)
    until(lambda: browser.find_elements("css selector", "#talk .example"))
    shot(browser, "empty")
    browser.find_elements("css selector", "#talk .example")[0].click()
    answered(browser, "You said Who are you?")
    until(lambda: "tokens" in find(browser, "#facts").text)
    new_chat(browser)
    until(lambda: find(browser, "#undo").is_displayed())
    find(browser, "#undo").click()
    until(lambda: "You said Who are you?" in talk(browser))
    nameless = """
      return [...document.querySelectorAll("button")].filter((each) => each.checkVisibility()
        && !(each.getAttribute("aria-label") || each.textContent || each.title).trim()).map((each) => each.outerHTML);
    """
    until(lambda: browser.execute_script(nameless) == [])
    small = """
      return [...document.querySelectorAll("#talk button")].filter((each) => each.checkVisibility()
        && each.getBoundingClientRect().height < 24).map((each) => each.outerHTML);
    """
    assert browser.execute_script(small) == []


def test_phone(browser) -> None:
    resize(browser, 390, 844)
    new_chat(browser)
    say(browser, "Something long")
    until(lambda: "height" in talk(browser))
    shot(browser, "phone")
    until(lambda: find(browser, "#box button.stop-button"))
    find(browser, "#box button.stop-button").click()
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= 390, "nothing sticks out to the side"
    box = find(browser, "#box").rect
    assert box["y"] + box["height"] <= 844, "the box to write in is on the screen"


@pytest.mark.slow
def test_the_page_leaves_no_event_loop_behind(engine: ScriptedEngine) -> None:
    """gradio makes loops that it never closes; they would warn long after, in whatever runs then."""
    from swift.ui.chat_page import ChatPage, launch
    from swift.ui.chat_turn import Controls, Talker

    def open_loops() -> int:
        gc.collect()
        found = [each for each in gc.get_objects() if issubclass(type(each), asyncio.AbstractEventLoop)]
        return sum(not loop.is_closed() for loop in found)

    async def start() -> ScriptedEngine:
        return engine

    before = open_loops()
    encoder = build_encoder(PromptPlan(template_type="qwen", system=""), engine.tokenizer, load_catalog())
    with SyncEngine(start) as sync, warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        page = ChatPage(Talker(sync, encoder, lambda room: SamplingParams(max_tokens=room)), "m", Controls()).build()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launch(page, "127.0.0.1", port)
        page.close(verbose=False)
    assert open_loops() == before


def test_nothing_is_fetched_from_elsewhere(browser, address: str) -> None:
    asked = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    assert len(asked) > 10
    strangers = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert strangers == []


def new_chat(browser) -> None:
    find(browser, "#clear").click()
    until(lambda: "You said" not in talk(browser) and "piece of code" not in talk(browser))
