"""Which model a command loads, from where and how. Pure: reads small JSON files of a local folder, never weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swift.catalog import Catalog, ModelEntry
from swift.catalog.entries import JINJA
from swift.core.did_you_mean import nearby
from swift.core.errors import NotBuilt, SwiftError
from swift.core.hubs import TITLES, Source, default_hub
from swift.core.log import once
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.checkpoint_args import SFT_ARGS, adapter_config, adapter_folder
from swift.params.groups import Model
from swift.plan.device_map import plan_device_map
from swift.plan.json_flag import json_mapping
from swift.plan.quantization import Dtype, QuantPlan, StoredQuant, check_named, plan_quant, stored_quant

TRAINING = ("sft", "pt", "rlhf")
DTYPES: Mapping[str, Dtype] = {
    "fp32": "fp32",
    "float32": "fp32",
    "fp16": "fp16",
    "float16": "fp16",
    "bf16": "bf16",
    "bfloat16": "bf16",
}
FIELDS: Mapping[str, type] = {
    **dict.fromkeys(("text_config", "quantization_config", "rope_scaling", "rope_parameters", "id2label"), dict),
    "model_type": str,
    "architectures": list,
    "max_position_embeddings": int,
}
"""The fields of a configuration that plans look into, and what each is where it is there."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class RopePlan:
    """Stretch the rotary positions so that `length` tokens fit."""

    kind: Literal["linear", "dynamic", "yarn"]
    length: int


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """One model: where its files are and how they are loaded."""

    model_type: str
    """Registered name, or for anything else a name for folders and logs."""
    source: str
    """A local folder or a hub id, as the user said it."""
    hub: Source
    revision: str | None = None
    dtype: Dtype
    dtype_reason: str = ""
    """Why this dtype, where it is neither given nor the model's own."""
    device_map: str | Mapping[str, Any] | None = None
    max_memory: tuple[str, ...] = ()
    attn: Literal["sdpa", "flash_attention_2", "eager"] = "sdpa"
    quant: QuantPlan | None = None
    """Quantization while loading."""
    stored_quant: StoredQuant | None = None
    """Quantization of the weights on disk, where the catalog or a local folder tells it."""
    rope_scaling: RopePlan | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of fields of the model's configuration."""
    rescale_image: int | None = None
    """Images of more pixels are made this large before anything else is done with them."""
    cache_dir: str | None = None
    token: str | None = None
    check_latest: bool = True
    """Ask the hub for a newer revision; False works offline from the cache."""
    entry: ModelEntry | None = None
    adapter: str | None = None
    """The adapter checkpoint that goes on top, when `--ckpt_dir` names one."""
    ignore_base_mismatch: bool = False
    """Put adapters on this model that were trained on another."""

    @property
    def lora_targets(self) -> tuple[str, ...] | str | None:
        """What `--target_modules DEFAULT` stands for; None leaves it to the architecture."""
        return (self.entry.lora_targets or None) if self.entry else None

    def summary(self) -> str:
        """One line for the plan that a command prints."""
        place = "folder" if self.hub == "local" else TITLES[self.hub]
        weights = f"{self.quant or self.stored_quant}, " if self.quant or self.stored_quant else ""
        dtype = f"{self.dtype} ({self.dtype_reason})" if self.dtype_reason else self.dtype
        return f"{self.model_type} from {place} {self.source}, {weights}{dtype}, {self.attn} attention{self._places()}"

    def _places(self) -> str:
        """What lies where, when it is said module by module."""
        if not isinstance(self.device_map, Mapping) or "" in self.device_map:
            return ""
        modules: dict[str, list[str]] = {}
        for module, device in self.device_map.items():
            modules.setdefault(str(device), []).append(module)
        return "".join(f"; device {device}: {', '.join(names)}" for device, names in modules.items())


def plan_model(
    args: Args,
    catalog: Catalog,
    machine: Machine,
    *,
    of_hub: tuple[str, ...] = ("model_revision", "check_model_is_latest"),
) -> ModelPlan:
    """The model that the flags (and the checkpoint they name) ask for.

    `of_hub` are the flags that count for a model of a hub alone. Raises SwiftError when there is none, when it cannot
    be found, or when the machine cannot load it as asked.
    """
    model = args[Model]
    checkpoint = _checkpoint(args)
    given = _given(args, model, checkpoint)
    entry = _entry(args, given, catalog)
    source, hub = _source(args, given, entry)
    if entry is not None and entry.multimodal and hub != "local":
        _check_built(entry, catalog)
    idle = [f"--{name}" for name in of_hub if hub == "local" and args.is_explicit(name) and args.changed(name)]
    if idle:
        once(f"a model in a folder ({source}) does not read {', '.join(idle)}")
    config = read_config(Path(source)) if hub == "local" else None
    dtype = plan_dtype(model.dtype, machine, _stored_dtype(entry, config))
    stored = stored_quant(config) if hub == "local" else _published(entry)
    quant = plan_quant(args, machine, dtype, stored)
    check_named(args, stored, source, known=hub == "local" or entry is not None)
    return ModelPlan(
        model_type=entry.name if entry else given.model_type or name_of(source),
        source=source,
        hub=hub,
        revision=model.model_revision or (entry.revision if entry and hub == "modelscope" else None),
        dtype="bf16" if quant and quant.method == "torch" else dtype,
        device_map=plan_device_map(args, model, machine),
        max_memory=_max_memory(model, machine),
        attn=_attention(model.use_flash_attn, machine),
        quant=quant,
        stored_quant=stored,
        rope_scaling=_rope(args, model),
        model_kwargs=json_mapping(model.model_kwargs, "--model_kwargs"),
        rescale_image=model.rescale_image if model.rescale_image > 0 else None,
        token=args.values.get("hub_token"),
        check_latest=model.check_model_is_latest,
        entry=entry,
        adapter=str(checkpoint) if checkpoint and is_adapter(checkpoint) else None,
        ignore_base_mismatch=model.ignore_base_mismatch,
    )


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter rather than a whole model."""
    return adapter_folder(folder) is not None


@dataclass(frozen=True)
class _Given:
    model_type: str | None
    model: str | None
    from_checkpoint: bool
    """Whether the model comes out of the checkpoint's own files instead of the command line."""


def _checkpoint(args: Args) -> Path | None:
    """The folder `--ckpt_dir` names. Raises SwiftError when it is not a checkpoint."""
    given = args.values.get("ckpt_dir")
    if not given:
        return None
    folder = Path(given).expanduser()
    if is_adapter(folder) or (folder / "config.json").is_file():
        return folder
    inside = newest_checkpoint(folder)
    raise SwiftError(
        f"{folder} is not a checkpoint",
        where="--ckpt_dir",
        why="it has neither adapter_config.json nor config.json",
        next=f"--ckpt_dir {inside}" if inside else "give the folder that training wrote, …/checkpoint-N",
    )


def _given(args: Args, model: Model, checkpoint: Path | None) -> _Given:
    if checkpoint and not is_adapter(checkpoint):
        return _Given(model.model_type, str(checkpoint), True)
    inside = adapter_folder(checkpoint) if checkpoint else None
    if inside and not model.model_id_or_path and not model.model_type:
        base = adapter_config(inside).get("base_model_name_or_path")
        return _Given(None, base, True)
    from_checkpoint = args.origins.get("model_id_or_path") == "checkpoint"
    return _Given(model.model_type, model.model_id_or_path, from_checkpoint)


def _entry(args: Args, given: _Given, catalog: Catalog) -> ModelEntry | None:
    """The catalog's entry, by type or by hub id. An unknown type is a mistake unless an old checkpoint carries it."""
    if given.model_type:
        carried = given.model is not None and args.origins.get("model_type") == "checkpoint"
        if carried and given.model_type not in catalog.models:
            return None
        return catalog.models.get(given.model_type)
    if not given.model:
        raise SwiftError(
            "no model is given",
            where="--model_type, --model_id_or_path",
            next="--model_type smollm2-135m-instruct, or --model_id_or_path with a folder or a hub id",
        )
    return None if Path(given.model).expanduser().is_dir() else catalog.models.find_by_id(given.model)


def _check_built(entry: ModelEntry, catalog: Catalog) -> None:
    """Raise NotBuilt, before anything is fetched, for a multimodal model that no family here carries out."""
    if entry.template != JINJA and catalog.family(entry) is None:
        raise NotBuilt(
            f"the model {entry.name} is not built: its repository has code of its own, which is not run",
            where="--model_type",
            next=f"use --model_id_or_path {catalog.templates.get(entry.template).successor}",
        )


def _source(args: Args, given: _Given, entry: ModelEntry | None) -> tuple[str, Source]:
    if given.model is None:
        assert entry is not None
        return _registered_source(entry)
    folder = Path(given.model).expanduser()
    if folder.is_dir():
        _check_model_folder(folder, args, given)
        return str(folder), "local"
    if not HUB_ID.fullmatch(given.model) or folder.is_absolute():
        raise SwiftError(
            f"there is no folder {given.model}",
            where="--model_id_or_path",
            why="it is not a hub id (owner/name) either",
            next=nearby(folder),
        )
    return given.model, default_hub()


def _registered_source(entry: ModelEntry) -> tuple[str, Source]:
    hub = default_hub()
    id = entry.hf if hub == "huggingface" else entry.ms
    if id is None:
        other = entry.ms if hub == "huggingface" else entry.hf
        raise SwiftError(
            f"{entry.name} has no id on {TITLES[hub]}",
            where="--model_type",
            next=f"the other hub has it as {other}: {'unset USE_HF' if hub == 'huggingface' else 'set USE_HF=1'}",
        )
    folder = Path(id).expanduser()
    return (str(folder), "local") if folder.is_absolute() and folder.is_dir() else (id, hub)


def _check_model_folder(folder: Path, args: Args, given: _Given) -> None:
    """Raise SwiftError when the folder is a checkpoint of ours or not a model at all."""
    flag = "--model_id_or_path"
    if is_adapter(folder):
        raise SwiftError(
            f"{folder} is an adapter checkpoint, not a model",
            where=flag,
            next=f"--ckpt_dir {folder}" if args.command not in TRAINING else f"--resume_from_checkpoint {folder}",
        )
    if not (folder / "config.json").is_file():
        inside = None if args.command in TRAINING else newest_checkpoint(folder)
        next = f"--ckpt_dir {inside}" if inside else "give the folder that holds config.json and the weights"
        raise SwiftError(f"{folder} is not a model", where=flag, why="it has no config.json", next=next)
    if (folder / SFT_ARGS).is_file() and args.command not in TRAINING and not given.from_checkpoint:
        raise SwiftError(
            f"{folder} is a checkpoint of a training run",
            where=flag,
            why="as a plain model it would lose the template and the system text it was trained with",
            next=f"--ckpt_dir {folder}",
        )


def newest_checkpoint(folder: Path) -> Path | None:
    """A checkpoint in the run folder, or in the runs below an output folder: the newest version's highest step."""
    checkpoints = [path for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}checkpoint-[0-9]*")]
    return max(checkpoints, key=_age, default=None)


def _age(checkpoint: Path) -> tuple[int, int]:
    version = re.match(r"v(\d+)-", checkpoint.parent.name)
    step = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(version[1]) if version else -1, int(step[1]) if step else -1


def name_of(source: str) -> str:
    """A name for folders and logs: that of the folder or of the hub repository; a cache snapshot's repository."""
    path = Path(source).expanduser()
    path = path.resolve() if path.is_dir() else path
    if re.fullmatch(r"[0-9a-f]{40}", path.name):
        return path.parents[1].name.rpartition("--")[2]
    return path.name


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder. Raises SwiftError when it is not JSON."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SwiftError(f"{path} cannot be read", why=str(error), next="copy the model again") from error
    if not isinstance(config, dict):
        raise SwiftError(f"{path} is not a JSON object", next="copy the model again")
    for name, kind in FIELDS.items():
        if not isinstance(config.get(name), kind | None):
            what = f"{path}: {name} is {config[name]!r}"
            raise SwiftError(what, why="no model has that", next="copy the model again")
    return config


def _stored_dtype(entry: ModelEntry | None, config: Mapping[str, Any] | None) -> Dtype | None:
    """The precision an unsaid `--dtype` falls back to. fp32 files do not count: the reference then takes bf16."""
    stored = entry.dtype if entry else None
    if stored is None and config:
        stored = config.get("dtype") or config.get("torch_dtype")
    dtype = DTYPES.get(str(stored))
    return None if dtype == "fp32" and not entry else dtype


def plan_dtype(given: str, machine: Machine, stored: Dtype | None) -> Dtype:
    """`--dtype` resolved: AUTO is fp32 on a CPU, else fp16 without bf16 support, else the model's own, else bf16.

    Raises SwiftError for fp16 on a CPU, and bf16 where the device has none.
    """
    if given == "AUTO":
        if machine.device == "cpu":
            return "fp32"
        return (stored or "bf16") if machine.bf16 else "fp16"
    dtype = DTYPES[given]
    if dtype == "fp16" and machine.device == "cpu":
        raise SwiftError(
            "--dtype fp16 does not work on a CPU",
            where="--dtype",
            why="a CPU does not multiply matrices in fp16",
            next="use --dtype bf16 or fp32",
        )
    if dtype == "bf16" and not machine.bf16:
        raise SwiftError(f"this {machine.device} device has no bf16", where="--dtype", next="use --dtype fp16 or fp32")
    return dtype


def _published(entry: ModelEntry | None) -> StoredQuant | None:
    """What the catalog says of the weights on the hub; only the folder itself knows it for a model of no entry."""
    if entry is None or entry.quant is None:
        return None
    return StoredQuant(method="bitsandbytes" if entry.quant == "bnb" else entry.quant, bits=entry.bits)


def _max_memory(model: Model, machine: Machine) -> tuple[str, ...]:
    limits = tuple(model.device_max_memory)
    if limits and len(limits) != machine.device_count:
        raise SwiftError(
            f"--device_max_memory has {len(limits)} values for {machine.device_count} devices",
            where="--device_max_memory",
            why="it takes one value for each visible device",
        )
    return limits


def _attention(use_flash_attn: bool | None, machine: Machine) -> Literal["sdpa", "flash_attention_2"]:
    if not use_flash_attn:
        return "sdpa"
    missing = "flash_attn is not installed" if "flash_attn" not in machine.packages else None
    if machine.device != "cuda":
        missing = f"it needs an NVIDIA GPU and this machine computes on {machine.device}"
    if missing:
        raise SwiftError(
            "--use_flash_attn true cannot be done here",
            where="--use_flash_attn",
            why=missing,
            next="leave the flag out: SDPA attention is used then",
        )
    return "flash_attention_2"


def _rope(args: Args, model: Model) -> RopePlan | None:
    if not model.rope_scaling:
        return None
    length = args.values.get("max_length")
    if not length or length < 0:
        raise SwiftError(
            f"--rope_scaling {model.rope_scaling} needs to know the length",
            where="--rope_scaling",
            next="give --max_length, the number of tokens that must fit",
        )
    return RopePlan(kind=model.rope_scaling, length=length)
