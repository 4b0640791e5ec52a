"""A chat at the terminal: streaming answers, several lines, a system text, tools, and Ctrl-C for one answer only."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.engines.base import Request
from swift.engines.factory import Prepared
from swift.engines.sync_engine import Reply, SyncEngine
from swift.inference.result_file import Results, fields, open_results
from swift.plan.infer import InferPlan, seeds
from swift.prompts.media_links import out_of_text, plain_link
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Conversation, Media, Message

END = "#"
"""Ends an entry in multi-line mode."""
GREETING = """\
Type a question. Commands: multi-line, single-line, reset-system, tools, clear, history, help, exit.
Ctrl-C stops an answer, Ctrl-D ends the chat."""
HELP = """\
multi-line      entries of several lines; each, commands too, ends with a line ending in #
single-line     back to entries of one line
reset-system    the next entry is the new system text, an empty one for none said; starts a new conversation
tools           the next entry is a JSON list of tools or a file with one, an empty one for none; starts anew
clear           start a new conversation
history         show the conversation so far
help            this list
exit, quit      end the chat (Ctrl-D too)"""


class Chat:
    """One person, one model, one conversation at a time."""

    def __init__(
        self,
        plan: InferPlan,
        prepared: Prepared,
        engine: SyncEngine,
        results: Results,
        *,
        one_turn: bool,
        read: Callable[[str], str] = input,
    ):
        """`one_turn` is for base models, whose templates know no second turn; `read` prompts for a line."""
        self._plan = plan
        self._prepared = prepared
        self._engine = engine
        self._results = results
        self._one_turn = one_turn
        self._read_line = read
        self._seeds = seeds(plan.first_seed)
        self._several_lines = False
        self._system: str | None = None
        self._tools: tuple[dict[str, Any], ...] = ()
        self._messages: list[Message] = []
        self._shown: dict[str, list[str]] = {}
        """Paths and addresses of media, by kind."""
        images = prepared.images
        self._tags = {} if images is None else {MEDIA_TAGS[kind]: kind for kind in images.kinds}

    def run(self) -> None:
        """Talk until `exit` or the end of the input."""
        commands: dict[str, Callable[[], None]] = {
            "multi-line": lambda: self._lines(True),
            "single-line": lambda: self._lines(False),
            "reset-system": self._reset_system,
            "tools": self._reset_tools,
            "clear": self._clear,
            "history": self._history,
            "help": lambda: print(HELP),
        }
        print(GREETING)
        if self._tags:
            print(f"Write {' or '.join(self._tags)} where it stands, and you are asked for its path or URL.")
        while True:
            try:
                given = self._entry("")
                command = given.strip().lower()
                if command in ("exit", "quit"):
                    return
                if command in commands:
                    commands[command]()
                elif given.strip():
                    self._ask(Message("user", given))
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print("\n(exit or Ctrl-D ends the chat)")

    def _ask(self, message: Message) -> None:
        """Put the message to the model, show the answer, and go on with the results of tools it calls for."""
        if self._one_turn:
            self._forget()
        before = {kind: list(paths) for kind, paths in self._shown.items()}
        if message.role == "user" and self._tags:
            message = self._with_media(message)
        self._messages.append(message)
        try:
            request, conversation = self._request()
        except SwiftError as error:
            self._messages.pop()
            self._shown = before
            print(error, file=sys.stderr)
            return
        reply = self._answer(request)
        if reply.error is not None:
            self._messages.pop()
            self._shown = before
            print(SwiftError(f"no answer: {reply.error}"), file=sys.stderr)
            return
        given = fields(conversation, self._prepared.encoder.template.default_system)
        history = given.pop("history")
        self._results.write({**given, "response": reply.text, "history": history})
        answer = self._prepared.encoder.parse_reply(reply.text) if self._tools else Message("assistant", reply.text)
        self._messages.append(answer)
        for call in answer.tool_calls:
            result = self._entry(f"{call.name}({call.arguments})")
            if not result.strip():
                return
            last = call is answer.tool_calls[-1]
            if last:
                self._ask(Message("tool", result))
            else:
                self._messages.append(Message("tool", result))

    def _with_media(self, message: Message) -> Message:
        """An entry with tags, once the media are known that it names as `<img>a.png</img>` or has tags for."""
        (tagged,), files = out_of_text([message])
        for kind, links in files.items():
            self._shown.setdefault(kind, []).extend(map(_link, links))
        if not files:
            self._ask_media(message.content)
        return tagged

    def _ask_media(self, text: str) -> None:
        """Ask for what stands at each tag of an entry, in its order."""
        tags = re.findall("|".join(self._tags), text)
        counts = Counter(tags)
        numbers: Counter[str] = Counter()
        for tag in tags:
            numbers[tag] += 1
            several = f" {numbers[tag]} of {counts[tag]}" if counts[tag] > 1 else ""
            given = self._read_line(f"<<<[path or URL of {tag[1:-1]}{several}] ").strip()
            self._shown.setdefault(self._tags[tag], []).append(_link(given))

    def _request(self) -> tuple[Request, Conversation]:
        system = [] if self._system is None else [Message("system", self._system)]
        images, videos, audios = (tuple(self._shown.get(kind, ())) for kind in MEDIA_TAGS)
        conversation = Conversation((*system, *self._messages), self._tools, Media(images, videos, audios))
        prompt = self._prepared.encoder.encode(conversation, inference=True)[-1]
        ids = prompt.input_ids
        room = self._engine.engine.max_model_len - len(ids)
        if room < 1:
            raise SwiftError(
                f"the conversation has {len(ids)} tokens",
                why=f"the model's context holds {self._engine.engine.max_model_len}",
                next="type clear to start a new one",
            )
        sampling = self._prepared.sampling_of(room, tools=bool(self._tools), seed=next(self._seeds))
        adapter = self._plan.engine.default_adapter
        request = Request(id="chat", prompt_ids=tuple(ids), sampling=sampling, adapter=adapter, media=prompt.media)
        return request, conversation

    def _answer(self, request: Request) -> Reply:
        """The reply, shown as it comes when the plan streams. Ctrl-C keeps what there is of it."""
        reply = Reply(request)
        try:
            for delta in self._engine.stream(request):
                reply.add(delta)
                if self._plan.stream:
                    print(delta.text, end="", flush=True)
        except KeyboardInterrupt:
            reply.finish_reason = "abort"
            print(" (stopped)", end="")
        except SwiftError as error:
            reply.error = error.one_line
            return reply
        print("" if self._plan.stream else reply.text)
        return reply

    def _entry(self, what: str) -> str:
        """One entry: a line, or in multi-line mode lines up to the `#`. `what` goes into the prompt."""
        mark = (
            f"[{what}{'M' if self._several_lines and what in ('', 'S') else ''}]" if what or self._several_lines else ""
        )
        line = self._read_line(f"<<<{mark} ")
        if not self._several_lines:
            return line
        lines = [line]
        try:
            while not lines[-1].rstrip().endswith(END):
                lines.append(self._read_line(""))
        except EOFError:  # the end of the input ends the entry too
            return "\n".join(lines)
        lines[-1] = lines[-1].rstrip()[: -len(END)]
        return "\n".join(lines)

    def _lines(self, several: bool) -> None:
        self._several_lines = several
        print(f"(an entry ends with a line ending in {END})" if several else "(an entry is one line)")

    def _reset_system(self) -> None:
        text = self._entry("S")
        self._system = text.strip() or None
        self._forget()

    def _reset_tools(self) -> None:
        text = self._entry("tools").strip()
        try:
            self._tools = read_tools(text)
            self._forget()
        except SwiftError as error:
            print(error, file=sys.stderr)
            return
        print(f"({len(self._tools)} tools; the model's calls are shown and you give the results)")

    def _forget(self) -> None:
        self._messages, self._shown = [], {}

    def _clear(self) -> None:
        self._forget()
        print("(a new conversation)")

    def _history(self) -> None:
        system = self._prepared.encoder.template.default_system if self._system is None else self._system
        if system:
            print(f"system: {system}")
        for message in self._messages:
            print(f"{message.role}: {message.content}")


def read_tools(text: str) -> tuple[dict[str, Any], ...]:
    """Tools from JSON text or from the file that `text` names; none for an empty text. Raises SwiftError."""
    if not text:
        return ()
    source = text
    if not text.startswith("["):
        try:
            source = Path(text).expanduser().read_text("utf-8")
        except (OSError, RuntimeError, ValueError) as error:  # no file, no such user (~name), not UTF-8
            raise SwiftError(f"{text} is neither a JSON list nor a file", why=str(error)) from error
    try:
        tools = json.loads(source)
    except ValueError as error:
        raise SwiftError("the tools are not JSON", why=str(error)) from error
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise SwiftError("the tools are not a JSON list of objects", next='write [{"name": …, "parameters": …}]')
    return tuple(tools)


def chat(plan: InferPlan, prepared: Prepared, engine: SyncEngine, *, one_turn: bool) -> None:
    """Chat at this terminal, or through a pipe, and keep the answers in a result file."""
    _edit_lines()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no text are looked at line by line
    with open_results(plan.results, None, datetime.now()) as results:
        Chat(plan, prepared, engine, results, one_turn=one_turn, read=_read_text).run()
    if results.path is not None:
        log.info("answers: %s", results.path)


def require_input() -> None:
    """Raise SwiftError when there is nobody to chat with, `swift infer … <&-`."""
    if sys.stdin is None:
        raise SwiftError(
            "there is no chat without an input, and standard input is closed",
            next="start it at a terminal, pipe the lines in, or name rows to answer: --val_dataset FILE",
        )


def _read_text(prompt: str) -> str:
    """The next line that is text; that of a pipe or file is shown where a person would have typed it."""
    while True:
        line = input(prompt).removeprefix("\ufeff")  # with which editors of Windows begin a file
        shown = line.encode(errors="surrogateescape").decode(errors="replace")
        if not sys.stdin.isatty():
            print(shown)
        if shown == line:
            return line
        what = f"a line of the input is not UTF-8 and is left out: {shown}"
        print(SwiftError(what, next="convert it: iconv -f latin1 -t utf-8"), file=sys.stderr)


def _edit_lines() -> None:
    """Arrow keys, and the entries so far with arrow up, where Python has its readline module."""
    if sys.stdin.isatty():
        try:
            import readline  # noqa: F401  # importing it is what switches editing on
        except ImportError:
            return


def _link(given: str) -> str:
    """The link that was typed, or dropped on the terminal, which puts quotes around it."""
    quoted = len(given) > 1 and given[0] == given[-1] and given[0] in "'\""
    return os.path.expanduser(plain_link(given[1:-1] if quoted else given))
