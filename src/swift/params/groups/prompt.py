"""How a row becomes the tokens a model reads."""

from __future__ import annotations

from typing import Annotated, Literal

from swift.params.flag import Basic, Json, OneOf, Ours, Range, Saved
from swift.params.frozen import Frozen


class Prompt(Frozen):
    """From a conversation to tokens."""

    template_type: Annotated[str, Basic(), OneOf("templates"), Saved("model")] = "AUTO"
    """Chat template by name; AUTO takes the registered one, jinja the tokenizer's own."""
    system: Annotated[str | None, Basic(), Saved("model")] = None
    """System prompt; None takes the template's own, an empty text means none."""
    max_length: Annotated[int, Basic(), Range(1, also=(-1,))] = 2048
    """Most tokens a row may have; truncation_strategy says what happens to longer ones, -1 allows any length."""
    truncation_strategy: Literal["delete", "truncation_left"] = "delete"
    """delete drops rows longer than max_length; truncation_left keeps their last max_length tokens."""
    tools_prompt: Annotated[Literal["react_en", "react_zh", "toolbench"], Saved("model")] = "react_en"
    """How the tools of a row are described to the model."""
    use_loss_scale: bool = False
    """Weigh the parts of agent answers (Action, Action Input, Observation) by the rules of loss_scale_config_path."""
    loss_scale_config_path: Annotated[str, Json(("DEFAULT", "alpha-umi", "agent-flan"))] = "DEFAULT"
    """Rules for use_loss_scale: DEFAULT, alpha-umi, agent-flan, or a JSON file."""
    ignore_template_mismatch: Annotated[bool, Ours()] = False
    """Go on when template_type renders another prompt than the chat template of the tokenizer."""
