"""How flags become a prompt plan."""

from __future__ import annotations

import pytest

from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.params.parse import parse
from swift.plan.prompt import PromptPlan, plan_prompt

CATALOG = load_catalog()


def _plan(*flags: str, command: str = "sft", template: str | None = None) -> PromptPlan:
    args = parse([command, "--model_id_or_path", "x", "--dataset", "y", *flags])
    return plan_prompt(args, CATALOG, template)


def test_template_of_the_model_unless_the_user_names_one() -> None:
    assert _plan(template="qwen").template_type == "qwen"
    assert not _plan(template="qwen").given
    said = _plan("--template_type", "llama3", template="qwen")
    assert (said.template_type, said.given) == ("llama3", True)
    assert _plan("--template_type", "jinja", template="qwen").template_type == "jinja"


def test_unknown_models_take_the_tokenizers_template_and_pre_training_none() -> None:
    assert (_plan().template_type, _plan().given) == ("jinja", False)
    assert _plan(command="pt").template_type == "default-generation"


def test_unknown_template_is_answered_with_the_nearest() -> None:
    with pytest.raises(SwiftError) as found:
        _plan("--template_type", "qwen25")
    assert "qwen2_5" in str(found.value)


def test_tools_prompt_counts_when_it_is_said() -> None:
    assert _plan().tools_format is None
    assert _plan("--tools_prompt", "react_en").tools_format == "react_en"
    assert _plan("--tools_prompt", "toolbench").tools_format == "toolbench"


def test_lengths_and_loss_scale() -> None:
    assert _plan("--max_length", "-1").max_length is None
    assert _plan("--max_length", "77").max_length == 77
    assert _plan().loss_scale is None
    assert _plan("--loss_scale_config_path", "alpha-umi").loss_scale is None
    assert _plan("--use_loss_scale", "true", "--loss_scale_config_path", "alpha-umi").loss_scale == "alpha-umi"
    assert _plan("--system", "").system == ""
