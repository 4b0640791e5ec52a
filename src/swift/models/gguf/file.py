"""Writes one GGUF file, a tensor at a time: what is in memory is the largest tensor, not the model."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.models.gguf.architectures import Architecture, Array, architecture_of, stored, write_settings
from swift.models.gguf.vocabulary import vocabulary_of
from swift.models.gguf.weights import Weights
from swift.plan.gguf import GgufType
from swift.plan.model import read_config
from swift.plan.quantization import stored_quant

Kind = gguf.GGMLQuantizationType
TYPES = {
    "f32": (Kind.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (Kind.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q5_1": (Kind.Q5_1, gguf.LlamaFileType.MOSTLY_Q5_1),
    "q5_0": (Kind.Q5_0, gguf.LlamaFileType.MOSTLY_Q5_0),
    "q4_1": (Kind.Q4_1, gguf.LlamaFileType.MOSTLY_Q4_1),
    "q4_0": (Kind.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
FEW_BITS = (Kind.Q5_1, Kind.Q5_0, Kind.Q4_1, Kind.Q4_0)
HEADS = ("token_embd.weight", "output.weight")
"""They have 8 bits where the layers have fewer: nothing behind them makes up for what they get wrong."""


@dataclass(frozen=True)
class Written:
    """What a file holds."""

    arch: str
    positions: int
    """Tokens of prompt and answer together."""
    tensors: int
    differs_at_marks: bool
    """Whether llama.cpp cuts words with combining marks otherwise than the tokenizer."""
    kinds: dict[str, int]
    """Number of tensors of each type."""
    fallback: tuple[str, ...]
    """Tensors whose rows the blocks of the type do not divide: they are f16."""


def require_convertible(folder: Path, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise SwiftError for what `write_gguf` would refuse of a model's settings and tokenizer; no weights are read."""
    fields = config.to_dict()
    architecture = architecture_of(fields, str(folder))
    vocabulary_of(tokenizer, fields["vocab_size"], (), str(folder))
    write_settings(gguf.GGUFWriter(None, architecture.name), fields, str(folder))


def write_gguf(
    folder: Path,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    *,
    type: GgufType,
    name: str,
    ends: Sequence[int],
) -> Written:
    """The model in `folder` as the file `path`; `ends` are the tokens that end its answers.

    Raises SwiftError for what llama.cpp would not compute as transformers does.
    """
    where = str(folder)
    quantized = stored_quant(read_config(folder))
    if quantized is not None:
        raise SwiftError(
            f"{folder} is quantized already ({quantized})", next="give the model in full precision to --to_gguf"
        )
    fields = config.to_dict()
    architecture = architecture_of(fields, where)
    vocabulary = vocabulary_of(tokenizer, fields["vocab_size"], ends, where)
    kind, file_type = TYPES[type]
    writer = gguf.GGUFWriter(path, architecture.name)
    writer.add_type("model")
    writer.add_name(vocabulary.name(name))
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    length, extra = write_settings(writer, fields, where)
    vocabulary.write(writer)
    with Weights(folder, config) as weights:
        architecture_of({**fields, "tie_word_embeddings": weights.tied}, where)
        names = _names(architecture, weights, fields["num_hidden_layers"], where)
        kinds = {ours: _kind(ours, weights.shapes[theirs], kind) for theirs, ours in names.items()}
        for ours, values in extra.items():
            writer.add_tensor_info(ours, values.shape, values.dtype, values.nbytes)
        for theirs, ours in names.items():
            _announce(writer, ours, weights.shapes[theirs], kinds[ours])
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for values in extra.values():
                writer.write_tensor_data(values)
            for theirs, ours in names.items():
                values = stored(architecture, theirs, weights.tensor(theirs).numpy(), fields)
                writer.write_tensor_data(_in_kind(values, kinds[ours], theirs))
        except OSError as error:
            if error.errno is None:  # numpy only counts what it wrote
                raise OSError(errno.ENOSPC, "the file could not be written to its end", str(path)) from error
            raise
        finally:
            writer.close()
    if vocabulary.differs_at_marks:
        log.warning("llama.cpp cuts words with combining marks (Hindi, Thai) otherwise than this tokenizer does")
    counts = {each.name: list(kinds.values()).count(each) for each in dict.fromkeys(kinds.values())}
    fallback = tuple(ours for ours, each in kinds.items() if each is Kind.F16 and kind not in (Kind.F16, Kind.F32))
    if fallback:
        log.warning("%d tensors have rows that blocks of %s do not divide: they are f16", len(fallback), type)
    return Written(architecture.name, length, len(kinds) + len(extra), vocabulary.differs_at_marks, counts, fallback)


def _names(architecture: Architecture, weights: Weights, layers: int, where: str) -> dict[str, str]:
    """transformers' name of each tensor -> that in the file."""
    table = gguf.get_tensor_name_map(architecture.arch, layers)
    names = {name: table.get_name(name, try_suffixes=(".weight", ".bias")) for name in weights.shapes}
    unknown = [name for name, ours in names.items() if ours is None]
    if unknown:
        raise SwiftError(f"llama.cpp has no place for {unknown[0]}", where=where, next="use another export")
    return {name: ours for name, ours in names.items() if ours is not None}


def _kind(name: str, shape: Sequence[int], kind: Kind) -> Kind:
    """Vectors stay as they are; matrices have the type of the file where its blocks divide their rows."""
    if len(shape) < 2:
        return Kind.F32
    kind = Kind.Q8_0 if kind in FEW_BITS and name in HEADS else kind
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if shape[-1] % block == 0 else Kind.F16


def _announce(writer: gguf.GGUFWriter, name: str, shape: Sequence[int], kind: Kind) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    in_bytes = (*shape[:-1], shape[-1] // block * size)
    writer.add_tensor_info(name, in_bytes, np.dtype(np.uint8), int(np.prod(in_bytes)), raw_dtype=kind)


def _in_kind(values: Array, kind: Kind, name: str) -> Array:
    """The values as the file has them. Raises SwiftError where fp16 cannot hold one."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise SwiftError(f"{name} has values that are no numbers (NaN or infinite)", next="use another checkpoint")
    if kind is Kind.F16 and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise SwiftError(
            f"{name} has values beyond what fp16 can hold", where="--to_gguf", next="--to_gguf bf16, or q8_0"
        )
    return gguf.quants.quantize(values, kind)
