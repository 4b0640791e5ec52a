"""A tokenizer as a GGUF file has it. The pre-tokenizer is looked up by what tokenizer.json says, and never guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from transformers import PreTrainedTokenizerBase

from swift.core.errors import SwiftError

TABLE = Path(__file__).with_name("pre_tokenizers.json")
SPACE = "\u2581"
"""SentencePiece's mark for a space."""
ABSENT = gguf.TokenType.UNUSED
PHI_3 = re.compile("phi-?3", re.IGNORECASE)
"""In the name of a model, by which alone llama.cpp drops blanks behind added tokens (`llama_vocab::impl::load`); it
does not load a file of that name without the tokens that it makes exceptions of."""
KEEP_BLANKS = ("<unk>", "<s>", "<|endoftext|>")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The keys `tokenizer.ggml.*`."""

    model: str
    """`gpt2` for byte-level BPE, `llama` for SentencePiece's."""
    pre: str
    differs_at_marks: bool
    """llama.cpp's rule by this name is the tokenizer's but for words with combining marks, as in Hindi and Thai."""
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    space_prefix: bool = False
    adds_bos: bool
    adds_eos: bool
    ids: Mapping[str, int]
    """Of the special tokens, by their names in the file."""
    chat_template: str | Sequence[Mapping[str, str]] | None
    """One, or several by name; that called `default` is the one."""
    drops_blanks: bool
    """Behind added tokens, as Phi-3's tokenizer does."""

    def name(self, model: str) -> str:
        """What the file calls the model, so that llama.cpp treats blanks as the tokenizer does."""
        if not self.drops_blanks:
            return PHI_3.sub("Phi 3", model)
        return model if PHI_3.search(model) else f"{model} (phi-3)"

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Put it into a file."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.merges:
            writer.add_token_merges(self.merges)
        if self.scores:
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.space_prefix)
        for name, number in self.ids.items():
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(self.adds_eos)
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, rows: int, ends: Sequence[int], where: str) -> Vocabulary:
    """The tokenizer of a model with `rows` embeddings whose answers end with one of `ends`.

    Raises SwiftError for a tokenizer that llama.cpp would not follow; `where` is its folder.
    """
    backend: Any = tokenizer.backend_tokenizer
    described = json.loads(backend.to_str())
    model = described["model"]
    if model["type"] != "BPE":
        raise _unknown(where, f"its model is {model['type']}, and only BPE is known")
    if model.get("dropout") or model.get("continuing_subword_prefix"):
        raise _unknown(where, "its merges have a dropout or a prefix")
    tokens, types = _tokens(described, rows)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    begins, stops = _added_around(tokenizer, where)
    pieces = bool(model.get("byte_fallback"))
    pre, differs_at_marks = ("default", False) if pieces else _pre_tokenizer(described, where)
    return Vocabulary(
        model="llama" if pieces else "gpt2",
        pre=pre,
        differs_at_marks=differs_at_marks,
        tokens=tokens,
        types=types,
        merges=() if pieces else tuple(merges),
        scores=_scores(tokens, merges) if pieces else (),
        space_prefix=pieces and _space_prefix(described, where),
        adds_bos=begins,
        adds_eos=stops,
        ids=_ids(tokenizer, rows, ends),
        chat_template=_chat_template(tokenizer),
        drops_blanks=_drops_blanks(described, tokens),
    )


def _tokens(described: Mapping[str, Any], rows: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Every embedding has a token: those past the tokenizer's last are padding."""
    tokens = [f"[PAD{number}]" for number in range(rows)]
    types = [int(ABSENT)] * rows
    model = described["model"]
    pieces = bool(model.get("byte_fallback"))
    for token, number in model["vocab"].items():
        if number < rows:
            byte = pieces and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
            unknown = pieces and token == model.get("unk_token")
            kind = gguf.TokenType.BYTE if byte else gguf.TokenType.UNKNOWN if unknown else gguf.TokenType.NORMAL
            tokens[number], types[number] = token, int(kind)
    for added in described["added_tokens"]:
        number, special = added["id"], added["special"]
        if number < rows and types[number] != gguf.TokenType.UNKNOWN:
            # llama.cpp looks for these in the text itself, where a space is a space.
            tokens[number] = added["content"] if special or not pieces else added["content"].replace(SPACE, " ")
            types[number] = int(gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED)
    return tuple(tokens), tuple(types)


def _drops_blanks(described: Mapping[str, Any], tokens: Sequence[str]) -> bool:
    """Whether blanks go behind the very tokens behind which llama.cpp drops them."""
    added = described["added_tokens"]
    as_there = all(each["rstrip"] == (each["content"] not in KEEP_BLANKS) for each in added)
    return bool(added) and as_there and {"</s>", *KEEP_BLANKS} <= set(tokens)


def _scores(tokens: Sequence[str], merges: Sequence[str]) -> tuple[float, ...]:
    """SentencePiece joins the pair whose result scores highest: the first of the merges."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        left, _, right = pair.partition(" ")
        ranks.setdefault(left + right, rank)
    return tuple(-float(ranks.get(token, len(merges))) for token in tokens)


def _space_prefix(described: Mapping[str, Any], where: str) -> bool:
    """Whether a space is put before the text. Raises SwiftError for other rewriting than spaces to their mark."""
    steps = [*_steps(described["normalizer"], "normalizers"), *_steps(described["pre_tokenizer"], "pretokenizers")]
    prefix = False
    for step in steps:
        kind = step["type"]
        if kind == "Prepend" and step["prepend"] == SPACE:
            prefix = True
        elif kind == "Metaspace" and step["replacement"] == SPACE:
            prefix = prefix or step["prepend_scheme"] != "never"
        elif kind == "Replace" and step["pattern"] == {"String": " "} and step["content"] == SPACE:
            continue
        elif kind == "Split" and step["pattern"] == {"String": " "}:
            continue  # after the Replace there is none left
        else:
            raise _unknown(where, f"it has the step {kind}")
    return prefix


def _pre_tokenizer(described: Mapping[str, Any], where: str) -> tuple[str, bool]:
    """llama.cpp's name for how the text is cut before the merges, and whether it does it otherwise at marks."""
    rule = {
        "normalizer": [_bare(step) for step in _steps(described["normalizer"], "normalizers")],
        "pre_tokenizer": [_bare(step) for step in _steps(described["pre_tokenizer"], "pretokenizers")],
        "ignore_merges": bool(described["model"].get("ignore_merges")),
    }
    for row in json.loads(TABLE.read_text("utf-8")):
        if all(row[key] == value for key, value in rule.items()):
            return row["name"], row.get("differs_at_marks", False)
    raise _unknown(where, f"its way of cutting text is not one that llama.cpp has by name: {json.dumps(rule)}")


def _steps(step: Mapping[str, Any] | None, inside: str) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [each for part in step[inside] for each in _steps(part, inside)]
    return [step]


def _bare(step: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without what changes offsets only."""
    return {name: value for name, value in step.items() if name != "trim_offsets"}


def _added_around(tokenizer: PreTrainedTokenizerBase, where: str) -> tuple[bool, bool]:
    """Whether the tokenizer puts its begin and its end around a text. Raises SwiftError when it adds anything else."""
    bare, whole = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    begins = bool(whole) and whole[0] == tokenizer.bos_token_id and whole != bare
    stops = len(whole) > len(bare) + begins and whole[-1] == tokenizer.eos_token_id
    inner = whole[int(begins) : len(whole) - int(stops)]
    if inner != bare:
        raise _unknown(where, f"it puts {tokenizer.convert_ids_to_tokens(whole)} around `a`")
    return begins, stops


def _ids(tokenizer: PreTrainedTokenizerBase, rows: int, ends: Sequence[int]) -> dict[str, int]:
    given: dict[str, Any] = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
    }
    others = [end for end in dict.fromkeys(ends) if end != given["eos"]]
    given |= dict(zip(("eot", "eom"), others, strict=False))
    return {name: number for name, number in given.items() if number is not None and number < rows}


def _chat_template(tokenizer: PreTrainedTokenizerBase) -> str | Sequence[Mapping[str, str]] | None:
    template: Any = tokenizer.chat_template
    if not isinstance(template, dict):
        return template
    return [{"name": name, "template": text} for name, text in template.items()]


def _unknown(where: str, why: str) -> SwiftError:
    return SwiftError(
        "llama.cpp would not cut text as this tokenizer does", where=where, why=why, next="use another export"
    )
