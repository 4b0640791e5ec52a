"""Whether prompts are the same everywhere: as the tokenizer's own template, as at training, and fit to train on.

A fixed set of conversations is rendered; differences are told as the first token that differs, in words.
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.core.log import log, once
from swift.core.transaction import write_file
from swift.prompts.encode import Encoder
from swift.prompts.jinja import JinjaTemplate
from swift.prompts.template import DataTemplate
from swift.prompts.tokens import Tokens
from swift.prompts.types import IGNORED, Conversation, Message, ToolCall

FILE = "template.json"
"""Stands in each checkpoint."""

_DAY = datetime.date(2024, 7, 26)
"""The fixed set is rendered on one day, so that a template that writes the date is tomorrow what it is today."""

_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_SYSTEM = Message("system", "Be short.")
_ASK = Message("user", "What is 2+2?")
_CALL = Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Oslo"}'),))


def fixed_set(*system: Message) -> Mapping[str, Conversation]:
    """Conversations to answer, by what they show, each with this system turn in front if one is given."""
    ask_again = (
        _ASK,
        Message("assistant", "4"),
        Message("user", "你好，世界"),
        Message("assistant", "Yes.\nNo."),
        _ASK,
    )
    thought = (_ASK, Message("assistant", "<think>\nTwo and two.\n</think>\n\n4"), _ASK)
    cold = Message("user", "Is it cold in Oslo?")
    return {
        "one question": Conversation((*system, _ASK)),
        "several turns": Conversation((*system, *ask_again)),
        "thinking": Conversation((*system, *thought)),
        "tools": Conversation((*system, cold), (_TOOL,)),
        "a tool's result": Conversation((*system, cold, _CALL, Message("tool", '{"celsius": -3}')), (_TOOL,)),
    }


def differences_from_own(encoder: Encoder) -> list[str]:
    """How a registered template differs from the chat template of the tokenizer, one line a conversation.

    Empty where there is nothing to compare: the tokenizer has no chat template, or it is the one in use.
    """
    tokenizer = encoder.tokens.tokenizer
    if isinstance(encoder.template, JinjaTemplate) or not tokenizer.chat_template:
        return []
    own_template = JinjaTemplate(tokenizer)
    own = Encoder(encoder.plan, own_template.on(_DAY), Tokens(tokenizer, whole=True))
    ours, compared = _on(encoder, _DAY), dict(fixed_set(_SYSTEM))
    if encoder.plan.system is not None:  # of the user's own choice, which is no difference
        ours = _without_default_system(ours)
    else:
        # A chat template's default system text cannot be switched off, so only the first conversation leaves it in.
        compared = {"the default system text": Conversation((_ASK,)), **compared}
    if _prompt(ours, compared["one question"]) is None or _prompt(own, compared["one question"]) is None:
        compared = dict(fixed_set())
    differences = []
    for name, conversation in compared.items():
        if conversation.tools and not own_template.native_tools:
            continue  # Neither has a form of its own for tools.
        theirs, mine = _prompt(own, conversation), _prompt(ours, conversation)
        if theirs is not None and mine is not None and theirs != mine:
            differences.append(f"{name}: {first_difference(encoder.tokens, mine, theirs, 'the chat template')}")
    return list(_end_difference(ours, own)) + differences


def _end_difference(ours: Encoder, own: Encoder) -> Iterator[str]:
    """The end of an answer; a chat template may write a line end behind it that nobody reads."""
    answered = Conversation((_ASK, Message("assistant", "4")))
    try:
        mine, theirs = ours.text_ids(answered), own.text_ids(answered)
    except SwiftError:
        return
    if _prompt(ours, Conversation((_ASK,))) == _prompt(own, Conversation((_ASK,))) and theirs[: len(mine)] != mine:
        yield f"the end of an answer: {first_difference(ours.tokens, mine, theirs, 'the chat template')}"


def say_differences_from_own(encoder: Encoder) -> None:
    """Log once how a registered template differs from the tokenizer's own chat template, if it does.

    That tools are written in another form is a choice, not a fault, and is only noted.
    """
    differences = differences_from_own(encoder)
    if not differences:
        return
    names = [line.partition(":")[0] for line in differences]
    more = f" (and with {', '.join(names[1:])})" if names[1:] else ""
    faults = [name for name in names if "tool" not in name]
    once(
        f"the template {encoder.template_type} does not write what the tokenizer's chat template does. "
        f"With {differences[0]}{more}. --template_type jinja takes the tokenizer's own.",
        level=logging.WARNING if faults else logging.INFO,
    )


def certificate(encoder: Encoder) -> dict[str, Any]:
    """What a checkpoint keeps of its template: the kind, a fingerprint, and the ids of the fixed set."""
    bare = _without_default_system(_on(encoder, _DAY))
    facts = json.dumps(bare.template.facts(), ensure_ascii=False, sort_keys=True)
    texts = {f"{name}, with a system text": text for name, text in fixed_set(_SYSTEM).items()}
    prompts = {name: _prompt(bare, text) for name, text in {**fixed_set(), **texts}.items()}
    images = {} if encoder.images is None else {"images": encoder.images.facts}
    return {
        "version": 1,
        "template_type": encoder.template_type,
        "fingerprint": hashlib.sha256(facts.encode()).hexdigest(),
        "prompts": {name: ids for name, ids in prompts.items() if ids is not None},
        **images,
    }


def write_certificate(encoder: Encoder, folder: Path) -> None:
    """Put the certificate into a checkpoint."""
    write_file(folder / FILE, json.dumps(certificate(encoder), ensure_ascii=False, indent=1))


def check(saved: Mapping[str, Any], encoder: Encoder) -> list[str]:
    """How the prompts of `encoder` differ from those of a certificate, one line a conversation."""
    now = certificate(encoder)
    differences = []
    for name, ids in saved.get("prompts", {}).items():
        mine = now["prompts"].get(name)
        if mine is None:
            differences.append(f"{name}: the template {encoder.template_type} cannot write it")
        elif mine != ids:
            differences.append(f"{name}: {first_difference(encoder.tokens, mine, ids, 'the checkpoint')}")
    return differences + _of_images(saved, encoder)


def _of_images(saved: Mapping[str, Any], encoder: Encoder) -> list[str]:
    """How `encoder` treats images otherwise than a certificate says."""
    mine, theirs = {} if encoder.images is None else encoder.images.facts, saved.get("images", {})
    return [f"images: {name} is {own}, in the checkpoint {other}" for name, own, other in different_facts(mine, theirs)]


def different_facts(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What two models say otherwise of how images are treated: name, and what each says of it."""
    return [
        (name, mine.get(name), theirs.get(name))
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
    ]


def require_same_images(folder: Path, encoder: Encoder, ignore: bool) -> None:
    """Refuse to go on with training where images are treated otherwise than before; with `ignore`, say so and go on.

    Raises SwiftError naming the setting.
    """
    path = folder / FILE
    if encoder.images is None or not path.is_file():
        return
    differences = _of_images(_certificate_in(path), encoder)
    if not differences:
        return
    what = "images are treated otherwise than in the checkpoint that this run goes on from"
    if ignore:
        once(f"{what}: {differences[0]}")
        return
    raise SwiftError(
        what,
        where="--resume_from_checkpoint",
        why=differences[0],
        next="leave --model_kwargs, --rescale_image and variables such as MAX_PIXELS as they were, or pass"
        " --ignore_template_mismatch true",
    )


def _certificate_in(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SwiftError(f"{FILE} of the checkpoint is not readable", where=str(path), why=str(error)) from None


def require_same_template(folder: Path, encoder: Encoder, ignore: bool) -> None:
    """Refuse to go on when the checkpoint was trained on other prompts; with `ignore`, say so and go on.

    Checkpoints without a certificate pass. Raises SwiftError naming the first token that differs.
    """
    path = folder / FILE
    if not path.is_file():
        log.info("%s has no %s, so its prompts cannot be compared with the ones used now", folder, FILE)
        return
    saved = _certificate_in(path)
    differences = check(saved, encoder)
    if not differences:
        return
    what = "the prompts differ from those this checkpoint was trained on"
    why = f"trained with the template {saved.get('template_type')}, now {encoder.template_type}. With {differences[0]}"
    if ignore:
        once(f"{what}: {why}")
        return
    raise SwiftError(
        what,
        where=str(path),
        why=why,
        next="leave --template_type and --tools_prompt as they were, or pass --ignore_template_mismatch true",
    )


def preflight(encoder: Encoder, row: Mapping[str, Sequence[int]], where: str | None) -> None:
    """Refuse to train on a row without a trained end of the answer. `where` is its file and line."""
    trained = [label for label in row["labels"] if label != IGNORED]
    if trained and not _contains(trained, encoder.turn_end):
        raise SwiftError(
            "the end of the answer is never trained, so the model would not learn to stop",
            where=where,
            why=f"the template {encoder.template_type} writes no end-of-turn token behind the last answer",
            next="choose a registered template with --template_type, or mend the chat template",
        )


def require_known_tokens(encoder: Encoder, row: Mapping[str, Any]) -> None:
    """Refuse a template that writes ids of another tokenizer, as those that name a token by its number may."""
    tokenizer = encoder.tokens.tokenizer
    ids = {id for name in row if name.endswith("input_ids") for id in row[name] if id >= len(tokenizer)}
    strange = sorted(id for id in ids if tokenizer.convert_ids_to_tokens(id) is None)
    if strange:
        raise SwiftError(
            f"the template {encoder.template_type} writes the token {strange[0]}, which this tokenizer has not",
            where=f"--template_type {encoder.template_type}",
            why=f"the tokenizer has {len(tokenizer)} tokens",
            next="name the template of this model",
        )


def _contains(tokens: Sequence[int], part: Sequence[int]) -> bool:
    size = len(part)
    return size > 0 and any(list(tokens[i : i + size]) == list(part) for i in range(len(tokens) - size, -1, -1))


def _prompt(encoder: Encoder, conversation: Conversation) -> list[int] | None:
    """The ids of a prompt, or None where the template cannot write it."""
    try:
        return encoder.prompt_ids(conversation)
    except SwiftError:
        return None


def _on(encoder: Encoder, day: datetime.date) -> Encoder:
    return Encoder(encoder.plan, encoder.template.on(day), encoder.tokens)


def _without_default_system(encoder: Encoder) -> Encoder:
    """`--system` may differ from run to run by intent; it is no part of a certificate."""
    template: DataTemplate | JinjaTemplate = copy.copy(encoder.template)
    template.default_system = None
    return Encoder(encoder.plan, template, encoder.tokens)


def first_difference(tokens: Tokens, mine: Sequence[int], theirs: Sequence[int], other: str) -> str:
    """Where `mine` leaves what the `other` has (`theirs`), in words."""
    place = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
    place = min(len(mine), len(theirs)) if place is None else place
    before = tokens.decode(mine[max(0, place - 8) : place])

    def given(ids: Sequence[int]) -> str:
        return f"{tokens.decode(ids[place : place + 4])!r}" if place < len(ids) else "nothing more"

    after = f"after {before!r} " if before else ""
    return f"token {place + 1} differs: {after}comes {given(mine)}, in {other} {given(theirs)}"
