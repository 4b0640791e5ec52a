"""Liger and Unsloth by their own code, where they are installed: pip install --no-deps liger-kernel unsloth triton."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
from tests.tuners.conftest import SMALL
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Phi3Config, PretrainedConfig, Qwen3Config
from transformers.integrations.liger import apply_liger_kernel

from swift.core.errors import SwiftError
from swift.core.optional_imports import installed
from swift.training import liger

SOURCES = Path(__file__).parents[2] / "src" / "swift"
needs_liger = pytest.mark.skipif(not installed("liger_kernel"), reason="liger-kernel is not installed")
needs_unsloth = pytest.mark.skipif(not installed("unsloth"), reason="unsloth is not installed")


@needs_liger
@pytest.mark.parametrize("config", [LlamaConfig(**SMALL), Qwen3Config(**SMALL), Phi3Config(**SMALL, pad_token_id=0)])
def test_liger_computes_the_layers_and_leaves_the_loss(config: PretrainedConfig) -> None:
    liger.check_model(config)
    model = AutoModelForCausalLM.from_config(config)
    forward = type(model).forward
    apply_liger_kernel(model, liger.KERNELS)
    assert "Liger" in model.model.layers[0].mlp.forward.__qualname__
    assert "Liger" in model.model.norm.forward.__qualname__
    assert type(model).forward is forward and "Liger" not in model.forward.__qualname__


@needs_liger
def test_a_model_without_kernels_is_refused() -> None:
    with pytest.raises(SwiftError, match="no kernels for gpt2"):
        liger.check_model(GPT2Config())


@needs_unsloth
@pytest.mark.parametrize(
    ("function", "file", "caller"),
    [
        ("from_pretrained", "loader.py", "models/unsloth_loading.py"),
        ("get_peft_model", "llama.py", "tuners/unsloth_lora.py"),
        ("patch_peft_model", "llama.py", "tuners/unsloth_lora.py"),
    ],
)
def test_unsloth_takes_what_it_is_given(function: str, file: str, caller: str) -> None:
    """Its package cannot be imported without a GPU, so its source is read."""
    spec = importlib.util.find_spec("unsloth")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).with_name("models") / file
    (taken, *_) = (
        {argument.arg for argument in node.args.args}
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == function and "model" in node.args.args[0].arg
    )
    from swift.tuners.unsloth_lora import ARGUMENTS

    (call,) = (
        node
        for node in ast.walk(ast.parse((SOURCES / caller).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == function
    )
    given = {keyword.arg for keyword in call.keywords if keyword.arg}
    assert given <= taken
    if function == "get_peft_model":
        assert set(ARGUMENTS) <= taken
