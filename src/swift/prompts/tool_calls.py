"""How models write tool calls in their replies, one syntax a format. `call_reader` reads replies by them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CallSyntax:
    """The marks of one format, as regular expressions of the package `regex`, which tells what may become a match.

    A call is its `begin`, the JSON of its arguments (or, where `begin` has no group `name`, a JSON object that holds
    name and arguments), and its `ends`.
    """

    begin: str
    """What stands in front of a call, the line break before it included. `{name}` stands for the tools' names."""
    ends: tuple[str, ...]
    """The marks behind a call that belong to it, in their order; each may be missing."""
    more: str | None = None
    """What may stand between two calls where no `begin` stands between them."""
    fence: str | None = None
    """What may stand between `begin` and the arguments, blanks aside."""
    interrupt: str | None = None
    """What ends arguments that are no whole JSON."""
    left_out: str | None = None
    """Marks of the format that are neither content nor calls."""
    known_names: bool = False
    """Whether only the names of the tools make a call, as the marks alone may stand in any text."""
    example: str | None = None
    """A call with NAME and ARGUMENTS in their places; None where an answer cannot be held to this format."""
    lead: str | None = None
    """What may stand before a call that an answer is held to, as a regular expression."""
    joiner: str | None = None
    """What stands between two calls written like `example`; None where an answer so written holds one call."""


ACTIONS = CallSyntax(
    begin=r"(?i:(?:\A|\n|(?<=\n))[ \t]*action:[ \t]*(?P<name>\S[^\n]*?)\s*\n[ \t]*action input:)",
    fence=r"```(?:json)?\s*(?=[{\[])",
    ends=(r"\s*```", r"(?i:\s*observation:)"),
    interrupt=r"(?i:(?:\n|(?<=\n))[ \t]*(?:observation|thought|action|final answer):)",
    example="Action: NAME\nAction Input: ARGUMENTS",
    lead=r"Thought: [^\n]+\n",
    joiner="\n",
)
"""`Action:` and `Action Input:` lines, in any case of letters."""

GLM4 = CallSyntax(
    begin=r"(?:\A|\n|(?<=\n)|(?<=<\|assistant\|>))[ \t]*(?P<name>{name})[ \t]*\n\s*(?=\{)",
    ends=(r"\s*<\|assistant\|>",),
    known_names=True,
    example="NAME\nARGUMENTS",
    joiner="<|assistant|>",
)
"""The name on one line and the arguments as a JSON object below it, as GLM-4 writes it."""

HERMES = CallSyntax(
    begin=r"\n?<tool_call>\s*(?=\{)",
    ends=(r"\s*</tool_call>",),
    example='<tool_call>\n{"name": "NAME", "arguments": ARGUMENTS}\n</tool_call>',
    joiner="\n",
)
"""`<tool_call>{"name": …, "arguments": …}</tool_call>`, as Qwen and Hermes write it; text may stand around them."""

LLAMA3 = CallSyntax(
    begin=r"\A\s*(?:<\|python_tag\|>\s*)?\[?\s*(?=\{)",
    more=r"\s*[;,]?\s*(?=\{)",
    ends=(r"\s*\]",),
    known_names=True,
    example='{"name":"NAME","parameters":ARGUMENTS}',
)
"""One or more JSON objects with name and parameters and nothing before them, as Llama 3.1 writes them."""

DEEPSEEK = CallSyntax(
    begin=r"\n?(?:<｜tool▁calls?▁begin｜>\s*)?<｜tool▁call▁begin｜>"
    r"(?:function<｜tool▁sep｜>(?P<name>[^\n]+?)\s*\n```json\n|(?!function<)(?P<name>[^<\n]+?)<｜tool▁sep｜>)",
    ends=(r"\s*```", r"\s*<｜tool▁call▁end｜>", r"\s*<｜tool▁calls▁end｜>"),
    interrupt=r"\n```|<｜tool▁call▁end｜>",
    example="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>ARGUMENTS<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
)
"""The call blocks of DeepSeek V3 and R1 (arguments in a fenced block) and of V3.1 (arguments bare)."""

HARMONY = CallSyntax(
    begin=r"(?:<\|start\|>assistant)?(?:<\|channel\|>\w+ ?)?to=functions\.(?P<name>[\w.-]+)[^{\[]*?<\|message\|>",
    ends=(r"\s*(?:<\|call\|>|<\|end\|>)",),
    interrupt=r"<\|call\|>|<\|end\|>",
    left_out=r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis<\|message\|>(?s:.*?)<\|end\|>|final[^<]*<\|message\|>)"
    r"|<\|(?:return|end)\|>",
)
"""The messages to `functions.…` as gpt-oss writes them; what it says on the final channel is the content."""

MISTRAL = CallSyntax(
    begin=r"\s*\[TOOL_CALLS\]\s*(?:\[?\s*(?=\{)|(?P<name>[\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{))",
    more=r"\s*,\s*(?=\{)",
    ends=(r"\s*\]",),
    example='[TOOL_CALLS][{"name": "NAME", "arguments": ARGUMENTS}]',
)
"""`[TOOL_CALLS]` and a JSON list, or (newer) the name and the arguments, as Mistral writes it."""

LIST = CallSyntax(begin=r"\A\s*\[\s*(?=\{)", more=r"\s*,\s*(?=\{)", ends=(r"\s*\]",))
"""A JSON list of calls: what an answer is that has to call."""

_MARKS: tuple[tuple[str, CallSyntax], ...] = (
    ("<｜tool▁call▁begin｜>", DEEPSEEK),
    ("<|channel|>", HARMONY),
    ("<tool_call>", HERMES),
    ("[TOOL_CALLS]", MISTRAL),
    ("<|observation|>", GLM4),
    ('"parameters"', LLAMA3),
)


def syntax_of(chat_template: str) -> CallSyntax | None:
    """The syntax that a Jinja chat template writes calls in, told by its marks; None where none is known."""
    return next((syntax for mark, syntax in _MARKS if mark in chat_template), None)
