"""What a model cannot do is known, said and kept to before its weights are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    LlamaConfig,
    OpenAIGPTConfig,
    PretrainedConfig,
)

from swift.catalog import load_catalog
from swift.cli import main
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.sft import plan_sft
from swift.training.fit_to_model import with_images

SMALL = {"vocab_size": 49152, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
LLAMA = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def folder_of(config: PretrainedConfig, tokenizer_dir: Path, folder: Path, **added: object) -> Path:
    """A random model's folder; `added` goes into its tokenizer."""
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    tokenizer.add_tokens(["<note>", "<rest>"] if "tokens" in added else [])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"} if "pad" in added else {})
    tokenizer.save_pretrained(folder)
    return folder


def rows_file(path: Path, *answers: str) -> Path:
    """Rows with these answers."""
    path.write_text("".join(json.dumps({"query": "Say it.", "response": text}) + "\n" for text in answers))
    return path


def dry_run(command: str, model: Path, rows: Path, *words: str) -> int:
    given = ["--model_id_or_path", str(model), "--dataset", str(rows), "--dataset_test_ratio", "0", "--dry_run"]
    return main([command, *given, "--no_cache", "true", "--max_drop_ratio", "0.9", "--target_modules", "ALL", *words])


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        ([], "1 dropped"),
        (["--max_length", "-1"], "1 dropped"),
        (["--truncation_strategy", "truncation_left"], "1 truncated"),
        (["--lazy_tokenize", "true"], "1 dropped"),
    ],
)
def test_rows_beyond_the_context(
    words: list[str],
    outcome: str,
    smollm2_tokenizer_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = folder_of(GPT2Config(**SMALL), smollm2_tokenizer_dir, tmp_path / "model")
    rows = rows_file(tmp_path / "rows.jsonl", "Well.", "Well then. " * 40)
    assert dry_run("sft", model, rows, *words) == 0
    printed = capsys.readouterr()
    assert "the model reads 64 tokens" in printed.err
    assert outcome in printed.out


def test_a_class_without_gradient_checkpointing(
    smollm2_tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = folder_of(OpenAIGPTConfig(**SMALL), smollm2_tokenizer_dir, tmp_path / "model")
    rows = rows_file(tmp_path / "rows.jsonl", "Well.", "Well then.")
    assert dry_run("pt", model, rows) == 0
    assert "OpenAIGPTLMHeadModel has no gradient checkpointing" in capsys.readouterr().err


def test_tokens_without_embedding(
    smollm2_tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = LlamaConfig(vocab_size=49152, **LLAMA)
    model = folder_of(config, smollm2_tokenizer_dir, tmp_path / "model", tokens=True)
    lacking = "2 tokens of the tokenizer have no embedding in the model, which has 49152: <note>, <rest>"
    rows = rows_file(tmp_path / "rows.jsonl", "Well.", "Well <rest>.")
    assert dry_run("sft", model, rows) == 0
    printed = capsys.readouterr()
    assert lacking in printed.err and "1 dropped" in printed.out
    assert "the row has the token <rest>" in printed.err
    assert dry_run("sft", model, rows, "--max_drop_ratio", "0") == 2
    assert dry_run("sft", model, rows_file(tmp_path / "unused.jsonl", "Well.", "Good.")) == 0


@pytest.mark.parametrize("command", ["sft", "pt", "infer"])
def test_padding_without_embedding(
    command: str, smollm2_tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = LlamaConfig(vocab_size=49152, **LLAMA)
    model = folder_of(config, smollm2_tokenizer_dir, tmp_path / "model", pad=True)
    rows = rows_file(tmp_path / "rows.jsonl", "Well.", "Good.")
    if command == "infer":
        assert main(["infer", "--model_id_or_path", str(model), "--val_dataset", str(rows)]) == 2
    else:
        assert dry_run(command, model, rows) == 2
    assert "[PAD] is its pad_token" in capsys.readouterr().err


def test_an_encoder_with_a_decoder(
    smollm2_tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers would load the decoder alone, in silence."""
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    config = BartConfig(**sizes, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=49152)
    BartForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(smollm2_tokenizer_dir).save_pretrained(tmp_path / "model")
    rows = rows_file(tmp_path / "rows.jsonl", "Well.")
    assert dry_run("sft", tmp_path / "model", rows) == 2
    assert "only its decoder would be loaded" in capsys.readouterr().err
    assert main(["infer", "--model_id_or_path", str(tmp_path / "model"), "--val_dataset", str(rows)]) == 2
    assert "only its decoder would be loaded" in capsys.readouterr().err


def test_an_answer_has_room_beside_its_prompt(
    smollm2_tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = folder_of(GPT2Config(**SMALL), smollm2_tokenizer_dir, tmp_path / "model")
    rows = tmp_path / "prompts.jsonl"
    rows.write_text("".join(json.dumps({"query": "so " * size}) + "\n" for size in (1, 2, 40)))
    words = ["grpo", "--model_id_or_path", str(model), "--dataset", str(rows), "--dry_run", "--no_cache", "true"]
    words += ["--max_drop_ratio", "0.9", "--template_type", "chatml", "--target_modules", "ALL"]
    words += ["--reward_funcs", "format", "--max_completion_length"]
    assert main([*words, "64"]) == 2
    assert "there is no room for a prompt" in capsys.readouterr().err
    assert main([*words, "30"]) == 0
    printed = capsys.readouterr()
    assert "30 of which an answer may have, so rows have no more than 34" in printed.err
    assert "1 dropped" in printed.out


@pytest.mark.parametrize("words", ["--sequence_parallel_size 2", "--sft_type longlora"])
def test_rows_that_cannot_lie_end_to_end_are_not_divided(words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    given = ["sft", "--model_id_or_path", str(tmp_path), "--dataset", str(tmp_path / "config.json"), *words.split()]
    two = Machine(world_size=2, local_world_size=2)
    plan = plan_sft(parse(given), load_catalog(), two)
    apart: Any = SimpleNamespace(family=SimpleNamespace(opening=(), lies_flat=False, parts=None))
    with pytest.raises(SwiftError, match=f"{words.split()[0]}.* does not go together with this model"):
        with_images(plan, apart)
    flat: Any = SimpleNamespace(family=SimpleNamespace(opening=(), lies_flat=True, parts=None))
    assert with_images(plan, flat).train.sequence_parallel == plan.train.sequence_parallel


def test_beams_do_not_share_weights_out_and_see_images(tmp_path: Path) -> None:
    """The loop of transformers that would carry them out repeats images beam by beam, whichever row they are of."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    given = [
        "sft",
        "--model_id_or_path",
        str(tmp_path),
        "--dataset",
        str(tmp_path / "config.json"),
        "--fsdp",
        "full_shard",
    ]
    given += ["--predict_with_generate", "true", "--num_beams", "2"]
    images: Any = SimpleNamespace(family=SimpleNamespace(opening=(), lies_flat=True, parts=None))
    plan = plan_sft(parse(given), load_catalog(), Machine(world_size=2, local_world_size=2))
    with pytest.raises(SwiftError, match="--num_beams above 1, where weights are shared out"):
        with_images(plan, images)
