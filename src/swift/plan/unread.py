"""Flags that the engine or the machine of a command does not read: named in one line, as `swift.params.idle_flags`."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from swift.core.errors import SwiftError
from swift.core.log import log, once
from swift.core.machine import Machine
from swift.params.alignment import SAMPLES
from swift.params.args import Args
from swift.params.flag_synonyms import MEDIA_SETTINGS
from swift.params.idle_flags import ANSWERS
from swift.params.takes_effect import ENGINES
from swift.plan.model import ModelPlan, read_config

OF_PROCESSES = ("ddp_backend", "ddp_timeout", "ddp_find_unused_parameters", "ddp_broadcast_buffers")


def say_unread_by_engine(args: Args, backend: str) -> None:
    """Log the flags that were given for another engine."""
    served = {"max_num_seqs"} if args.command == "deploy" else set()  # a server bounds its queue by it
    names = [name for name, engines in ENGINES.items() if backend not in engines and name not in served]
    if backend != "vllm" and args.command == "infer":
        names.append("max_logprobs")
    _say(args, f"the engine {backend}", names)


def say_unread_by_machine(args: Args, machine: Machine) -> None:
    """Log the flags of a training that are about what this run has not."""
    if machine.world_size == 1:
        _say(args, "a run of one process", OF_PROCESSES)
    if machine.device == "cpu":
        _say(args, "a CPU", ("gpu_memory_fraction",))


def say_unread_by_shares(args: Args) -> None:
    """Log the flags of answers before and after training, which one process gives: here none has all weights."""
    answers = () if args.values.get("predict_with_generate") else ANSWERS
    _say(args, "a run whose processes share weights out", (SAMPLES, *answers))


def say_unread_by_text(args: Args) -> None:
    """Log the flags of a server about media of requests, of which a model of text takes none."""
    _say(args, "a model of text", ("allow_private_urls", "allowed_media_dir"))


def say_unread_variables(known: Collection[str] = ()) -> None:
    """Log the settings of media in the environment that a model does not read, which has those of `known`."""
    for name in MEDIA_SETTINGS:
        if name not in known and os.environ.get(name.upper()):
            once(f"the environment variable {name.upper()} is set, and this model does not read it")


def _say(args: Args, what: str, names: list[str] | tuple[str, ...]) -> None:
    given = [f"--{name}" for name in names if name in args.values and args.is_explicit(name) and args.changed(name)]
    if given:
        log.warning("%s does not read %s", what, ", ".join(given))


def stretches(model: ModelPlan) -> bool:
    """Whether the positions of a model are to be stretched beyond what its folder says; yes where only its hub knows.

    A merged model's folder says it.
    """
    rope = model.rope_scaling
    if rope is None or model.hub != "local":
        return rope is not None
    config = read_config(Path(model.source))
    config = config.get("text_config", config)
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    known = config.get("max_position_embeddings")
    return stated.get("rope_type") != rope.kind and not (known and known >= rope.length)


def check_configuration(model: ModelPlan, backend: str) -> None:
    """Raise SwiftError where an engine would answer from another configuration than the one that was asked for."""
    if backend not in ("vllm", "lmdeploy"):
        return
    others = model.model_kwargs.keys() - MEDIA_SETTINGS  # pixels are made here for every engine
    flags = {"--rope_scaling": stretches(model), "--model_kwargs": bool(others) and backend == "lmdeploy"}
    for flag, given in flags.items():
        if given:
            raise SwiftError(
                f"{flag} does not reach {backend}",
                where=flag,
                why="the model would answer as its own config.json says",
                next="use --infer_backend pt, or change config.json in a copy of the model's folder",
            )
