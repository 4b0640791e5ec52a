"""Ollama builds the same prompt: the Modelfile's Go template gives the ids of our own rendering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.prompts.go_template import render

from swift.core.errors import SwiftError
from swift.prompts import parity
from swift.prompts.encode import Encoder
from swift.prompts.ollama import Modelfile, modelfile_template
from swift.prompts.types import Conversation, Message

TEMPLATES = ("chatml", "qwen2_5", "smollm2", "gemma", "zephyr", "deepseek", "chatglm4", "phi3")
OTHER_TOKENIZERS = ("llama3", "llama", "mistral-nemo")
"""SmolLM2's tokenizer joins the line ends and spaces of these with the answer behind them; their own ones do not."""


def _ollama_text(modelfile: Modelfile, conversation: Conversation) -> str:
    """What Ollama writes: the system turn or the Modelfile's, then the turns."""
    turns = [{"Role": m.role, "Content": m.content} for m in conversation.messages]
    given = [turn["Content"] for turn in turns if turn["Role"] == "system"]
    return render(modelfile.template, {"System": given[0] if given else modelfile.system or "", "Messages": turns})


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
    for conversation in (*parity.fixed_set(system).values(), result):
        if not conversation.tools:
            assert _ollama_text(modelfile, conversation) == encoder.tokens.decode(encoder.prompt_ids(conversation))


def test_file(golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]) -> None:
    tokenizer = golden_tokenizer("smollm2")
    text = modelfile_template(encoder_of("smollm2", tokenizer).template, tokenizer).text("/models/mine")
    assert text.startswith(
        'FROM /models/mine\nTEMPLATE """{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n'
    )
    assert 'SYSTEM """You are a helpful AI assistant named SmolLM, trained by Hugging Face"""\n' in text
    assert text.endswith('PARAMETER stop "<|im_end|>"\n')


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
