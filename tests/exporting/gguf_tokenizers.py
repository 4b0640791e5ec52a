"""Small tokenizers of every kind that converts, trained here, so that another way of cutting text gives other ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, trainers

from swift.engines import gguf_check
from swift.models.gguf.vocabulary import SPACE, TABLE

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPECIAL = ("<unk>", "<s>", "<|im_end|>", "<|im_start|>")
BYTES = [f"<0x{number:02X}>" for number in range(256)]
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
SENTENCEPIECE: dict[str, list[dict[str, Any]]] = {
    "llama": [{"type": "Prepend", "prepend": SPACE}, REPLACE],
    "gemma": [REPLACE],
}


def small_tokenizer(name: str, folder: Path, *, bos: bool = False) -> Path:
    """The kind `name`, a row of the table or a key of SENTENCEPIECE, into `folder`; with `bos` it begins texts."""
    rows = {row["name"]: row for row in json.loads(TABLE.read_text("utf-8"))}
    described = _pieces(SENTENCEPIECE[name]) if name in SENTENCEPIECE else _byte_level(rows[name])
    described["added_tokens"] += [
        {"id": number, "content": token, "special": True, "normalized": False} | _EXACT
        for number, token in enumerate(SPECIAL)
    ]
    if bos:
        described["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


_EXACT = {"single_word": False, "lstrip": False, "rstrip": False}


def _corpus() -> list[str]:
    described = json.loads(gguf_check.TEXTS.read_text("utf-8"))
    own = Path(__file__).read_text("utf-8")
    numbers = " ".join(str(number**3) for number in range(300))
    return [*described["texts"] * 3, *described["prompts"], *described["questions"], own, numbers]


def _byte_level(row: dict[str, Any]) -> dict[str, Any]:
    trained = Tokenizer.from_str(json.dumps(_empty(row["normalizer"], row["pre_tokenizer"])))
    alphabet = sorted(set(_byte_alphabet()))
    trained.train_from_iterator(
        _corpus(),
        trainers.BpeTrainer(
            vocab_size=900, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
        ),
    )
    described = json.loads(trained.to_str())
    described["model"]["ignore_merges"] = row["ignore_merges"]
    described["added_tokens"] = []
    return described


def _pieces(normalizer: list[dict[str, Any]]) -> dict[str, Any]:
    """As LLaMA's: bytes stand for characters without a piece."""
    trained = Tokenizer.from_str(json.dumps(_empty(normalizer, [])))
    common = [text for text in _corpus() if text.isascii()]
    special = [*map(AddedToken, SPECIAL), *BYTES]
    trained.train_from_iterator(
        common, trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    )
    described = json.loads(trained.to_str())
    described["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    decoders = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}]
    described["decoder"] = {"type": "Sequence", "decoders": [*decoders, {"type": "Fuse"}]}
    described["added_tokens"] = []
    return described


def _empty(normalizer: list[dict[str, Any]], pre_tokenizer: list[dict[str, Any]]) -> dict[str, Any]:
    whole = [{**step, "trim_offsets": True} if step["type"] == "ByteLevel" else step for step in pre_tokenizer]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizer} if normalizer else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": whole} if whole else None,
        "post_processor": None,
        "decoder": BYTE_LEVEL if whole else None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {},
            "merges": [],
        },
    }


def _byte_alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel.alphabet()
