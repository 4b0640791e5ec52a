"""The ten commands, as data: what each takes, which defaults it changes, and which function does its work."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError
from swift.params.flag import Flag, flags_of
from swift.params.frozen import Frozen


class Use(Frozen):
    """A group in a command: all its flags, only some of them, or all `but` some.

    Groups go by name here, so that `swift --help` need not read a single flag.
    """

    name: str
    only: tuple[str, ...] = ()
    but: tuple[str, ...] = ()

    @property
    def group(self) -> type[Frozen]:
        """The class that declares the flags."""
        return importlib.import_module("swift.params.groups").__dict__[self.name]

    def flags(self) -> tuple[Flag, ...]:
        """The flags the command takes from the group."""
        taken = (f for f in flags_of(self.group) if f.name not in self.but)
        return tuple(f for f in taken if not self.only or f.name in self.only)


class Command(Frozen):
    """One command; `run` is the function that does its work, named so that nothing is imported before it is needed."""

    name: str
    summary: str
    uses: tuple[Use, ...]
    run: str
    defaults: Mapping[str, Any] = MappingProxyType({})

    @functools.cached_property
    def flags(self) -> Mapping[str, Flag]:
        """Every flag by name, with this command's default."""
        own_flags = {flag.name: flag for use in self.uses for flag in use.flags()}
        for name, default in self.defaults.items():
            own_flags[name] = own_flags[name].with_default(default)
        return MappingProxyType(own_flags)


_TUNE = (
    Use("Optim"),
    Use("Generate", but=("stop_words",)),
    *map(Use, ("Quant", "Distributed", "Hub")),
    *map(Use, ("Adalora", "Ia3", "Vera", "Boft", "Fourierft", "Reft", "Llamapro", "Adapter", "Galore", "Lisa")),
    Use("Run"),
)
_START = tuple(map(Use, ("Model", "Data", "Prompt", "Tuner", "Lora")))
_TRAIN = (*_START, Use("Train"), *_TUNE)
_ROWS = Use(
    "Data",
    but=(
        "lazy_tokenize",
        "preprocess_num_proc",
        "packing",
        "streaming",
        "streaming_val_size",
        "streaming_buffer_size",
        "max_drop_ratio",
        "max_rewritten_ratio",
        "no_cache",
        "cache_dir",
        "train_dataset_mix_ratio",
        "train_dataset_mix_ds",
    ),
)
_LOAD = (
    *map(Use, ("Checkpoint", "Infer", "Model")),
    _ROWS,
    Use("Prompt", but=("use_loss_scale", "loss_scale_config_path")),
    Use("Tuner", only=("sft_type",)),
    Use("Generate"),
)
_ANSWER = (*_LOAD, Use("Quant"), Use("Hub", only=("hub_token",)), Use("Vllm"), Use("Lmdeploy"), Use("Run"))
_ANSWER_DEFAULTS: Mapping[str, Any] = {"max_length": -1, "bnb_4bit_quant_storage": True}

_ALL = (
    Command("sft", "Fine-tune a model on your rows.", _TRAIN, "swift.commands.sft:run"),
    Command(
        "pt",
        "Continue pre-training on plain text.",
        (*_START, Use("Train", but=("answer_samples",)), *_TUNE),
        "swift.commands.pt:run",
        {"sft_type": "full", "target_modules": ("ALL",), "lazy_tokenize": True, "eval_steps": 500},
    ),
    Command(
        "rlhf",
        "Align a model (short: swift dpo, orpo, simpo, cpo, kto, ppo, grpo).",
        (Use("Rlhf"), *_TRAIN),
        "swift.commands.rlhf:run",
        {"answer_samples": 4},
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
            Use("Export"),
            *_LOAD,
            Use("Quant", but=("quant_method",)),
            Use("Hub", but=("hub_strategy", "push_hub_strategy")),
            *map(Use, ("Vllm", "Lmdeploy", "Run")),
        ),
        "swift.commands.export:run",
        _ANSWER_DEFAULTS,
    ),
    Command(
        "eval",
        "Measure a model on benchmarks.",
        (Use("Evaluate"), *_ANSWER),
        "swift.commands.eval:run",
        {**_ANSWER_DEFAULTS, "do_sample": False, "temperature": 0.0},
    ),
    Command(
        "app-ui",
        "Chat with a model on a web page.",
        (Use("Page", but=("lang", "output_dir", "allowed_paths")), *_ANSWER),
        "swift.commands.app_ui:run",
        _ANSWER_DEFAULTS,
    ),
    Command(
        "deploy",
        "Serve a model over the OpenAI API.",
        (Use("Serve"), *_ANSWER),
        "swift.commands.deploy:run",
        {**_ANSWER_DEFAULTS, "verbose": True},
    ),
    Command(
        "web-ui",
        "Do all of this on a web page.",
        (Use("Page", but=("server_name", "server_port")), Use("Run")),
        "swift.commands.web_ui:run",
    ),
)
COMMANDS: Mapping[str, Command] = MappingProxyType({command.name: command for command in _ALL})


class OwnCommand(Frozen):
    """A command beyond the contract of 2.5, which reads its words itself."""

    usage: str
    summary: str
    run: str


OWN: Mapping[str, OwnCommand] = MappingProxyType(
    {
        "check": OwnCommand(
            "check --flag …", "whether a run on your rows computes what it should", "swift.commands.check:run"
        ),
        "verify": OwnCommand(
            "verify RUN", "whether a run's first steps give the same losses again", "swift.commands.verify:run"
        ),
        "doctor": OwnCommand(
            "doctor", "versions, devices, and what is missing for which command", "swift.commands.doctor:run"
        ),
        "examples": OwnCommand(
            "examples", "copy the rows and files that the documentation uses", "swift.commands.examples:run"
        ),
        "cache": OwnCommand("cache ls|rm", "the token cache: list it, clear it", "swift.commands.cache:run"),
    }
)
SHORT: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("dpo", "orpo", "simpo", "cpo", "kto", "ppo", "grpo"), "rlhf")
)
"""Short forms: `swift dpo` is `swift rlhf --rlhf_type dpo`."""
TRAINING = ("sft", "pt", "rlhf")


def find_command(name: str) -> tuple[Command, dict[str, Any]]:
    """The command called `name` and what its short form says. Raises SwiftError with the nearest name."""
    spelled = name.replace("_", "-")
    if spelled in SHORT:
        return COMMANDS[SHORT[spelled]], {"rlhf_type": spelled}
    if spelled not in COMMANDS:
        raise _unknown_command(name)
    return COMMANDS[spelled], {}


def with_training_command(words: Sequence[str]) -> list[str]:
    """The words behind the training command that they begin with; `sft`, or `rlhf` for an --rlhf_type, if with none.

    `rm` stands for reward models here, which have no short command.
    """
    if words and words[0] == "rm":
        return ["rlhf", *words[1:], "--rlhf_type", "rm"]
    if words and words[0].replace("_", "-") in (*TRAINING, *SHORT):
        return list(words)
    aligns = any(word.partition("=")[0].replace("-", "_") == "__rlhf_type" for word in words)
    return ["rlhf" if aligns else "sft", *words]


def _unknown_command(name: str) -> SwiftError:
    """The error for a word that is no command."""
    names = [*COMMANDS, *SHORT, *OWN]
    return SwiftError(
        f"`{name}` is not a command",
        why=f"there are {', '.join(names)}",
        next=suggestion(name, names, "`swift {}`") or "swift --help",
    )
