"""A registered template as the Go template of an Ollama Modelfile, so that Ollama builds the same prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swift.core.errors import SwiftError
from swift.prompts.template import DataTemplate

Piece = str | tuple[int, ...]


@dataclass(frozen=True)
class Modelfile:
    """The lines of a Modelfile that are about prompts."""

    template: str
    stop: tuple[str, ...]
    system: str | None
    """The default system text."""

    def text(self, source: str) -> str:
        """The whole file for the weights at `source`."""
        lines = [f"FROM {source}", f'TEMPLATE """{self.template}"""']
        if self.system is not None:
            lines.append(f'SYSTEM """{self.system}"""')
        lines += [f'PARAMETER stop "{stop}"' for stop in self.stop]
        return "\n".join(lines) + "\n"


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
    last = "{{ if not $last }}" + write(template.separator or []) + "{{ end }}"
    user = write.before_last() + write(template.prompt, query="{{ .Content }}")
    tool = write.before_last() + write([*template.call_end, *template.tool], query="{{ .Content }}")
    turns = (
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "user" }}}}{user}'
        f'{{{{ else if eq .Role "tool" }}}}{tool}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{last}'
        "{{ end }}{{ end }}"
    )
    return Modelfile(write.opening() + turns, write.stop(), template.default_system)


class _Writer:
    """Pieces of one template as Go template text."""

    def __init__(self, template: DataTemplate, tokenizer: Any):
        self.template = template
        self.tokenizer = tokenizer
        bos = tokenizer.bos_token_id
        self.adds_bos = bos is not None and bos in tokenizer.encode("")

    def __call__(self, pieces: Sequence[Piece], **slots: str) -> str:
        return "".join(self._piece(piece, slots) for piece in pieces)

    def opening(self) -> str:
        """The start of the prompt, with the system text if there is one."""
        template = self.template
        plain = self._without_bos(self(template.start) + self(template.prefix))
        if template.system is None:
            return plain
        system = self._without_bos(self(template.start) + self(template.system, system="{{ .System }}"))
        return f"{{{{ if .System }}}}{system}{{{{ else }}}}{plain}{{{{ end }}}}"

    def before_last(self) -> str:
        """A system text that stands before the last question."""
        if self.template.system_in_prompt is None:
            return ""
        text = self(self.template.system_in_prompt, system="{{ $.System }}")
        return f"{{{{ if and $last $.System }}}}{text}{{{{ end }}}}"

    def stop(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        suffix = self(self.template.suffix).strip()
        return tuple(dict.fromkeys(filter(None, (suffix, *self.template.entry.stop))))

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
