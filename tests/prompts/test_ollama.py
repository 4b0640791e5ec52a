"""Ollama builds the same prompt: the Modelfile's Go template gives the ids of our own rendering."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.prompts.go_template import render

from swift.core.errors import SwiftError
from swift.prompts import parity
from swift.prompts.encode import Encoder
from swift.prompts.ollama import Modelfile, modelfile_template
from swift.prompts.tool_formats import FORMATS
from swift.prompts.types import Conversation, Message

TEMPLATES = ("chatml", "qwen2_5", "smollm2", "gemma", "zephyr", "deepseek", "chatglm4", "phi3")
OTHER_TOKENIZERS = ("llama3", "llama", "mistral-nemo")
"""SmolLM2's tokenizer joins the line ends and spaces of these with the answer behind them; their own ones do not."""


def _ollama_text(modelfile: Modelfile, conversation: Conversation) -> str:
    """What Ollama writes: the system turn or the Modelfile's, then the turns."""
    turns = [
        {
            "Role": message.role,
            "Content": message.content,
            "ToolCalls": [
                {"Function": {"Name": call.name, "Arguments": json.loads(call.arguments)}}
                for call in message.tool_calls
            ],
        }
        for message in conversation.messages
    ]
    given = [turn["Content"] for turn in turns if turn["Role"] == "system"]
    system = given[0] if given else modelfile.system or ""
    return render(
        modelfile.template, {"System": system, "Messages": turns, "Tools": list(map(_named, conversation.tools))}
    )


def _named(tool: Any) -> Any:
    """A tool with the names that Go has for its fields."""
    function = {key.capitalize(): value for key, value in tool["function"].items()}
    return {"Type": tool["type"], "Function": function}


def _without_blanks(text: str, conversation: Conversation) -> str:
    """Our text with the JSON of tools and calls as Go writes it."""
    for tool in conversation.tools:
        for value in (tool, tool["function"], tool["function"]["parameters"]):
            compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            for indent in (None, 4):
                text = text.replace(json.dumps(value, ensure_ascii=False, indent=indent), compact)
    for message in conversation.messages:
        for call in message.tool_calls:
            text = text.replace(call.arguments, json.dumps(json.loads(call.arguments), separators=(",", ":")))
    return text


def _ollama(modelfile: Modelfile, tokenizer: Any, conversation: Conversation) -> list[int]:
    """The ids Ollama makes: the system turn or the Modelfile's, then the turns, with what the tokenizer adds."""
    return tokenizer.encode(_ollama_text(modelfile, conversation))


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("tokenizer_name", ["smollm2-plus", "smollm2-plus-bos"])
def test_ids_are_equal(
    name: str, tokenizer_name: str, golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    tokenizer = golden_tokenizer(tokenizer_name)
    encoder = encoder_of(name, tokenizer)
    modelfile = modelfile_template(encoder.template, tokenizer)
    system = Message("system", "Be short.")
    for conversation in (*parity.fixed_set().values(), *parity.fixed_set(system).values()):
        if conversation.tools:
            continue
        ours = encoder.prompt_ids(conversation)
        if tokenizer_name.endswith("-bos") and ours[0] != tokenizer.bos_token_id:
            ours = [tokenizer.bos_token_id, *ours]  # The tokenizer adds it, and so does Ollama.
        assert _ollama(modelfile, tokenizer, conversation) == ours


@pytest.mark.parametrize("name", (*TEMPLATES, *OTHER_TOKENIZERS))
def test_text_is_equal(name: str, golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    encoder = encoder_of(name, tokenizer)
    modelfile = modelfile_template(encoder.template, tokenizer)
    system = Message("system", "Be short.")
    result = Conversation((system, Message("user", "Hi"), Message("assistant", "Action: f"), Message("tool", "3")))
    for conversation in (*parity.fixed_set(system).values(), *parity.fixed_set().values(), result):
        if conversation.tools and not modelfile.tools:
            continue
        ours = encoder.tokens.decode(encoder.prompt_ids(conversation))
        assert _ollama_text(modelfile, conversation) == _without_blanks(ours, conversation)


@pytest.mark.parametrize("tools_format", FORMATS)
@pytest.mark.parametrize("name", ["chatml", "llama3", "llama"])
def test_tools_are_written_in_every_format(
    name: str, tools_format: str, golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    encoder = encoder_of(name, tokenizer, tools_format=tools_format)
    modelfile = modelfile_template(encoder.template, tokenizer)
    assert modelfile.tools
    two = parity.fixed_set()["tools"]
    other = {"name": "clock", "description": "", "parameters": {"type": "object", "properties": {}}}
    several = replace(two, tools=(*two.tools, {"type": "function", "function": other}))
    for conversation in (two, several, *parity.fixed_set(Message("system", "Be short.")).values()):
        ours = encoder.tokens.decode(encoder.prompt_ids(conversation))
        assert _ollama_text(modelfile, conversation) == _without_blanks(ours, conversation)


def test_file(golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]) -> None:
    tokenizer = golden_tokenizer("smollm2")
    text = modelfile_template(encoder_of("smollm2", tokenizer).template, tokenizer).text("/models/mine")
    assert text.startswith(
        'FROM /models/mine\nTEMPLATE """{{ if or $.System $.Tools }}<|im_start|>system\n{{ $.System }}'
    )
    assert 'SYSTEM """You are a helpful AI assistant named SmolLM, trained by Hugging Face"""\n' in text
    assert text.endswith('PARAMETER stop "<|im_end|>"\nPARAMETER stop "Observation:"\n')


def test_what_ollama_cannot_do_is_refused(
    golden_tokenizer: Callable[[str], Any], chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    plus = golden_tokenizer("smollm2-plus")
    for name in ("chatglm2", "llama3_2"):
        with pytest.raises(SwiftError, match="cannot be written for Ollama"):
            modelfile_template(encoder_of(name, plus).template, plus)
    qwen3 = chat_tokenizer("qwen3")
    with pytest.raises(SwiftError, match="cannot take a Jinja chat template"):
        modelfile_template(encoder_of("jinja", qwen3).template, qwen3)
