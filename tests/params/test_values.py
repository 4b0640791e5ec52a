"""What the words behind a flag mean."""

from __future__ import annotations

from typing import Any

import pytest

from swift.core.errors import SwiftError
from swift.params.parse import parse


def value(name: str, *words: str, command: str = "sft") -> Any:
    return parse([command, *words]).values[name]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--packing"], True),
        (["--packing", "true"], True),
        (["--packing", "1"], True),
        (["--packing", "Yes"], True),
        (["--packing=true"], True),
        (["--packing", "false"], False),
        (["--packing", "0"], False),
        (["--packing", "no"], False),
        (["--no_packing"], False),
        (["--no-packing"], False),
        ([], False),
    ],
)
def test_switches(words: list[str], expected: bool) -> None:
    assert value("packing", *words) is expected


def test_optional_switch_has_three_states() -> None:
    assert value("use_flash_attn") is None
    assert value("use_flash_attn", "--use-flash-attn") is True
    assert value("use_flash_attn", "--no_use_flash_attn") is False
    assert value("use_flash_attn", "--use_flash_attn", "None") is None


def test_no_cache_is_a_flag_of_its_own() -> None:
    assert value("no_cache", "--no_cache") is True
    assert value("no_cache", "--no-cache", "false") is False


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a", "b"], ("a", "b")),
        (["a,b"], ("a", "b")),
        (["a, b", "c"], ("a", "b", "c")),
        (["HF::org/name:sub1/sub2#10", "x.jsonl#5"], ("HF::org/name:sub1/sub2#10", "x.jsonl#5")),
        (['["a", "b,c"]'], ("a", "b,c")),
        (["None"], ()),
        (["null"], ()),
    ],
)
def test_lists(words: list[str], expected: tuple[str, ...]) -> None:
    assert value("dataset", "--dataset", *words) == expected


def test_lists_of_numbers_and_lists_that_may_be_unset() -> None:
    assert value("reft_layers", "--reft_layers", "1,2", "3") == (1, 2, 3)
    assert value("galore_target_modules", "--galore_target_modules", "None") is None


def test_names_may_hold_commas() -> None:
    assert value("model_author", "--model_author", "艾克米", "Acme, Inc.") == ("艾克米", "Acme, Inc.")
    assert value("model_name", "--model_name", "小黄,Huang") == ("小黄", "Huang")
    assert value("model_name", "--model_name", "None", "Huang") == (None, "Huang")
    assert value("stop_words", "--stop_words", ",", "<|end|>", command="infer") == (",", "<|end|>")


@pytest.mark.parametrize("text", ["Hello, you", "--not a flag", "- be brief", "", "true", "[10:20]", "a=b"])
def test_texts_are_left_alone(text: str) -> None:
    assert value("system", "--system", text) == text


def test_a_text_like_a_flag_needs_the_equals_sign() -> None:
    assert value("system", "--system=--packing") == "--packing"


@pytest.mark.parametrize(("word", "expected"), [("None", None), ("null", None), ("nobody", "nobody")])
def test_none_unsets(word: str, expected: str | None) -> None:
    assert value("model_type", "--model_type", word) == expected


def test_numbers() -> None:
    assert value("max_length", "--max_length", "-1") == -1
    assert value("learning_rate", "--learning_rate", "2e-4") == 2e-4
    assert value("learning_rate", "--learning-rate=.5") == 0.5
    assert value("num_train_epochs", "--num_train_epochs", "3") == 3
    assert value("num_train_epochs", "--num_train_epochs", "0.5") == 0.5
    assert value("quantization_bit", "--quantization_bit", "4") == 4
    assert value("warmup_ratio", "--warmup_ratio", "0") == 0.0


def test_values_of_several_kinds() -> None:
    assert value("init_lora_weights", "--init_lora_weights", "true") is True
    assert value("init_lora_weights", "--init_lora_weights", "pissa_niter_4") == "pissa_niter_4"
    assert value("vera_projection_prng_key", "--vera_projection_prng_key", "7") == 7
    assert value("vera_projection_prng_key") is True
    assert value("bnb_4bit_quant_storage", "--bnb_4bit_quant_storage", "uint8") == "uint8"


def test_choices_do_not_mind_capitals() -> None:
    assert value("dtype", "--dtype", "BF16") == "bf16"
    assert value("dtype", "--dtype", "auto") == "AUTO"


def test_json_stays_whole() -> None:
    text = '{"a": [1, 2], "b": "c,d"}'
    assert value("model_kwargs", "--model_kwargs", text) == text
    assert value("deepspeed", "--deepspeed", "default-zero2") == "default-zero2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lora_rank", "eight"], "--lora_rank takes a whole number, not `eight`"),
        (["--lora_rank", "1e3"], "write 1000"),
        (["--max_steps", "1_000"], "write 1000"),
        (["--lora_rank"], "--lora_rank needs a whole number"),
        (["--lora_rank", "0"], "--lora_rank must be at least 1, not 0"),
        (["--lora_rank", "8", "16"], "takes one value, and `16` follows it"),
        (["--lora_rank", "None"], "takes a whole number, not None"),
        (["--learning_rate", "fast"], "takes a number, not `fast`"),
        (["--learning_rate", "nan"], "takes a number, not `nan`"),
        (["--lora_dropout", "1.5"], "must be from 0 to 1, not 1.5"),
        (["--max_length", "0"], "must be at least 1 or -1, not 0"),
        (["--gpu_memory_fraction", "0"], "must be above 0 and at most 1, not 0"),
        (["--packing", "maybe"], "takes true or false, not `maybe`"),
        (["--no_packing", "true"], "--no_packing takes no value"),
        (["--sft_type", "lorra"], "did you mean `lora`?"),
        (["--dtype", "bfloat16"], "did you mean `bf16`?"),
        (["--model_kwargs", "{'a': 1}"], "is not valid JSON"),
        (["--model_kwargs", '{"a": ' * 3000], "it is nested too deeply"),
        (["--model_kwargs", '{"a": ' + "9" * 5000 + "}"], "is no JSON that can be read"),
        (["--adam_beta1", "1"], "--adam_beta1 must be at least 0 and below 1, not 1"),
        (["--seed", "-1"], "--seed must be from 0 to 4294967295, not -1"),
        (["--dataset_seed", "4294967296"], "--dataset_seed must be from 0 to 4294967295"),
        (["--seed", "9" * 5000], "takes no number of 5000 digits"),
        (["--dtype", "b\nf"], "does not take `b f`"),
        (["--dataset"], "--dataset needs at least one value"),
        (["-lora_rank", "8"], "they begin with two dashes"),
        (["stray"], "`stray` belongs to no flag"),
        (["--lora", "8"], "--lora is not a flag"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    with pytest.raises(SwiftError) as error:
        parse(["sft", *words])
    assert message in str(error.value)
    assert all(len(line) < 1300 for line in error.value.lines())


def test_a_method_that_another_flag_has_is_refused_with_that_flag() -> None:
    with pytest.raises(SwiftError) as error:
        parse(["export", "--quant_method", "hqq"])
    assert "--quantization_bit 4 --quant_method hqq of `swift sft`" in str(error.value.next)


def test_a_message_is_read_line_by_line() -> None:
    with pytest.raises(SwiftError) as error:
        parse(["sft", "--dtype", "x" * 9999 + "\n"])
    (line,) = error.value.lines()
    assert len(line) < 1300 and "\n" not in line and line.startswith("error: --dtype") and line.endswith("AUTO")


def test_port_may_be_negative_for_the_reader_but_not_for_the_flag() -> None:
    with pytest.raises(SwiftError, match="must be from 0 to 65535, not -1"):
        parse(["deploy", "--port", "-1"])


def test_no_abbreviations() -> None:
    with pytest.raises(SwiftError, match="--learning is not a flag"):
        parse(["sft", "--learning", "1"])
