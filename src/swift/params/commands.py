"""The ten commands, as data: what each takes, which defaults it changes, and which function does its work."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from swift.params import groups as g
from swift.params.spec import Flag, flags_of


@dataclass(frozen=True)
class Use:
    """A group in a command: all its flags, only some of them, or all `but` some."""

    group: type
    only: tuple[str, ...] = ()
    but: tuple[str, ...] = ()

    def flags(self) -> tuple[Flag, ...]:
        """The flags the command takes from the group."""
        taken = (f for f in flags_of(self.group) if f.name not in self.but)
        return tuple(f for f in taken if not self.only or f.name in self.only)


@dataclass(frozen=True)
class Command:
    """One command; `run` is the function that does its work, named so that nothing is imported before it is needed."""

    name: str
    summary: str
    uses: tuple[Use, ...]
    run: str
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def flags(self) -> Mapping[str, Flag]:
        """Every flag by name, with this command's default."""
        found: dict[str, Flag] = {}
        for use in self.uses:
            for flag in use.flags():
                default = self.defaults.get(flag.name, flag.default)
                found[flag.name] = dataclasses.replace(flag, default=default) if default != flag.default else flag
        return MappingProxyType(found)


_TRAIN = (
    *map(Use, (g.Model, g.Data, g.Prompt, g.Tuner, g.Lora, g.Train, g.Optim)),
    Use(g.Generate, but=("stop_words",)),
    *map(Use, (g.Quant, g.Distributed, g.Hub)),
    *map(Use, (g.Adalora, g.Ia3, g.Vera, g.Boft, g.Fourierft, g.Reft, g.Llamapro, g.Adapter, g.Galore, g.Lisa)),
    Use(g.Run),
)
_ROWS = Use(
    g.Data,
    but=(
        "lazy_tokenize",
        "preprocess_num_proc",
        "packing",
        "streaming",
        "streaming_val_size",
        "streaming_buffer_size",
        "max_drop_ratio",
        "no_cache",
        "cache_dir",
        "train_dataset_mix_ratio",
        "train_dataset_mix_ds",
    ),
)
_LOAD = (
    *map(Use, (g.Checkpoint, g.Infer, g.Model)),
    _ROWS,
    Use(g.Prompt, but=("use_loss_scale", "loss_scale_config_path")),
    Use(g.Tuner, only=("sft_type",)),
    Use(g.Generate),
)
_ANSWER = (*_LOAD, Use(g.Quant), Use(g.Hub, only=("hub_token",)), Use(g.Vllm), Use(g.Lmdeploy), Use(g.Run))
_ANSWER_DEFAULTS: Mapping[str, Any] = {"max_length": -1, "bnb_4bit_quant_storage": True}

_ALL = (
    Command("sft", "Fine-tune a model on your rows.", _TRAIN, "swift.commands.sft:run"),
    Command(
        "pt",
        "Continue pre-training on plain text.",
        _TRAIN,
        "swift.commands.pt:run",
        {"sft_type": "full", "target_modules": ("ALL",), "lazy_tokenize": True, "eval_steps": 500},
    ),
    Command(
        "rlhf",
        "Align a model with preferences or rewards (short forms: dpo orpo simpo cpo kto ppo).",
        (Use(g.Rlhf), *_TRAIN),
        "swift.commands.rlhf:run",
    ),
    Command(
        "infer",
        "Chat with a model, or let it answer rows.",
        _ANSWER,
        "swift.commands.infer:run",
        _ANSWER_DEFAULTS,
    ),
    Command(
        "merge-lora",
        "Fold an adapter into its model, and check that nothing changed.",
        _ANSWER,
        "swift.commands.merge_lora:run",
        _ANSWER_DEFAULTS,
    ),
    Command(
        "export",
        "Merge, quantize, convert or push a model.",
        (
            Use(g.Export),
            *_LOAD,
            Use(g.Quant, but=("quant_method",)),
            Use(g.Hub, but=("hub_strategy", "push_hub_strategy")),
            *map(Use, (g.Vllm, g.Lmdeploy, g.Run)),
        ),
        "swift.commands.export:run",
        _ANSWER_DEFAULTS,
    ),
    Command(
        "eval",
        "Measure a model on benchmarks.",
        (Use(g.Evaluate), *_ANSWER),
        "swift.commands.eval:run",
        {**_ANSWER_DEFAULTS, "do_sample": False, "temperature": 0.0},
    ),
    Command(
        "app-ui",
        "Chat with a model on a web page.",
        (Use(g.Page, but=("lang",)), *_ANSWER),
        "swift.commands.app_ui:run",
        _ANSWER_DEFAULTS,
    ),
    Command(
        "deploy",
        "Serve a model over the OpenAI API.",
        (Use(g.Serve), *_ANSWER),
        "swift.commands.deploy:run",
        {**_ANSWER_DEFAULTS, "verbose": True},
    ),
    Command(
        "web-ui",
        "Do all of this on a web page.",
        (Use(g.Page, but=("server_name", "server_port")), Use(g.Run)),
        "swift.commands.web_ui:run",
    ),
)
COMMANDS: Mapping[str, Command] = MappingProxyType({command.name: command for command in _ALL})
SHORT: Mapping[str, str] = MappingProxyType(dict.fromkeys(("dpo", "orpo", "simpo", "cpo", "kto", "ppo"), "rlhf"))
"""Short forms: `swift dpo` is `swift rlhf --rlhf_type dpo`."""
