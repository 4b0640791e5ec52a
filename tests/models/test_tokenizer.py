"""Tokenizers are of the class that AutoTokenizer takes, also where torch is not asked for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import CONFIG_MAPPING, AutoTokenizer

from swift.models.tokenizer import CLASSES, tokenizer_class

GEMMA = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "\u2581": 4, "a": 5, "b": 6, "ab": 7}
"""Classes of their own build themselves from a vocabulary of their kind."""


def tokenizer_folder(folder: Path, source: Path, kind: str, name: str, *, bytewise: bool = True) -> Path:
    """A model folder of this type with SmolLM2's tokenizer, or one of a few letters, under this name."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    CONFIG_MAPPING[kind]().save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": name}))
    if not bytewise:
        data = json.loads((folder / "tokenizer.json").read_text())
        data["model"].update(vocab=GEMMA, merges=[["a", "b"]], type="BPE")
        data.update(pre_tokenizer=None, decoder=None, post_processor=None, added_tokens=[], normalizer=None)
        (folder / "tokenizer.json").write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize(("kind", "name"), CLASSES)
def test_the_class_is_the_one_that_transformers_takes(
    kind: str, name: str, smollm2_tokenizer_dir: Path, tmp_path: Path
) -> None:
    bytewise = name not in ("LlamaTokenizer", "GemmaTokenizer")
    for number, suffix in enumerate(("", "Fast") if name != "TokenizersBackend" else ("",)):
        folder = tokenizer_folder(tmp_path / str(number), smollm2_tokenizer_dir, kind, name + suffix, bytewise=bytewise)
        chosen = tokenizer_class(folder)
        assert chosen is not AutoTokenizer
        ours, theirs = chosen.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert type(ours) is type(theirs)
        assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
        assert ours.special_tokens_map == theirs.special_tokens_map
        assert ours.chat_template == theirs.chat_template
        assert ours.model_max_length == theirs.model_max_length


@pytest.mark.parametrize(("kind", "name"), [("llama", "LlamaTokenizer"), ("gpt2", "GPT2Tokenizer"), ("llama", "Own")])
def test_any_other_is_left_to_transformers(kind: str, name: str, smollm2_tokenizer_dir: Path, tmp_path: Path) -> None:
    assert tokenizer_class(tokenizer_folder(tmp_path, smollm2_tokenizer_dir, kind, name)) is AutoTokenizer


def test_a_folder_without_a_configuration_is_left_to_transformers(smollm2_tokenizer_dir: Path) -> None:
    assert not (smollm2_tokenizer_dir / "config.json").exists()
    assert tokenizer_class(smollm2_tokenizer_dir) is AutoTokenizer
