"""Puts an adapter's files on a model: every tensor of the file is used and none is invented, or it is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.compat.peft_3711 import names_as_given
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.tuners import added_modules, swift_layout
from swift.tuners.adapter_files import Adapter, adapter_tensors, read_adapter

Precision = Literal["stored", "raised", "base"]
"""The adapter's weights as the file has them (to train on), never less than that (to merge), or as the layers below."""

NOT_IN_THE_WEIGHTS = {
    "ADAPTION_PROMPT": "it puts prompts of its own into the attention layers",
    "LILY": "what it adds to an answer depends on the other rows of the batch",
    "POLY": "it needs to be told the task of every request",
    "SHADOW": "it runs a small model of its own beside the base",
    "XLORA": "it weighs several adapters anew for every token",
}
"""PEFT's methods, beside those that learn a prompt, that do more than change what layers compute."""


def load(model: PreTrainedModel, folder: Path, *, trainable: bool = False, total_steps: int | None = None) -> nn.Module:
    """`model` with the adapter in `folder` on top, every tensor of the file used and none invented.

    `model` is the base the adapter was trained on. A trainable one goes on as it was left, in a run of `total_steps`.
    Raises SwiftError when they do not fit.
    """
    from swift.tuners import adalora

    if added_modules.kind_of(folder) is not None:
        return added_modules.load(model, folder, trainable=trainable)
    if swift_layout.holds_layers(folder):
        return swift_layout.load_layers(model, folder, trainable=trainable)
    adapter = read_adapter(folder)
    if not trainable:
        return put_on(model, adapter, precision="raised")
    state = adalora.go_on(adapter.config, folder, total_steps)
    if state is not None:
        adapter = replace(adapter, tensors={**adapter.tensors, **state.triplets})
    tuned = put_on(model, adapter, trainable=True, precision="stored")
    if state is not None:
        state.restore(tuned)
    return tuned


def put_on(
    model: Any, adapter: Adapter, *, name: str = "default", trainable: bool = False, precision: Precision = "base"
) -> Any:
    """`model`, a PreTrainedModel or a PeftModel that has others already, with the adapter on it as `name`.

    Raises SwiftError when the two do not fit; a PeftModel is then as it was before.
    """
    import peft

    from swift.tuners import initial_factors
    from swift.tuners.fused_experts import in_terms_of
    from swift.tuners.older_names import by_names_of

    refuse_kind(adapter)
    adapter = by_names_of(model, in_terms_of(model, adapter))
    adapter = replace(adapter, config=copy.deepcopy(adapter.config))  # PEFT writes into it
    adapter.config.inference_mode = not trainable
    adapter.config.base_model_name_or_path = model.name_or_path or None
    fit_vocabulary(model, adapter)
    tuned = model
    try:
        with refused(adapter), names_as_given(model):
            tuned = _wrap(model, adapter, name)
            if adapter.factors is not None:
                initial_factors.take_out(tuned, adapter.factors)
            _check_fit(adapter, tuned, name)
            _set_dtypes(tuned, adapter.tensors, name, precision)
            result = peft.set_peft_model_state_dict(tuned, dict(adapter.tensors), adapter_name=name)
            if result.unexpected_keys:
                raise misfit(adapter, f"nothing uses {result.unexpected_keys[0]}")
    except SwiftError:
        if isinstance(model, peft.PeftModel) and name in model.peft_config:
            model.delete_adapter(name)
        raise
    if not trainable:
        tuned.eval()
    return tuned


@contextmanager
def refused(adapter: Adapter) -> Iterator[None]:
    """What PEFT raises, which is of many kinds, as the refusal of the adapter."""
    from swift.tuners.peft_tuners import known_warnings

    try:
        with known_warnings():
            yield
    except (ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise misfit(adapter, _first_sentence(error)) from error


def misfit(adapter: Adapter, why: str) -> SwiftError:
    """The refusal of an adapter on a model that is not its own."""
    return SwiftError(
        f"the adapter in {adapter.folder} does not fit the base model",
        why=why,
        next="use the base model it was trained on, or a whole checkpoint",
    )


def refuse_kind(adapter: Adapter) -> None:
    """Raise SwiftError for the methods of PEFT that cannot be loaded into the layers of a model and left there."""
    kind = adapter.kind
    why = NOT_IN_THE_WEIGHTS.get(kind)
    if adapter.config.is_prompt_learning:
        why = "it is read before every prompt instead of changing the model's weights"
    elif adapter.config.to_dict().get("alora_invocation_tokens"):
        kind, why = "aLoRA", "it changes only what comes after its invocation tokens"
    elif adapter.config.to_dict().get("arrow_config"):
        kind, why = "Arrow", "it weighs several adapters anew for every token"
    if why:
        raise SwiftError(
            f"the adapter in {adapter.folder} is of a kind that is neither merged nor answered with here ({kind})",
            why=why,
            next="use it with PEFT, or train a LoRA",
        )


def base_names(adapter: Adapter) -> dict[str, str]:
    """The adapter's names of tensors -> what the base would call them, were they its own."""
    prefix = "base_model.model."
    return {key: key.removeprefix(prefix).replace(".base_layer.", ".") for key in adapter.tensors}


def fit_vocabulary(model: PreTrainedModel, adapter: Adapter) -> None:
    """Resize the embeddings when the adapter was trained with added tokens: it then carries them whole.

    Raises SwiftError when it carries too little for that, or trains tokens that the model does not have.
    """
    embedding: Any = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    head = model.get_output_embeddings()
    ends = {module: f"{path}.weight" for path, module in model.named_modules() if module in (embedding, head)}
    whole = {name: adapter.tensors[key].shape[0] for key, name in base_names(adapter).items() if name in ends.values()}
    resized = next((size for size in whole.values() if size != rows), None)
    if resized is not None:
        tied = model.config.tie_word_embeddings
        missing = None if tied else next((name for name in ends.values() if name not in whole), None)
        if missing:
            raise misfit(
                adapter, f"it was trained with {resized} tokens instead of {rows}, and its file has no {missing}"
            )
        model.resize_token_embeddings(resized, mean_resizing=False)
        rows = resized
    beyond = [index for index in _trained_tokens(adapter) if index >= rows]
    if beyond:
        raise misfit(adapter, f"it trains token {beyond[0]}, and the base model has {rows} tokens")


def _trained_tokens(adapter: Adapter) -> list[int]:
    fields = adapter.config.to_dict()
    given = fields.get("trainable_token_indices") or fields.get("token_indices") or []
    return [index for each in given.values() for index in each] if isinstance(given, dict) else list(given)


def _wrap(model: Any, adapter: Adapter, name: str) -> Any:
    """Wrap the base; a method that starts from factors of the base which the file has does not factorise again."""
    import peft

    from swift.tuners import loftq

    config = adapter.config
    start = config.to_dict().get("init_lora_weights")
    if adapter.factors is not None or start == "loftq":
        config.init_lora_weights = False  # pyright: ignore[reportAttributeAccessIssue]  # only LoRA has such a start
    elif str(start).startswith("pissa_niter_"):
        log.warning("%s started from a random factorisation that is not in its files: it is made anew", adapter.folder)
    if adapter.kind == "VERA" and not config.to_dict()["save_projection"]:
        log.warning(
            "%s holds a seed instead of its projection, which other versions may draw differently", adapter.folder
        )
    if isinstance(model, peft.PeftModel):
        model.add_adapter(name, config, autocast_adapter_dtype=False)
        tuned = model
    else:
        tuned = peft.get_peft_model(model, config, adapter_name=name, autocast_adapter_dtype=False)
    if adapter.factors is not None or start == "loftq":
        config.init_lora_weights = start  # pyright: ignore[reportAttributeAccessIssue]
    if start == "loftq":
        loftq.round_base(tuned, name)
    return tuned


def _check_fit(adapter: Adapter, tuned: Any, name: str) -> None:
    """Names and shapes of the file against those the adapter needs on this base."""
    tensors = adapter.tensors
    expected = {key: tensor.shape for key, tensor in adapter_tensors(tuned, name=name).items()}
    base = {key for key, _ in tuned.named_parameters(remove_duplicate=False)}
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys() - base)
    shapes = sorted(key for key in expected.keys() & tensors.keys() if expected[key] != tensors[key].shape)
    for keys, what in ((missing, "lacks"), (unknown, "holds, and nothing uses,"), (shapes, "has another shape for")):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise misfit(adapter, f"its file {what} {keys[0]}{more}")


def _set_dtypes(tuned: Any, tensors: Mapping[str, Tensor], name: str, precision: Precision) -> None:
    if precision == "base":
        return
    for key, parameter in tuned.named_parameters():
        stored = tensors.get(key.replace(f".{name}", ""))
        if stored is not None:
            raised = torch.promote_types(stored.dtype, parameter.dtype)
            parameter.data = parameter.data.to(stored.dtype if precision == "stored" else raised)


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    # load_state_dict names the class in its first line and the tensor in the second.
    text = lines[1].strip() if len(lines) > 1 and lines[0].endswith(":") else (lines or [type(error).__name__])[0]
    return text.partition(". ")[0]
