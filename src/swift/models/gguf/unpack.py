"""A GGUF file as an ordinary model folder, so that it can be loaded, tuned, merged and exported like any other."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

from swift.core.environment import cache_home
from swift.core.errors import SwiftError, first_line
from swift.core.log import log
from swift.core.optional_imports import need
from swift.core.transaction import fault, sha256, write_cached
from swift.core.writable import require_writable, writing
from swift.params.args import Args
from swift.plan.gguf import ORIGIN

SUFFIX = ".gguf"
MAGIC = b"GGUF"
DAMAGED = (struct.error, ValueError, KeyError, IndexError, NotImplementedError, RuntimeError, OverflowError)
"""What the reader raises for files that are cut short, or of a kind that it does not know."""
ROOM = "make room, or set XDG_CACHE_HOME to a folder where there is some"


def with_unpacked(args: Args) -> Args:
    """The arguments with a folder of the cache in the place of a GGUF file that `--model_id_or_path` or `--gguf_file`
    names. It has no weights where llama.cpp runs the file itself.

    Raises SwiftError for a file that cannot be read.
    """
    given, flag = args.values.get("gguf_file"), "--gguf_file"
    if given is None:
        given, flag = args.values.get("model_id_or_path"), "--model_id_or_path"
        if not given or not given.endswith(SUFFIX):
            return args
    elif args.values.get("model_id_or_path") and args.is_explicit("model_id_or_path"):
        raise SwiftError(
            "the weights are in two places", where="--gguf_file, --model_id_or_path", next="give one of them"
        )
    file = Path(given).expanduser()
    if not file.is_file():
        raise SwiftError(f"there is no file {file}", where=flag)
    with file.open("rb") as opened:
        if opened.read(len(MAGIC)) != MAGIC:
            raise SwiftError(f"{file} is no GGUF file", where=flag, next="download or copy it again")
    answers = args.command != "export" and not args.values["ckpt_dir"]
    runs_itself = answers and args.values.get("infer_backend") == "llamacpp"
    if runs_itself and args.values["quantization_bit"]:
        raise SwiftError(f"{file} has its type already", where="--quantization_bit", next="leave it out")
    folder = unpacked(file, weights=not runs_itself)
    return args.with_values(model_id_or_path=str(folder), **({"gguf_file": None} if "gguf_file" in args.values else {}))


def unpacked(file: Path, *, weights: bool = True) -> Path:
    """The folder of the file's model in the cache, made now or found; in bf16, or without weights."""
    need("gguf", extra="gguf", why=f"reading {file.name}")
    origin = {"file": str(file.resolve()), "sha256": sha256(file), "bytes": file.stat().st_size}
    digest = hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:12]
    folder = cache_home() / "models" / f"{file.stem}-{digest}{'' if weights else '-tokenizer'}"
    if fault(folder, hashes=False) is None:
        return folder
    require_writable(folder.parent, "--model_id_or_path", ROOM)
    with writing(folder, next=ROOM), write_cached(folder) as scratch:
        if scratch is None:
            return folder
        log.info("reading %s into %s (once)", file, folder)
        try:
            write_model(file, scratch, weights=weights)
        except DAMAGED as error:
            raise SwiftError(
                f"{file} cannot be read as a model", why=first_line(error), next="give the model it was made from"
            ) from error
        (scratch / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    return folder


def origin_of(folder: Path) -> Path | None:
    """The GGUF file that a folder was made from, if it is still there as it was."""
    path = folder / ORIGIN
    if not path.is_file():
        return None
    origin = json.loads(path.read_text("utf-8"))
    file = Path(origin["file"])
    return file if file.is_file() and file.stat().st_size == origin["bytes"] else None


def write_model(file: Path, folder: Path, *, max_length: int | None = None, weights: bool = True) -> None:
    """Configuration, tokenizer and weights of a GGUF file, by transformers' own reader."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    if not sys.stderr.isatty():
        disable_progress_bar()
    place: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    config = AutoConfig.from_pretrained(**place)  # given below, so that the slow reader runs once less
    tokenizer.model_max_length = max_length or config.max_position_embeddings
    tokenizer.save_pretrained(folder)
    if not weights:
        config.save_pretrained(folder)
        GenerationConfig.from_model_config(config).save_pretrained(folder)
        return
    model = AutoModelForCausalLM.from_pretrained(
        **place, config=config, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
