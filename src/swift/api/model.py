"""A loaded model that answers conversations in this process."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from swift.api.arguments import arguments, faults_told
from swift.core.errors import SwiftError, raise_together
from swift.core.probe import probe
from swift.params.args import Args
from swift.params.commands import COMMANDS
from swift.params.keywords import read_keywords
from swift.prompts.bad_row import BadRow
from swift.prompts.types import Conversation, Preference

Messages = str | Sequence[Mapping[str, Any]]
"""A question, or turns as rows and the OpenAI API have them: [{"role": "user", "content": "…"}]."""


class Model:
    """A model with its engine. Close it, or use it as a context manager, to give its memory back."""

    @faults_told()
    def __init__(self, args: Args):
        """Load what the arguments of `swift infer` name. Raises SwiftError."""
        from swift.catalog import load_catalog
        from swift.engines.bf16_speedup import bf16_speedup
        from swift.engines.factory import prepare, start
        from swift.engines.sync_engine import SyncEngine
        from swift.exporting.merge_first import with_merged
        from swift.models.gguf.unpack import with_unpacked
        from swift.params.groups import Data
        from swift.params.groups import Model as ModelFlags
        from swift.plan.infer import plan_infer

        catalog = load_catalog(args[ModelFlags].custom_register_path, args[Data].custom_dataset_info)
        machine = probe()
        args = with_merged(with_unpacked(args), catalog, machine)
        self._plan = plan_infer(args, catalog, machine, answers_rows=False, bf16_speedup=bf16_speedup)
        self._prepared = prepare(self._plan, catalog)
        self._engine = SyncEngine(partial(start, self._plan, self._prepared))
        self._numbers = itertools.count()
        self._open = True

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def generate(
        self,
        messages: Messages,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> str:
        """The answer. What is not given here follows the flags that the model was loaded with. Raises SwiftError."""
        pieces = self.stream(messages, tools=tools, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        return "".join(pieces)

    def stream(
        self,
        messages: Messages,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The answer piece by piece; leaving the iterator stops it. Raises SwiftError."""
        from swift.engines.base import Request

        if not self._open:
            raise SwiftError("the model is closed", next="load it again")
        own = _sampling(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        encoder = self._prepared.encoder
        talk = conversation(messages, tools, media_in_text=encoder.images is not None)
        prompt = encoder.encode(talk, inference=True)[-1]
        ids = prompt.input_ids
        room = self._engine.engine.max_model_len - len(ids)
        if room < 1:
            raise SwiftError(f"the prompt has {len(ids)} tokens, the context holds {len(ids) + room}", where="messages")
        sampling = self._prepared.sampling_of(room, tools=bool(talk.tools), seed=own.get("seed"))
        if "max_new_tokens" in own:
            sampling = replace(sampling, max_tokens=min(own["max_new_tokens"], room))
        if "temperature" in own:
            sampling = replace(sampling, temperature=own["temperature"])
        request = Request(
            id=f"call-{next(self._numbers)}",
            prompt_ids=tuple(ids),
            sampling=sampling,
            adapter=self._plan.engine.default_adapter,
            media=prompt.media,
        )
        for delta in self._engine.stream(request):
            if delta.error is not None:
                raise SwiftError(delta.error)
            if delta.text:
                yield delta.text

    def chat(self, system: str | None = None) -> Chat:
        """A conversation that remembers its turns."""
        return Chat(self, system)

    def close(self) -> None:
        """Stop the engine and give its memory back."""
        if self._open:
            self._open = False
            self._engine.__exit__()


class Chat:
    """A conversation: call it with a question."""

    def __init__(self, model: Model, system: str | None = None):
        """`system` None is the template's own system text."""
        self.model = model
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[dict[str, Any]] = [*self._system]
        """The turns so far."""

    def __call__(self, query: str, **sampling: Any) -> str:
        """The answer, which is remembered with the question; `sampling` as in `Model.generate`."""
        turns = [*self.messages, {"role": "user", "content": query}]
        answer = self.model.generate(turns, **sampling)
        self.messages = [*turns, {"role": "assistant", "content": answer}]
        return answer

    def clear(self) -> None:
        """Forget all turns."""
        self.messages = [*self._system]


def _sampling(**given: Any) -> dict[str, Any]:
    """What was given, checked as the flags of these names are. Raises SwiftError."""
    reading = read_keywords(COMMANDS["infer"], {name: value for name, value in given.items() if value is not None})
    raise_together(reading.errors)
    return {name: flag.value for name, flag in reading.flags.items()}


def load(checkpoint: str | os.PathLike[str], **flags: Any) -> Model:
    """A checkpoint, a model's folder, a model_type or a hub id, ready to answer; `flags` are those of `swift infer`."""
    from swift.catalog import load_catalog

    if not isinstance(checkpoint, str | os.PathLike):
        raise SwiftError(
            f"a model is named by a text or a path, not {type(checkpoint).__name__}",
            where="checkpoint",
            next="a checkpoint, a folder, a model_type or a hub id",
        )
    named = os.fspath(checkpoint)
    if Path(named).expanduser().is_dir():
        flags = {"ckpt_dir": named, **flags}
    elif named in load_catalog(flags.get("custom_register_path"), flags.get("custom_dataset_info")).models:
        flags = {"model_type": named, **flags}
    else:
        flags = {"model_id_or_path": named, **flags}
    return Model(arguments("infer", None, flags))


def conversation(
    messages: Messages, tools: Sequence[Mapping[str, Any]], *, media_in_text: bool = False
) -> Conversation:
    """What is to be answered, read like the turns of a row, whose questions may name files where there is
    `media_in_text`. Raises SwiftError naming the turn that is wrong."""
    from swift.data.formats import convert

    listed = isinstance(messages, Sequence) and all(isinstance(turn, Mapping) for turn in messages)
    if not isinstance(messages, str) and not listed:
        raise SwiftError(
            "messages take a question, or a list of turns",
            where=f"messages={messages!r}"[:80],
            next='[{"role": "user", "content": "…"}]',
        )
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(map(_as_said, messages))
    try:
        given = {"messages": turns, **({"tools": list(tools)} if tools else {})}
        row = convert(given, answered=False, media_in_text=media_in_text).row
    except BadRow as bad:
        raise SwiftError(f"the messages cannot be answered: {bad}", where="messages") from None
    talk = row.chosen if isinstance(row, Preference) else row
    if not talk.messages or talk.messages[-1].role not in ("user", "tool"):
        raise SwiftError("the messages end with no turn to answer", where="messages", next="end with the user's turn")
    return talk


def _as_said(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn of a row, an answer as one that is not trained: it may be blank, as answers are."""
    return {**turn, "weight": 0} if turn.get("role") == "assistant" else dict(turn)
