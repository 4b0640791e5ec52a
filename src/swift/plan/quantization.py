"""Quantized weights, made while loading or found in the model's folder: decided and checked without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.core.strict_json import read_json
from swift.params.args import Args
from swift.params.groups import Quant

Method = Literal["bnb", "hqq", "eetq", "torch"]
"""`torch`: PyTorch's own kernels for CPUs, which have no gradient; it is what answers get where no method is given."""
Dtype = Literal["fp32", "fp16", "bf16"]
ANSWERING = ("infer", "deploy", "app-ui")
"""Commands that load a model to answer and for nothing else."""
BITS: Mapping[str, tuple[int, ...]] = {"bnb": (4, 8), "hqq": (1, 2, 3, 4, 8), "eetq": (8,)}
"""Bits that each method can quantize to while the weights load."""
PACKAGES = {
    "bnb": ("bitsandbytes", "pip install 'swift-llm[quant-bnb]'"),
    "hqq": ("hqq", "pip install 'swift-llm[quant-hqq]'"),
    "eetq": ("kernels", "pip install kernels"),
}
"""The module that carries a method out, and how to get it."""
ON_DISK: Mapping[str, tuple[tuple[str, ...], str]] = {
    "gptq": (("gptqmodel", "optimum"), "pip install 'swift-llm[quant-gptq]'"),
    "awq": (("gptqmodel",), "pip install 'swift-llm[quant-gptq]'"),
    "bitsandbytes": (("bitsandbytes",), "pip install 'swift-llm[quant-bnb]'"),
    "eetq": (("kernels",), "pip install kernels"),
    "aqlm": (("aqlm",), "pip install 'aqlm[gpu,cpu]'"),
    "compressed-tensors": (("compressed_tensors",), "pip install compressed-tensors"),
    "torchao": (("torchao",), "pip install torchao"),
}
"""Methods that published weights are quantized with: the modules that read them, and how to get them."""
STORAGE = ("uint8", "int8", "float16", "bfloat16", "float32", "float64")
GROUP_SIZE = 64
"""Weights that share a scale where HQQ is not told otherwise."""
LAYER_FIELDS = ("nbits", "group_size", "axis", "view_as_float")


@dataclass(frozen=True, kw_only=True)
class QuantPlan:
    """Quantization of the base while it is loaded. Fields of other methods than `method` have no meaning."""

    method: Method
    bits: int
    compute_dtype: Dtype = "bf16"
    """bitsandbytes 4 bit: dtype that weights are dequantized to."""
    quant_type: Literal["nf4", "fp4"] = "nf4"
    double_quant: bool = True
    storage: str | None = None
    axis: int = 0
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """HQQ: settings of the layers whose path ends in the key; layers it does not name stay as they are."""

    def __str__(self) -> str:
        if self.method == "torch":
            return f"{self.bits} bit by PyTorch's kernels for CPUs (--quant_method bnb for those of training)"
        each = f" ({len(self.layers)} kinds of layers)" if self.layers else ""
        return f"{self.method} {self.bits} bit{each}"


@dataclass(frozen=True, kw_only=True)
class StoredQuant:
    """How the weights in a model's folder are quantized already."""

    method: str
    """As transformers calls it: gptq, awq, bitsandbytes, fp8 …"""
    bits: int | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.bits} bit" if self.bits else self.method


def plan_quant(args: Args, machine: Machine, dtype: Dtype, stored: StoredQuant | None) -> QuantPlan | None:
    """What the flags ask for; None to load the weights as they are.

    Raises SwiftError for bits that the method does not have, a package that is missing, or a base quantized already.
    """
    quant = args[Quant]
    bits, method = _bits(args, quant), quant.quant_method or "bnb"
    if not bits:
        return None
    if stored is not None:
        raise SwiftError(
            f"the model is quantized already ({stored})",
            where="--quantization_bit",
            why="quantizing it again would only lose precision",
            next="leave --quantization_bit out, or give the model in full precision",
        )
    if method not in BITS:
        raise SwiftError(
            f"--quant_method {method} does not quantize while it loads",
            where="--quant_method",
            next="use bnb, hqq or eetq, or a model that is published quantized, without --quantization_bit",
        )
    if bits not in BITS[method]:
        able = [name for name in BITS if bits in BITS[name]]
        raise SwiftError(
            f"--quant_method {method} has no {bits} bit",
            where="--quantization_bit",
            why=f"it has {', '.join(map(str, BITS[method]))}",
            next=f"--quant_method {able[0]} has it" if able else None,
        )
    if bits in BITS["bnb"] and _answers_on_cpu(args, machine):
        return QuantPlan(method="torch", bits=bits)
    _check_machine(method, machine)
    layers = _layers(quant.hqq_dynamic_config_path, quant.hqq_axis) if method == "hqq" else {}
    return QuantPlan(
        method=method,  # type: ignore[arg-type]  # a key of BITS
        bits=max((settings["nbits"] for settings in layers.values()), default=bits),
        compute_dtype=_compute_dtype(quant, machine, dtype),
        quant_type=quant.bnb_4bit_quant_type,
        double_quant=quant.bnb_4bit_use_double_quant,
        storage=_storage(quant.bnb_4bit_quant_storage),
        axis=quant.hqq_axis,
        layers=layers,
    )


def _bits(args: Args, quant: Quant) -> int:
    """`--quantization_bit`; hqq or eetq named without it means 8, as in the 2.5 release."""
    if quant.quantization_bit or not args.is_explicit("quant_method") or args.is_explicit("quantization_bit"):
        return quant.quantization_bit
    if quant.quant_method in ("hqq", "eetq"):
        return 8
    if quant.quant_method == "bnb":
        raise SwiftError("--quant_method bnb needs to know the bits", next="add --quantization_bit 4 or 8")
    return 0


def _answers_on_cpu(args: Args, machine: Machine) -> bool:
    """Whether the kernels for answers on a CPU serve: they compute in bf16, and take the bits for themselves.

    An adapter that was trained on a base in few bits gets that base, and so does who sets how bitsandbytes works.
    """
    if args.command not in ANSWERING or machine.device != "cpu" or args.origins["quantization_bit"] == "checkpoint":
        return False
    given = [name for name in args.values if name.startswith("bnb_4bit") and args.is_explicit(name)]
    other_dtype = args.is_explicit("dtype") and args.values["dtype"] not in ("AUTO", "bf16")
    return args.values["quant_method"] is None and not given and not other_dtype


def _check_machine(method: str, machine: Machine) -> None:
    if method == "eetq" and machine.device != "cuda":
        raise SwiftError(
            f"--quant_method eetq needs an NVIDIA GPU and this machine computes on {machine.device}",
            where="--quant_method",
            next="use --quant_method bnb --quantization_bit 8",
        )
    module, get = PACKAGES[method]
    if module not in machine.packages:
        raise SwiftError(f"--quant_method {method} needs the package `{module}`, which is not installed", next=get)


def _compute_dtype(quant: Quant, machine: Machine, dtype: Dtype) -> Dtype:
    given = quant.bnb_4bit_comp_dtype
    if given == "AUTO":
        return dtype
    if given == "fp16" and machine.device == "cpu":
        raise SwiftError(
            "--bnb_4bit_comp_dtype fp16 does not work on a CPU",
            where="--bnb_4bit_comp_dtype",
            next="leave it out, or use bf16 or fp32",
        )
    return given


def _storage(given: str | bool | None) -> str | None:
    """The reference gives infer the default True; like None it means the library's own, uint8."""
    if not isinstance(given, str):
        return None
    if given not in STORAGE:
        raise SwiftError(
            f"--bnb_4bit_quant_storage {given} is no dtype that can hold packed weights",
            where="--bnb_4bit_quant_storage",
            why=f"it takes {', '.join(STORAGE)}",
        )
    return given


def _layers(path: str | None, axis: int) -> dict[str, dict[str, Any]]:
    """The settings of `--hqq_dynamic_config_path`: {"self_attn.q_proj": {"nbits": 4, "group_size": 64}, …}."""
    if path is None:
        return {}
    flag = "--hqq_dynamic_config_path"
    try:
        layers = read_json(Path(path).expanduser().read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SwiftError(f"{path} is not a JSON file", where=flag, why=str(error)) from error
    if not isinstance(layers, dict) or not layers or not all(isinstance(each, dict) for each in layers.values()):
        raise SwiftError(f"{path} does not name layers", where=flag, next='e.g. {"self_attn.q_proj": {"nbits": 4}}')
    for name, settings in layers.items():
        unknown = [key for key in settings if key not in LAYER_FIELDS]
        if unknown or settings.get("nbits", 4) not in BITS["hqq"]:
            wrong = f"{unknown[0]} is not known" if unknown else f"nbits is {settings['nbits']}"
            raise SwiftError(
                f"{path}: the settings of {name} cannot be used",
                where=flag,
                why=wrong,
                next=f"nbits may be {', '.join(map(str, BITS['hqq']))}; known are {', '.join(LAYER_FIELDS)}",
            )
    return {name: {"nbits": 4, "group_size": GROUP_SIZE, "axis": axis, **settings} for name, settings in layers.items()}


def check_named(args: Args, stored: StoredQuant | None, source: str, *, known: bool) -> None:
    """Raise SwiftError where `--quant_method` names what the weights are not stored as; `known` says that we can tell.

    In `swift export` the flag says what is made of them.
    """
    given = args.values.get("quant_method")
    says = args.command != "export" and args.is_explicit("quant_method") and given in ("awq", "gptq", "aqlm")
    if not says or not known or (stored is not None and stored.method == given):
        return
    raise SwiftError(
        f"{source} is {f'quantized with {stored.method}' if stored else 'not quantized'}",
        where=f"--quant_method {given}",
        why="how weights are stored is read from the model's own files",
        next=f"leave it out, or give a model that is published in {given}",
    )


def stored_quant(config: Mapping[str, Any] | None) -> StoredQuant | None:
    """What a `config.json` says of its weights; None when they are not quantized."""
    stored = (config or {}).get("quantization_config")
    if not isinstance(stored, Mapping):
        return None
    if stored.get("load_in_4bit") or stored.get("load_in_8bit"):
        return StoredQuant(method="bitsandbytes", bits=4 if stored.get("load_in_4bit") else 8)
    bits = stored.get("bits") or stored.get("nbits")
    return StoredQuant(method=str(stored.get("quant_method", "unknown")), bits=bits if isinstance(bits, int) else None)


def check_stored(stored: StoredQuant | None, where: str, machine: Machine) -> None:
    """Raise SwiftError when PyTorch on this machine cannot read weights that are quantized like that."""
    if stored is None:
        return
    if stored.method == "hqq":
        raise SwiftError(
            f"{where} is quantized with HQQ",
            why="transformers does not load such a folder any more",
            next=f"give the model in full precision and --quant_method hqq --quantization_bit {stored.bits or 4}",
        )
    if stored.method == "eetq" and machine.device != "cuda":
        raise SwiftError(f"{where} is quantized with EETQ, which needs an NVIDIA GPU", next="use another form of it")
    modules, get = ON_DISK.get(stored.method, ((), ""))
    missing = [module for module in modules if module not in machine.packages]
    if missing:
        raise SwiftError(
            f"{where} is quantized with {stored.method}, and the package `{missing[0]}` that reads it is not installed",
            next=get,
        )
