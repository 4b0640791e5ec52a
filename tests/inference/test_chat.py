"""The chat's own behaviour, with an engine that says what it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.engines.base import NOTHING_SHOWN, Delta, Request, TokenLogprob
from swift.engines.factory import Prepared
from swift.engines.sync_engine import SyncEngine
from swift.inference.result_file import Results
from swift.inference.terminal import Chat, read_tools, require_input
from swift.params.groups import Generate
from swift.params.parse import parse
from swift.plan.infer import plan_infer, plan_sampling
from swift.prompts.encode import build_encoder
from swift.prompts.types import Media


class Parrot:
    """Answers from a list; `None` is a person who presses Ctrl-C after the first piece."""

    max_model_len = 2000
    adapters = ()
    reader = None

    def __init__(self, tokenizer, answers: list[str]):
        self.tokenizer = tokenizer
        self.answers = answers
        self.prompts: list[str] = []

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        self.prompts.append(self.tokenizer.decode(request.prompt_ids))
        yield Delta(request_id=request.id, text=self.answers.pop(0), finish_reason="stop")

    async def log_probs(
        self,
        prompt_ids: tuple[int, ...],
        continuations: Sequence[tuple[int, ...]],
        adapter: str | None = None,
        top: int = 0,
        media: Media = NOTHING_SHOWN,
    ) -> list[list[TokenLogprob]]:
        raise NotImplementedError

    async def add_adapter(self, name: str, folder: str) -> None:
        raise NotImplementedError

    def statistics(self) -> dict[str, float]:
        return {}

    async def close(self) -> None:
        pass


Talk = Callable[[list[str], list[str | BaseException]], Parrot]


@pytest.fixture
def talk(tiny_llama_dir: Path) -> Talk:
    """(answers, entries) -> the parrot after the chat."""

    def run(answers: list[str], entries: list[str | BaseException]) -> Parrot:
        args = parse(["infer", "--model_id_or_path", str(tiny_llama_dir), "--tools_prompt", "react_en"])
        catalog = load_catalog()
        plan = plan_infer(args, catalog, Machine())
        tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
        encoder = build_encoder(plan.prompt, tokenizer, catalog)
        prepared = Prepared(tiny_llama_dir, tokenizer, encoder, plan_sampling(Generate(), {}), False)
        parrot = Parrot(tokenizer, answers)

        async def start() -> Parrot:
            return parrot

        def read(prompt: str) -> str:
            if not entries:
                raise EOFError
            entry = entries.pop(0)
            if isinstance(entry, BaseException):
                raise entry
            return entry

        with SyncEngine(start) as engine:  # type: ignore[arg-type]
            Chat(plan, prepared, engine, Results(None, 0, None), one_turn=False, read=read).run()
        return parrot

    return run


def test_the_conversation_grows_and_clear_ends_it(talk: Talk) -> None:
    parrot = talk(["one", "two", "three"], ["First", "Second", "clear", "Third"])
    assert "First" in parrot.prompts[1] and "one" in parrot.prompts[1]
    assert "First" not in parrot.prompts[2]


def test_ctrl_c_at_the_prompt_does_not_end_the_chat(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    parrot = talk(["fine"], [KeyboardInterrupt(), "Still there?", "exit", "never read"])
    assert len(parrot.prompts) == 1
    assert "fine" in capsys.readouterr().out


def test_a_tool_call_asks_for_its_result_and_goes_on(talk: Talk) -> None:
    tools = '[{"name": "weather", "description": "of a city", "parameters": {"type": "object", "properties": {}}}]'
    call = 'Action: weather\nAction Input: {"city": "Oslo"}\n'
    parrot = talk([call, "It is cold."], ["tools", tools, "How is Oslo?", '{"celsius": -3}'])
    assert "weather" in parrot.prompts[0]
    assert '{"celsius": -3}' in parrot.prompts[1]


def test_the_end_of_the_input_ends_an_entry_of_several_lines(talk: Talk) -> None:
    parrot = talk(["fine"], ["multi-line", "first", "second"])
    assert "first\nsecond" in parrot.prompts[0]


def test_a_closed_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SwiftError, match="standard input is closed"):
        require_input()


def test_an_empty_system_entry_takes_the_system_back(talk: Talk) -> None:
    parrot = talk(["a", "b"], ["reset-system", "Be a pirate.", "Hi", "reset-system", "", "Hi"])
    assert "pirate" in parrot.prompts[0]
    assert "pirate" not in parrot.prompts[1]


@pytest.mark.parametrize("text", ["{}", "[1]", "[broken", "/no/such/file.json"])
def test_tools_that_are_none(text: str) -> None:
    with pytest.raises(SwiftError):
        read_tools(text)
