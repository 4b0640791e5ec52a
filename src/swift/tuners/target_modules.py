"""Which modules get adapters: names, groups of names and expressions resolved against the model itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.core.optional_imports import installed
from swift.plan.tuner import Parts, TunerPlan
from swift.tuners.layers import MLP, OUTPUTS

UNQUANTIZED = (torch.float32, torch.float16, torch.bfloat16)
ATTENTION_INPUTS = frozenset(
    {"q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin", "query", "key", "value", "key_value"}
    | {"qkv_proj", "qkv", "query_key_value", "c_attn", "Wqkv", "wqkv", "W_pack", "in_proj_qkv", "in_proj_qkvz"}
    | {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"}
)
"""Names that model families give the linear layers in front of attention."""
READ_PAST: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("mamba", "falcon_mamba"), ("x_proj", "dt_proj", "out_proj")),
    **dict.fromkeys(("bamba", "falcon_h1", "granitemoehybrid", "mamba2", "nemotron_h", "zamba2"), ("out_proj",)),
    "jamba": ("dt_proj",),
}
"""Model type -> linear layers whose weight the model takes itself instead of calling them, past any adapter."""


def resolve_targets(model: PreTrainedModel, plan: TunerPlan) -> list[str] | str:
    """The plan's targets as PEFT takes them: sorted names (matched at the end of a module's path) or one expression.

    Raises SwiftError when a name or expression matches no linear or embedding layer.
    """
    if plan.target_regex is not None:
        expression = _expression(model, plan.target_regex, "--target_regex")
        if plan.parts is None or not plan.freeze_vit:
            return expression
        return _outside_tower(model, lambda path: re.fullmatch(expression, path) is not None, plan)
    names: set[str] = set()
    for given in plan.target_modules:
        group = given.upper()
        if group in ("DEFAULT", "AUTO") and plan.parts is not None:
            names.update(path for path in _adaptable(model) if plan.parts.part_of(path) != "tower")
        elif group in ("DEFAULT", "AUTO"):
            default = _default(model, plan)
            if isinstance(default, str):
                return default
            names.update(default)
        elif group == "ALL":
            names.update(_endings(model, _adaptable(model)))
        elif group == "EMBEDDING":
            names.update(_endings(model, embeddings(model)))
        else:
            _check_name(model, given, "--target_modules")
            names.add(given)
    if plan.parts is not None and plan.freeze_vit is not False:
        return _outside_tower(model, lambda path: any(matches(path, name) for name in names), plan)
    return sorted(names)


def _outside_tower(model: PreTrainedModel, wanted: Callable[[str], bool], plan: TunerPlan) -> list[str]:
    """The paths of the wanted layers, without those of the tower. Raises SwiftError where nothing is left."""
    parts, layers = plan.parts, [*linear_layers(model), *embeddings(model)]
    assert parts is not None
    left = sorted(path for path in layers if wanted(path) and parts.part_of(path) != "tower")
    if not left:
        flag = "--target_modules" if plan.target_regex is None else "--target_regex"
        raise SwiftError(
            f"{flag} {plan.target_regex or ' '.join(plan.target_modules)} names layers of the vision tower only",
            where=flag,
            next="--freeze_vit false trains it too",
        )
    return left


def resolve_saved(model: PreTrainedModel, plan: TunerPlan) -> list[str]:
    """`--modules_to_save` with EMBEDDING and LN replaced by the model's names for them.

    Like adapters, EMBEDDING and LN leave the tower of a multimodal model alone where it is not trained.
    """
    names: set[str] = set()
    left_alone = _left_alone(plan)
    for name in plan.modules_to_save:
        if name.upper() in ("EMBEDDING", "LN"):
            is_ln = name.upper() == "LN"
            paths = [p for p, module in model.named_modules() if _is_norm(module)] if is_ln else embeddings(model)
            kept = [path for path in paths if left_alone is None or left_alone.part_of(path) != "tower"]
            # PEFT takes whatever ends with a name, `pre_layrnorm` for `norm`; whole paths leave the tower alone.
            names.update(_endings(model, kept) if left_alone is None else kept)
        else:
            _check_name(model, name, "--modules_to_save", any_kind=True)
            names.add(name)
    return sorted(names)


def _left_alone(plan: TunerPlan) -> Parts | None:
    """The parts of a model whose tower an adapter leaves alone."""
    return plan.parts if plan.freeze_vit is not False else None


def ends_of_mlps(
    model: PreTrainedModel, targets: list[str] | str, plan: TunerPlan, *, add: bool
) -> tuple[list[str] | str, list[str]]:
    """The targets again, and which of them end an MLP: IA3 scales what goes into these, and what comes out of others.

    `add` adds those that are none of the targets yet, without those of a tower that the plan leaves alone. A name that
    stands for both kinds becomes the paths behind it.
    """
    names_of = {path: path.split(".") for path in linear_layers(model)}
    ends = {path for path, names in names_of.items() if names[-1] in OUTPUTS and set(MLP) & set(names)}
    left_alone = _left_alone(plan)
    if left_alone is not None:
        ends = {path for path in ends if left_alone.part_of(path) != "tower"}
    if isinstance(targets, str):
        return targets, sorted(path for path in ends if re.fullmatch(targets, path))
    names, feedforward = [], []
    for name in sorted({*targets, *(_endings(model, list(ends)) if add else ())}):
        paths = [path for path, _ in model.named_modules() if matches(path, name)]
        own = [path for path in paths if path in ends]
        plain = len(own) in (0, len(paths))
        names += [name] if plain else paths
        feedforward += own if not plain else [name] if own else []
    return names, feedforward


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Paths of all linear layers an adapter can stand around, except the language model's head."""
    head = model.get_output_embeddings()
    kinds = linear_kinds()
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, kinds)]
    return [path for path, module in layers if module is not head and not is_linear_by_name_only(module)]


@torch.no_grad()
def is_linear_by_name_only(layer: nn.Module) -> bool:
    """Whether this `nn.Linear` does not map (..., in) to (..., out), which adapters take for granted.

    Routers of Llama 4 and PhiMoE answer with a pair, DeepSeek V4's grouped projection has one weight for each group.
    """
    if type(layer) is nn.Linear or not isinstance(layer, nn.Linear) or layer.weight.dtype not in UNQUANTIZED:
        return False
    try:
        output = layer(layer.weight.new_zeros(1, layer.in_features))
    except RuntimeError:  # torch's answer to a shape that does not fit
        return True
    return not isinstance(output, Tensor) or output.shape != (1, layer.out_features)


def linear_kinds() -> tuple[type[nn.Module], ...]:
    """The classes of linear layers: bitsandbytes' are torch's too, HQQ's and GPTQModel's stand for themselves."""
    kinds: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D)
    if installed("hqq"):
        from hqq.core.quantize import HQQLinear  # pyright: ignore[reportMissingImports]  # comes as an extra

        kinds += (HQQLinear,)
    if "gptqmodel" in sys.modules:  # imported where a model uses it; it takes seconds
        from gptqmodel.nn_modules.qlinear import BaseQuantLinear  # pyright: ignore[reportMissingImports]

        kinds += (BaseQuantLinear,)
    return kinds


def embeddings(model: PreTrainedModel) -> list[str]:
    """Paths of all embedding layers."""
    return [path for path, module in model.named_modules() if isinstance(module, nn.Embedding)]


def matches(path: str, name: str) -> bool:
    """Whether a module's path ends with `name`, as PEFT matches target names."""
    return path == name or path.endswith("." + name)


def _default(model: PreTrainedModel, plan: TunerPlan) -> list[str] | str:
    registered = plan.default_targets
    if isinstance(registered, str):
        return _expression(model, registered, "the registered targets")
    paths = linear_layers(model)
    if registered and all(any(matches(path, name) for path in paths) for name in registered):
        return list(registered)
    derived = sorted({path.rpartition(".")[2] for path in paths} & ATTENTION_INPUTS)
    if not derived:
        leaves = sorted({path.rpartition(".")[2] for path in paths})
        raise SwiftError(
            f"--target_modules DEFAULT does not know the attention layers of {type(model).__name__}",
            where="--target_modules",
            why=f"its linear layers are {', '.join(leaves)}",
            next="name some of them, or use --target_modules ALL",
        )
    if registered:
        log.info("target_modules: %s instead of the registered %s", ", ".join(derived), ", ".join(registered))
    return derived


def read_past(model: PreTrainedModel, path: str) -> bool:
    """Whether the model takes this layer's weight itself, so that an adapter on the layer would do nothing."""
    return any(matches(path, name) for name in READ_PAST.get(model.config.model_type, ()))


def _adaptable(model: PreTrainedModel) -> list[str]:
    paths = linear_layers(model)
    left = [path for path in paths if not read_past(model, path)]
    if len(left) < len(paths):
        names = ", ".join(READ_PAST[model.config.model_type])
        log.info("target_modules: ALL without %s, whose weights %s takes itself", names, type(model).__name__)
    return left


def _endings(model: PreTrainedModel, wanted: list[str]) -> list[str]:
    """The last names of the wanted paths, or the paths themselves where a last name would match more than wanted."""
    leaves = {path.rpartition(".")[2] for path in wanted}
    # Whatever their kind: where a linear layer is called "0", so is the first block.
    reached = {path for path, _ in model.named_modules() if any(matches(path, leaf) for leaf in leaves)}
    return sorted(leaves) if reached == set(wanted) else sorted(wanted)


def _expression(model: PreTrainedModel, pattern: str, where: str) -> str:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise SwiftError(f"{where} {pattern} is not a regular expression", where=where, why=str(error)) from error
    paths = [path for path, module in model.named_modules() if path and expression.fullmatch(path)]
    layers = set(linear_layers(model)) | set(embeddings(model))
    if not layers & set(paths):
        raise SwiftError(
            f"{where} {pattern} matches no linear or embedding layer",
            where=where,
            why="it must match a module's whole path",
            next=f"paths look like {', '.join(sorted(layers)[:3])}",
        )
    return pattern


def _check_name(model: PreTrainedModel, name: str, flag: str, *, any_kind: bool = False) -> None:
    kinds = (nn.Module,) if any_kind else (*linear_kinds(), nn.Embedding, nn.Conv1d, nn.Conv2d)
    paths = [path for path, module in model.named_modules() if path]
    if any(matches(path, name) for path, module in model.named_modules() if path and isinstance(module, kinds)):
        return
    leaves = {path.rpartition(".")[2] for path, module in model.named_modules() if path and isinstance(module, kinds)}
    leaves = {leaf for leaf in leaves if not leaf.isdigit()}
    exists = any(matches(path, name) for path in paths)
    raise SwiftError(
        f"{flag} names {name!r}, which {'takes no adapter' if exists else 'the model does not have'}",
        where=flag,
        why=f"the model has {', '.join(sorted(leaves))}",
        next=suggestion(name, leaves),
    )


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith(("RMSNorm", "LayerNorm"))
