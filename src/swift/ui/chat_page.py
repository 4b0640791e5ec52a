"""The chat page: one engine, one conversation a browser tab, kept in the browser over a reload."""

from __future__ import annotations

import asyncio
import html
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio.components import Component
from gradio.themes import Soft

from swift.core.end_signals import taken_by
from swift.core.errors import SwiftError
from swift.ui.chat_turn import Controls, Measured, Talker, Turn, unanswered
from swift.ui.translations import CHINESE, ENGLISH, EXAMPLES

T = TypeVar("T")

CSS = Path(__file__).with_name("page.css")
WORDS = gr.I18n(en=ENGLISH, zh=CHINESE, **{"zh-CN": CHINESE})

# Fonts of the machine: the page fetches none from elsewhere.
FONTS = ["system-ui", "Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"]
THEME = Soft(font=FONTS, font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"])
NAMES = """() => {
  const names = navigator.language.startsWith("zh") ? ZH : EN;
  const name = () => {
    for (const [place, word] of [["#box .submit-button", "send"], ["#box .stop-button", "stop"],
                                 ["#settings .toggle-button", "settings"], ["#box .upload-button", "attach"],
                                 ["#talk [aria-label='Copy message']", "copy"],
                                 ["#talk [aria-label='Fullscreen']", "large"]])
      for (const button of document.querySelectorAll(place))
        if (button.getAttribute("aria-label") !== names[word]) {
          button.setAttribute("aria-label", names[word]);
          if (button.title) button.title = names[word];
        }
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
}""".replace("ZH", json.dumps(CHINESE)).replace("EN", json.dumps(ENGLISH))
"""Names for buttons that gradio draws as pictures only, for those who cannot see them, in the page's language."""
Kept = tuple[list[Turn], str]
"""A talk and what stands below it: whether its newest answer was stopped, its tokens and their speed."""
THINKING = [("<think>", "</think>")]


@dataclass(eq=False)
class _UnderWay:
    """The newest answer of a browser tab."""

    stop: threading.Event = field(default_factory=threading.Event)
    running: bool = True
    dropped: bool = False
    """Its chat is gone; nothing of it may be shown any more."""


class ChatPage:
    """The page and what its events do. `name` is the base model's; `start` are the values it opens with.

    `takes` are the kinds of media that the model sees or hears: files of them can be dropped, pasted and chosen.
    """

    def __init__(self, talker: Talker, name: str, start: Controls, *, takes: tuple[str, ...] = ()):
        self._talker = talker
        self._name = name
        self._start = start
        self._takes = takes
        self._under_way: dict[str, _UnderWay] = {}

    def build(self) -> gr.Blocks:
        """The page, ready to launch."""
        return _inside_a_loop(self._build)

    def _build(self) -> gr.Blocks:
        with gr.Blocks(title=self._name, fill_height=True, fill_width=True, analytics_enabled=False) as page:
            saved = gr.BrowserState(([], ""), storage_key=f"swift-talk-{self._name}")
            controls = self._side_panel()
            with gr.Row(elem_id="head"):
                gr.HTML(f"<h1>{html.escape(self._name)}</h1>")
                undo = gr.Button(WORDS("undo"), size="sm", elem_id="undo", visible=False)
                clear = gr.Button(WORDS("clear"), size="sm", elem_id="clear")
            talk = gr.Chatbot(
                elem_id="talk",
                show_label=False,
                container=False,
                scale=1,
                height="100%",
                layout="panel",
                placeholder=WORDS("empty"),  # type: ignore[arg-type]  # translated in the browser like any other text
                examples=[{"text": text} for text in EXAMPLES],
                editable="user",
                buttons=["copy"],
                reasoning_tags=THINKING,
                allow_tags=True,
            )
            facts = gr.HTML(elem_id="facts")
            box = self._box()
            self._wire(page, saved, controls, talk, facts, box)
            self._wire_clear(saved, talk, facts, box, clear, undo)
        return page

    def _side_panel(self) -> list[Component]:
        engine, start = self._talker.engine.engine, self._start
        with gr.Sidebar(open=False, width=300, elem_id="settings"):
            gr.Markdown(WORDS("settings"))
            models = [self._name, *engine.adapters]
            model = gr.Dropdown(models, value=start.adapter or self._name, label=WORDS("model"), elem_id="model")
            system = gr.Textbox(
                start.system, label=WORDS("system"), placeholder=WORDS("system_hint"), lines=3, elem_id="system"
            )
            temperature = gr.Slider(
                0, 2, start.temperature, step=0.05, label=WORDS("temperature"), info=WORDS("temperature_hint")
            )
            top_p = gr.Slider(0.05, 1, start.top_p, step=0.05, label=WORDS("top_p"))
            longest = gr.Slider(
                1, engine.max_model_len, min(start.max_tokens, engine.max_model_len), step=1, label=WORDS("max_tokens")
            )
        return [model, system, temperature, top_p, longest]

    def _box(self) -> gr.Textbox | gr.MultimodalTextbox:
        make: Callable[..., gr.Textbox | gr.MultimodalTextbox] = gr.Textbox
        extra: dict[str, Any] = {}
        if self._takes:
            kinds = [kind.removesuffix("s") for kind in self._takes]
            sources = ["upload", *(["microphone"] if "audios" in self._takes else [])]
            make = gr.MultimodalTextbox
            extra = {"file_types": kinds, "file_count": "multiple", "sources": sources}
        return make(
            elem_id="box",
            label=WORDS("message"),
            show_label=False,
            placeholder=WORDS("placeholder"),  # type: ignore[arg-type]
            lines=1,
            max_lines=8,
            autofocus=True,
            submit_btn=True,
            stop_btn=False,
            **extra,
        )

    def _wire(
        self,
        page: gr.Blocks,
        saved: gr.BrowserState,
        controls: list[Component],
        talk: gr.Chatbot,
        facts: gr.HTML,
        box: gr.Textbox | gr.MultimodalTextbox,
    ) -> None:
        def answering(event: Any) -> None:
            """After `event`: show the stop button, stream the answer, show the send button, keep the talk."""
            busy = event.then(lambda: gr.update(submit_btn=False, stop_btn=True), None, box, show_progress="hidden")
            told = busy.then(
                self._answer, [talk, *controls], [talk, facts, box], show_progress="minimal", concurrency_limit=None
            )
            free = told.then(lambda: gr.update(submit_btn=True, stop_btn=False), None, box, show_progress="hidden")
            free.then(lambda *shown: shown, [talk, facts], saved, show_progress="hidden")

        answering(box.submit(self._say, [box, talk], [box, talk], show_progress="hidden"))
        answering(talk.retry(_again, talk, talk, show_progress="hidden"))
        answering(talk.edit(_edited, talk, talk, show_progress="hidden"))
        answering(talk.example_select(_example, talk, talk, show_progress="hidden"))
        if self._takes:  # a question with files is not edited in its place by gradio
            back = talk.undo(self._back, talk, [talk, facts, box], show_progress="hidden")
            back.then(lambda *shown: shown, [talk, facts], saved, show_progress="hidden")
        box.stop(self._stop, None, None, show_progress="hidden")
        page.load(None, None, None, js=NAMES)
        page.load(lambda kept: kept, saved, [talk, facts], show_progress="hidden")
        page.unload(self._leave)

    def _wire_clear(
        self,
        saved: gr.BrowserState,
        talk: gr.Chatbot,
        facts: gr.HTML,
        box: gr.Textbox | gr.MultimodalTextbox,
        clear: gr.Button,
        undo: gr.Button,
    ) -> None:
        """A new chat, and the one before it back."""
        before = gr.State(([], ""))
        clear.click(self._drop, [talk, facts], [talk, facts, saved, before, undo], show_progress="hidden")
        for begun in (box.submit, talk.example_select):  # what is written now would be lost by it
            begun(lambda: gr.update(visible=False), None, undo, show_progress="hidden")
        undo.click(
            lambda kept: (*kept, kept, gr.update(visible=False)),
            before,
            [talk, facts, saved, undo],
            show_progress="hidden",
        )

    def _say(self, given: Any, history: list[Turn], request: gr.Request) -> tuple[Any, list[Turn]]:
        """Put what was written into the talk and empty the box; in the middle of an answer it stays in the box."""
        answer = self._under_way.get(str(request.session_hash))
        if answer is not None and answer.running and not answer.dropped:
            return gr.skip(), gr.skip()  # type: ignore[return-value]
        files = given.get("files", []) if isinstance(given, dict) else []
        text = given.get("text", "") if isinstance(given, dict) else given
        turns: list[Turn] = [{"role": "user", "content": {"path": file}} for file in files]
        if text.strip():
            turns.append({"role": "user", "content": text})
        return gr.update(value=None), [*history, *turns]

    def _answer(
        self,
        history: list[Turn],
        model: str,
        system: str,
        temperature: float,
        top_p: float,
        max_tokens: int,
        request: gr.Request,
    ) -> Iterator[tuple[list[Turn], str, Any]]:
        """The talk with the answer as it grows. A question that gets none goes back into the box, as no model would
        take two in a row."""
        if not history or history[-1]["role"] != "user":
            return
        controls = Controls(
            system=system,
            adapter=None if model == self._name else model,
            temperature=temperature,
            top_p=top_p,
            max_tokens=int(max_tokens),
        )
        mine = self._under_way[str(request.session_hash)] = _UnderWay()
        measured = Measured()
        text, failed = "", False
        try:
            for text in self._talker.answer(history, controls, mine.stop, measured):
                yield ([] if mine.dropped else _with(history, text)), "", gr.skip()
        except SwiftError as error:
            failed = True
            gr.Warning(html.escape(_said(error)), duration=30)  # behind gr.Error the page would not go on
        finally:
            mine.running = False
        if mine.dropped:  # a piece that was on its way to the browser may have filled the new chat again
            yield [], "", gr.skip()
        elif failed or (not text and mine.stop.is_set()):
            before, question = unanswered(history)
            yield before, "", gr.update(value=question if self._takes else question["text"])
        else:
            yield _with(history, text), _facts(measured, _words(request), stopped=mine.stop.is_set()), gr.skip()

    def _back(self, history: list[Turn], request: gr.Request) -> tuple[Any, Any, Any]:
        """The talk without its last question, which goes back into the box with its files."""
        answer = self._under_way.get(str(request.session_hash))
        if answer is not None and answer.running and not answer.dropped:
            return gr.skip(), gr.skip(), gr.skip()
        while history and history[-1]["role"] == "assistant":
            history = history[:-1]
        before, question = unanswered(history)
        return before, "", gr.update(value=question)

    def _stop(self, request: gr.Request) -> None:
        """End the answer of this tab, if one is under way."""
        answer = self._under_way.get(str(request.session_hash))
        if answer is not None:
            answer.stop.set()

    def _drop(self, history: list[Turn], facts: str, request: gr.Request) -> tuple[list[Turn], str, Kept, Kept, Any]:
        """End the answer and begin a new chat: the talk, here and in what the browser keeps, is empty.

        What was there can be had back.
        """
        answer = self._under_way.get(str(request.session_hash))
        if answer is not None:
            answer.dropped = True
            answer.stop.set()
        return [], "", ([], ""), (history, facts), gr.update(visible=bool(history))

    def _leave(self, request: gr.Request) -> None:
        """The tab was closed or loaded again: end its answer and forget it."""
        answer = self._under_way.pop(str(request.session_hash), None)
        if answer is not None:
            answer.stop.set()


def _words(request: gr.Request) -> dict[str, str]:
    """The texts in the language of the browser, for what the server writes."""
    return CHINESE if request.headers.get("accept-language", "").startswith("zh") else ENGLISH


def _facts(measured: Measured, words: dict[str, str], *, stopped: bool) -> str:
    """`stopped · 45 tokens · 12.3 tokens/s`, about the newest answer."""
    parts = [words["stopped"]] if stopped else []
    parts.append(f"{measured.tokens} {words['tokens']}")
    if measured.speed is not None:
        parts.append(f"{measured.speed:.1f} {words['tokens']}/s")
    return f'<span role="status">{html.escape(" · ".join(parts))}</span>'


def _with(history: list[Turn], answer: str) -> list[Turn]:
    return [*history, {"role": "assistant", "content": answer}]


def _said(error: SwiftError) -> str:
    """What is wrong, why, of which file, and what to do, on one line."""
    where = Path(error.where).name if error.where and os.path.isabs(error.where) else None
    parts = (f"{error.what}{f': {error.why}' if error.why else ''}{f' ({where})' if where else ''}", error.next)
    return ". ".join(filter(None, parts))


def _example(history: list[Turn], chosen: gr.SelectData) -> list[Turn]:
    """The talk with an example as the question."""
    return [*history, {"role": "user", "content": chosen.value["text"]}]


def _again(history: list[Turn], place: gr.RetryData) -> list[Turn]:
    """The talk up to the question that is answered again."""
    return history[: int(place.index) + 1]  # type: ignore[arg-type]


def _edited(history: list[Turn], edit: gr.EditData) -> list[Turn]:
    """The talk up to the question that was changed, with its new text."""
    place = int(edit.index)  # type: ignore[arg-type]
    return [*history[:place], {"role": "user", "content": edit.value}]


def launch(page: gr.Blocks, host: str, port: int, *, share: bool = False, public_url: str | None = None) -> str:
    """Serve the page from threads of its own and return its address; `page.close()` ends it.

    Raises SwiftError where `share` is wanted and gradio's tunnel does not come up.
    """
    start = partial(
        page.launch,
        server_name=host,
        server_port=port or None,
        share=share,
        root_path=public_url,
        inbrowser=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=["settings"],
        theme=THEME,
        css_paths=CSS,
        i18n=WORDS,
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size="64mb",
    )
    with _past_proxies(host):
        _, local, public = _inside_a_loop(start)
    if share and not public:
        page.close(verbose=False)
        raise SwiftError("gradio's tunnel did not come up", where="--share", next="leave --share out")
    return public_url or public or local


@contextmanager
def _past_proxies(host: str) -> Iterator[None]:
    """gradio asks its own page whether it is there, and would ask a proxy of the environment (HTTP_PROXY) for it."""
    before = {name: os.environ.get(name) for name in ("NO_PROXY", "no_proxy")}
    named = next(filter(None, before.values()), "")
    os.environ.update(dict.fromkeys(before, ",".join(filter(None, (named, "localhost", "127.0.0.1", "::1", host)))))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _inside_a_loop(work: Callable[[], T]) -> T:
    """`work()` while an event loop runs: without one, gradio makes a loop for each of its locks and closes none."""

    async def inside() -> T:
        return work()

    return asyncio.run(inside())


def serve(page: gr.Blocks, host: str, port: int, *, share: bool = False, public_url: str | None = None) -> None:
    """Serve the page until SIGTERM or Ctrl-C."""
    address = launch(page, host, port, share=share, public_url=public_url)
    print(f"Chat at {address} (Ctrl-C ends it)", flush=True)
    ended = threading.Event()
    try:
        with taken_by(lambda *_: ended.set()):
            # In pieces: a wait without end would hold signals back on some systems.
            while not ended.wait(0.5):
                pass
    finally:
        page.close(verbose=False)
