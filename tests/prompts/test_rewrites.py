"""What chat templates leave out of answers, strip or reorder is remarked; what they keep is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from tests.prompts.conftest import TEMPLATES

from swift.prompts.encode import Encoder
from swift.prompts.rewrites import BLANKS, CALLS, CONTEXT, LOST, ORDER, TEXT, THINKING
from swift.prompts.types import Conversation, Message, ToolCall

NAMES = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
ASK = Message("user", "2+2?")
TOOL = {"type": "function", "function": {"name": "ship", "description": "Ships.", "parameters": {}}}
ARGUMENTS = '{"to": "Oslo \\"N\\"\\n<b> é", "count": 3, "more": [1, {"express": true}]}'

TURN = "<|im_start|>{{ m.role }}\n"
CALL = "<call>{{ c.function.name }}{{ c.function.arguments | tojson }}</call>"


def template(
    content: str = "{{ m.content }}", calls: str = f"{{% for c in m.tool_calls %}}{CALL}{{% endfor %}}"
) -> str:
    """ChatML that writes the content and the calls of each message in its own way."""
    answer = f"{content}{{% if m.tool_calls %}}{calls}{{% endif %}}"
    loop = f"{{% for m in messages %}}{TURN}{answer}<|im_end|>\n{{% endfor %}}"
    listed = "{% if tools %}{{ tools | tojson }}{% endif %}"
    return listed + loop + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


CUT = template("{{ m.content.split('</think>')[-1] }}")
STRIPS = template("{{ m.content | trim }}")
FLATTENS = template("{{ m.content.split() | join(' ') }}")
SHORTENS = template("{{ m.content[:12] }}")
ONE_CALL = template(calls=f"{{% for c in m.tool_calls[:1] %}}{CALL}{{% endfor %}}")
NO_ARGUMENTS = template(calls="{% for c in m.tool_calls %}<call>{{ c.function.name }}</call>{% endfor %}")
CALLS_FIRST = template(
    "{{ m.content if not m.tool_calls }}", f"{{% for c in m.tool_calls %}}{CALL}{{% endfor %}}{{{{ m.content }}}}"
)
NO_SYSTEM = template("{{ m.content if m.role != 'system' else '' }}")
NO_RESULTS = template("{{ m.content if m.role != 'tool' else '' }}")


def said(content: str, **more: Any) -> Conversation:
    return Conversation((ASK, Message("assistant", content, **more)))


def called(*names: str, content: str = "") -> Conversation:
    calls = tuple(ToolCall(name, ARGUMENTS) for name in names)
    results = [Message("tool", f'{{"result": {place}}}') for place, _ in enumerate(names)]
    return Conversation((ASK, Message("assistant", content, calls), *results, Message("assistant", "Done.")), (TOOL,))


REMARKED: dict[str, tuple[str, Conversation, set[str]]] = {
    "thinking in the text": (CUT, said("<think>\ntwo and two\n</think>\n\n4"), {THINKING}),
    "thinking of its own": (CUT, said("4", reasoning="two and two"), {THINKING}),
    "no thinking": (CUT, said("4"), set()),
    "text before the mark": (CUT, said("so </think> 4"), {THINKING}),
    "blanks around": (STRIPS, said(" 4 \n"), {BLANKS}),
    "no blanks around": (STRIPS, said("4\n  5"), set()),
    "blanks inside": (FLATTENS, said("def f():\n    pass"), {TEXT}),
    "the end": (SHORTENS, said("a long and winding answer"), {TEXT}),
    "not the end": (SHORTENS, said("a short one"), set()),
    "an answer that is not trained": (SHORTENS, said("a long and winding answer", weight=0.0), set()),
    "a second call": (ONE_CALL, called("ship", "ship"), {CALLS}),
    "one call": (ONE_CALL, called("ship"), set()),
    "arguments": (NO_ARGUMENTS, called("ship"), {CALLS}),
    "calls before text": (CALLS_FIRST, called("ship", content="One moment."), {ORDER}),
    "calls after text": (template(), called("ship", "stock", content="One moment, ship and stock."), set()),
    "the system text": (NO_SYSTEM, Conversation((Message("system", "Be kind."), *said("4").messages)), {"system"}),
    "a result": (NO_RESULTS, called("ship"), {"tool"}),
}


@pytest.fixture
def encoder_with(chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]) -> Callable[[str], Encoder]:
    """The encoder of a chat template of our own."""

    def build(text: str) -> Encoder:
        tokenizer = copy.deepcopy(chat_tokenizer("qwen2_5"))
        tokenizer.chat_template = text
        return encoder_of("jinja", tokenizer)

    return build


@pytest.mark.parametrize("case", REMARKED)
def test_what_a_template_does_to_the_text_is_remarked(case: str, encoder_with: Callable[[str], Encoder]) -> None:
    text, row, remarks = REMARKED[case]
    assert set(encoder_with(text).encode(row)[-1].rewrites) == {CONTEXT.get(remark, remark) for remark in remarks}


@pytest.mark.parametrize("name", NAMES)
def test_published_templates_lose_nothing_of_plain_conversations(
    name: str, chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer(name))
    turns = (ASK, Message("assistant", "4\n  5"), Message("user", " and\n\n3? "), Message("assistant", "你好 \\ é"))
    for row in (Conversation(turns), called("ship")):
        remarks = {remark for encoded in encoder.encode(row) for remark in encoded.rewrites}
        assert LOST.isdisjoint(remarks)
        assert not remarks.intersection(CONTEXT.values())
        assert all("the prompt to answer ends in" in remark for remark in remarks) and bool(remarks) == (
            name == "deepseek_r1"
        )


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("deepseek_r1", said("<think>\nwhy\n</think>\n\n4")),
        ("gptoss", called("ship", "ship")),
        ("mistral_nemo", called("ship", content="One moment.")),
        ("llama3_1_tools", called("ship", content="One moment.")),
    ],
)
def test_losses_of_published_templates(
    name: str, row: Conversation, chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoded = encoder_of("jinja", chat_tokenizer(name)).encode(row)[-1]
    assert len(LOST.intersection(encoded.rewrites)) == 1


def test_a_prompt_that_opens_thinking_is_remarked_where_answers_have_none(
    encoder_with: Callable[[str], Encoder],
) -> None:
    encoder = encoder_with(template().replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"))
    (plain,) = encoder.encode(said("4"))
    assert len(plain.rewrites) == 1 and "ends in '<think>\\n'" in plain.rewrites[0]
    (thought,) = encoder.encode(said("<think>\ntwo and two\n</think>\n\n4"))
    assert thought.rewrites == ()
