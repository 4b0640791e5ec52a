"""How a run turns conversations into tokens: decided here, done by `swift.prompts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from swift.catalog import Catalog
from swift.catalog.entries import JINJA
from swift.params.args import Args
from swift.params.groups import Prompt

TruncationStrategy = Literal["delete", "truncation_left"]


@dataclass(frozen=True, kw_only=True)
class PromptPlan:
    """Everything `swift.prompts.encode.build_encoder` needs beside the tokenizer and the catalog."""

    template_type: str
    """A registered template, or `jinja` for the tokenizer's own."""
    given: bool = True
    """Whether the user named the template. If not, `jinja` falls back to plain text for tokenizers without one."""
    system: str | None = None
    """Replaces the template's default system text; empty means none."""
    tools_format: str | None = None
    """How tools are written; None takes what the template does by itself."""
    max_length: int | None = None
    truncation_strategy: TruncationStrategy = "delete"
    vocab_size: int | None = None
    """Rows of the model's embeddings, set where the tokenizer has more tokens than that."""
    loss_scale: str | Mapping[str, Any] | None = None
    """Name, file or dict of loss-scale rules; None weighs all trained tokens the same."""
    ignore_mismatch: bool = False


def plan_prompt(args: Args, catalog: Catalog, template: str | None = None) -> PromptPlan:
    """Decide the prompt side of a run. `template` is the one registered for the model, None for an unknown model.

    Raises SwiftError when `--template_type` names no template.
    """
    prompt = args[Prompt]
    given = prompt.template_type != "AUTO"
    if given and prompt.template_type != JINJA:
        catalog.templates.get(prompt.template_type)
    unknown = "default-generation" if args.command == "pt" else JINJA
    return PromptPlan(
        template_type=prompt.template_type if given else template or unknown,
        given=given,
        system=prompt.system,
        tools_format=_tools_format(args, prompt.tools_prompt),
        max_length=None if prompt.max_length is None or prompt.max_length < 0 else prompt.max_length,
        truncation_strategy=prompt.truncation_strategy,
        loss_scale=prompt.loss_scale_config_path if prompt.use_loss_scale else None,
        ignore_mismatch=prompt.ignore_template_mismatch,
    )


def _tools_format(args: Args, value: str) -> str | None:
    """None unless the user chose one. A checkpoint keeps values, not choices: its react_en is taken as the default."""
    origin = args.origins.get("tools_prompt", "default")
    if origin == "checkpoint":
        return None if value == "react_en" else value
    return None if origin in ("default", "command") else value
