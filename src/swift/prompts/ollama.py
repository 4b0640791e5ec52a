"""A registered template as the Go template of an Ollama Modelfile, so that Ollama builds the same prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swift.core.errors import SwiftError
from swift.prompts import ollama_tools
from swift.prompts.template import DataTemplate

Piece = str | tuple[int, ...]


@dataclass(frozen=True)
class Modelfile:
    """The lines of a Modelfile that are about prompts and answers."""

    template: str
    stop: tuple[str, ...]
    system: str | None
    """The default system text."""
    tools: bool = False
    """Whether the template writes tools and calls."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """How answers are sampled, by Ollama's names."""

    def text(self, source: str) -> str:
        """The whole file for the weights at `source`."""
        lines = [f"FROM {source}", f'TEMPLATE """{self.template}"""']
        if self.system is not None:
            lines.append(f'SYSTEM """{self.system}"""')
        lines += [f"PARAMETER stop {_quoted(stop)}" for stop in self.stop]
        lines += [f"PARAMETER {name} {value:g}" for name, value in self.parameters.items()]
        return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'


def modelfile_template(template: Any, tokenizer: Any) -> Modelfile:
    """The template as Ollama takes it.

    Raises SwiftError for a Jinja template and for one that counts the turns, which Go templates cannot.
    """
    if not isinstance(template, DataTemplate):
        raise SwiftError(
            "Ollama cannot take a Jinja chat template",
            next="name a registered template that writes the same prompt with --template_type",
        )
    write = _Writer(template, tokenizer)
    user = write.before_last() + write(template.prompt, query="{{ .Content }}")
    result = write.before_last() + write([*template.call_end, *template.tool], query="{{ .Content }}")
    gap = write(template.separator or [])
    inside = write.calls is not None and template.tools.results == "inside"
    if inside:  # what a tool answers continues the answer that called it
        result = "{{ if $inside }} {{ .Content }}\n{{ else }}" + result + "{{ end }}"
        last = "{{ if not (or $last .ToolCalls) }}" + gap + "{{ end }}"
        last += "{{ $inside = false }}{{ if .ToolCalls }}{{ $inside = true }}{{ end }}"
    else:
        last = "{{ if not $last }}" + gap + "{{ end }}"
    calls = (
        ""
        if write.calls is None
        else f"{{{{ if .ToolCalls }}}}{{{{ if .Content }}}}\n{{{{ end }}}}{write.calls}{{{{ end }}}}"
    )
    turns = (
        f"{'{{ $inside := false }}' if inside else ''}"
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "user" }}}}{user}'
        f'{{{{ else if eq .Role "tool" }}}}{result}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{calls}{last}'
        "{{ end }}{{ end }}"
    )
    return Modelfile(write.opening() + turns, write.stop(), template.default_system, tools=write.tools is not None)


class _Writer:
    """Pieces of one template as Go template text."""

    def __init__(self, template: DataTemplate, tokenizer: Any):
        self.template = template
        self.tokenizer = tokenizer
        bos = tokenizer.bos_token_id
        self.adds_bos = bos is not None and bos in tokenizer.encode("")
        described, called = ollama_tools.described(template.tools), ollama_tools.called(template.tools)
        # Where the system text stands before the last question, only the last message could be told to be it.
        goes_on = template.system_in_prompt is not None and template.tools.results == "inside"
        known = template.takes_system and not goes_on and described is not None and called is not None
        self.tools = described if known else None
        """The description of the tools; None where Ollama is not told of any."""
        self.calls = called if known else None

    def __call__(self, pieces: Sequence[Piece], **slots: str) -> str:
        return "".join(self._piece(piece, slots) for piece in pieces)

    def opening(self) -> str:
        """The start of the prompt, with the system text if there is one."""
        template = self.template
        plain = self._without_bos(self(template.start) + self(template.prefix))
        if template.system is None:
            return plain
        system = self._without_bos(self(template.start) + self(template.system, system=self._system()))
        return f"{{{{ if {self._has_system()} }}}}{system}{{{{ else }}}}{plain}{{{{ end }}}}"

    def before_last(self) -> str:
        """A system text that stands before the last question."""
        if self.template.system_in_prompt is None:
            return ""
        text = self(self.template.system_in_prompt, system=self._system())
        return f"{{{{ if and $last ({self._has_system()}) }}}}{text}{{{{ end }}}}"

    def _system(self) -> str:
        """The system text with the tools behind it, if there are any."""
        if self.tools is None:
            return "{{ $.System }}"
        blank = "{{ if and $.System $.Tools }}\n\n{{ end }}"
        return f"{{{{ $.System }}}}{blank}{{{{ if $.Tools }}}}{self.tools}{{{{ end }}}}"

    def _has_system(self) -> str:
        return "$.System" if self.tools is None else "or $.System $.Tools"

    def stop(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        suffix = self(self.template.suffix).strip()
        of_tools = self.template.tools.stop if self.tools is not None else ()
        return tuple(dict.fromkeys(filter(None, (suffix, *self.template.entry.stop, *of_tools))))

    def _piece(self, piece: Piece, slots: Mapping[str, str]) -> str:
        if not isinstance(piece, str):
            return "".join(self.tokenizer.convert_ids_to_tokens(list(piece)))
        if not (piece.startswith("{{") and piece.endswith("}}")):
            return piece
        name = piece[2:-2]
        if name not in slots:
            raise SwiftError(
                f"the template {self.template.name} cannot be written for Ollama",
                why=f"it needs {'the date' if name == 'today' else 'the number of the turn'}, which Ollama has not",
                next="choose another --template_type",
            )
        return slots[name]

    def _without_bos(self, text: str) -> str:
        """Ollama puts the bos token in front by itself where the tokenizer does."""
        return text.removeprefix(self.tokenizer.bos_token) if self.adds_bos else text
