"""A GGUF file is the model it was made from: llama.cpp cuts the same tokens and answers the same, or it is refused."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tests.commands.test_merge_lora import adapter
from tests.exporting.gguf_models import LLAMA3, MODELS, YARN, small_model
from tests.exporting.gguf_tokenizers import SENTENCEPIECE, small_tokenizer
from transformers import AddedToken, AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from swift.catalog import load_catalog
from swift.cli import main
from swift.core.errors import SwiftError
from swift.engines.gguf_check import Check, check_gguf
from swift.engines.llama_server import LlamaServer
from swift.models.gguf.file import Written, write_gguf
from swift.models.gguf.vocabulary import TABLE
from swift.plan.gguf import GgufType
from swift.plan.prompt import PromptPlan
from swift.prompts.encode import build_encoder

pytest.importorskip("xllamacpp")
TOKENIZERS = [*(row["name"] for row in json.loads(TABLE.read_text("utf-8"))), *SENTENCEPIECE]


@dataclass
class Small:
    """A model's folder and its tokenizer."""

    folder: Path
    tokenizer: Any

    def write(self, file: Path, type: GgufType = "f16") -> Written:
        config = AutoConfig.from_pretrained(self.folder)
        return write_gguf(self.folder, config, self.tokenizer, file, type=type, name="small", ends=[2])

    def check(self, file: Path, type: GgufType = "f16", **settings: Any) -> Check:
        encoder = build_encoder(PromptPlan(template_type="chatml"), self.tokenizer, load_catalog(None, None))
        rows = AutoConfig.from_pretrained(self.folder).vocab_size
        settings = {"positions": 1024, "vocabulary": rows, "new_tokens": 24, **settings}
        return check_gguf(file, type, encoder, lambda: _loaded(self.folder), **settings)


def _loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Small]:
    def build(model: str = "llama, tied", tokenizer: str = "smollm", *, bos: bool = False, **settings: Any) -> Small:
        folder = small_tokenizer(tokenizer, tmp_path / "model", bos=bos)
        loaded = PreTrainedTokenizerFast.from_pretrained(folder)
        small_model(model, folder, len(loaded) + 3, **settings)
        return Small(folder, loaded)

    return build


def _rewrite(path: Path, change: Callable[[Any], None]) -> None:
    described = json.loads(path.read_text("utf-8"))
    change(described)
    path.write_text(json.dumps(described), encoding="utf-8")


@pytest.mark.parametrize(("model", "tokenizer"), [*zip(MODELS, cycle(TOKENIZERS), strict=False)])
def test_llama_cpp_is_the_model(small: Callable[..., Small], tmp_path: Path, model: str, tokenizer: str) -> None:
    """Each architecture with a tokenizer of another kind; every second one begins its texts with a token."""
    source = small(model, tokenizer, bos=bool(list(MODELS).index(model) % 2))
    file = tmp_path / "model.gguf"
    written = source.write(file)
    check = source.check(file, positions=written.positions, marks=not written.differs_at_marks)
    assert check.cut_otherwise == ()
    assert check.agreement >= 0.99, check
    assert check.logprob_difference is None or check.logprob_difference < 2e-3
    assert check.faults() == []


@pytest.mark.parametrize("type", ["f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
def test_every_type_loads_and_loses_little(small: Callable[..., Small], tmp_path: Path, type: GgufType) -> None:
    source, file = small(), tmp_path / "model.gguf"
    written = source.write(file, type)
    assert written.fallback == ()
    check = source.check(file, type, new_tokens=8)
    assert check.logprob_difference is not None
    assert check.logprob_difference < {"f": 2e-3, "b": 2e-2, "q": 2.0}[type[0]] / (10 if type == "q8_0" else 1)


def test_rows_that_no_block_divides_are_f16(small: Callable[..., Small], tmp_path: Path) -> None:
    source, file = small(hidden_size=80, head_dim=20), tmp_path / "model.gguf"
    written = source.write(file, "q8_0")
    assert written.kinds["F16"] and "blk.0.attn_q.weight" in written.fallback
    assert source.check(file, "q8_0", new_tokens=8).tokens


def test_another_model_and_another_tokenizer_are_found_out(small: Callable[..., Small], tmp_path: Path) -> None:
    source, file = small(), tmp_path / "model.gguf"
    source.write(file)
    small_model("llama, biases", source.folder, len(source.tokenizer) + 3)
    (fault,) = source.check(file, new_tokens=8).faults()
    assert "of greedy tokens are the original's" in fault
    source.tokenizer = PreTrainedTokenizerFast.from_pretrained(small_tokenizer("gpt-2", tmp_path / "other"))
    assert "cuts a text otherwise: 'The year 1984" in source.check(file, new_tokens=8).faults()[0]


@pytest.mark.parametrize("name", ["me/checkpoint-100", "microsoft/Phi-3-mini", "a-llama-taught-by-phi3"])
@pytest.mark.parametrize("drops", [True, False])
def test_blanks_behind_tokens_do_not_hang_on_the_name(
    small: Callable[..., Small], tmp_path: Path, name: str, drops: bool
) -> None:
    """llama.cpp drops them where the model is called Phi-3, and loads no file of that name without certain tokens."""
    source, file = small("llama, tied", "llama"), tmp_path / "model.gguf"
    more = [*source.tokenizer.added_tokens_decoder.values(), "</s>", "<|endoftext|>", "<|end|>"] if drops else []
    keeps = ("<unk>", "<s>", "<|endoftext|>")
    tokens = [AddedToken(str(each), special=True, normalized=False, rstrip=str(each) not in keeps) for each in more]
    source.tokenizer.add_tokens(tokens, special_tokens=True)
    config = AutoConfig.from_pretrained(source.folder)
    write_gguf(source.folder, config, source.tokenizer, file, type="f16", name=name, ends=[2])
    server = LlamaServer(file, context=64, places=1)
    for text in ("<|im_start|>user\n  Hello<|im_end|> \n x", "<s> a<unk> b"):
        assert server.tokens(text, whole=False) == source.tokenizer.encode(text, add_special_tokens=False)
    server.end()
    apart, together = (source.tokenizer.encode(f"<|im_end|>{text}") for text in (" \n x", "x"))
    assert (apart == together) is drops


@pytest.mark.parametrize(("tokenizer", "fault"), [("smollm", None), ("llama", "cuts a text otherwise: 'xnewwordy")])
def test_tokens_that_a_user_added_are_cut_the_same(
    small: Callable[..., Small], tmp_path: Path, tokenizer: str, fault: str | None
) -> None:
    """Those of `add_tokens` take the space before them along where SentencePiece puts one, which llama.cpp does not."""
    source, file = small("llama, tied", tokenizer), tmp_path / "model.gguf"
    source.tokenizer.add_tokens(["newword", "<tool>"])
    source.tokenizer.add_special_tokens({"additional_special_tokens": ["<|more|>"]})
    source.write(file)
    check = source.check(file, new_tokens=8)
    assert check.texts == 20 + len(source.tokenizer.added_tokens_decoder)
    assert [text.partition(" ")[0] for text in check.faults()] == ([] if fault is None else ["llama.cpp"])
    assert fault is None or fault in check.faults()[0]


def test_tokens_that_have_no_embedding_do_no_harm(small: Callable[..., Small], tmp_path: Path) -> None:
    """As in Gemma 3, whose tokenizer knows one more than the model."""
    source, file = small(), tmp_path / "model.gguf"
    source.tokenizer.add_special_tokens({"additional_special_tokens": [f"<|more{number}|>" for number in range(9)]})
    source.write(file)
    assert source.check(file, new_tokens=8).faults() == []


def test_a_head_beside_an_embedding_that_config_json_says_is_it(small: Callable[..., Small], tmp_path: Path) -> None:
    """As after a merge that changed one of the two: transformers takes both, and so does the file."""
    from safetensors.torch import load_file, save_file

    source, file = small(), tmp_path / "model.gguf"
    path = source.folder / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].flip(0)}, path, {"format": "pt"})
    assert source.write(file, "f32").tensors == len(tensors) + 1
    assert source.check(file, "f32", new_tokens=8).faults() == []
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, path, {"format": "pt"})
    assert source.write(file, "f32").tensors == len(tensors)


def test_chat_templates_with_names(small: Callable[..., Small], tmp_path: Path) -> None:
    source, file = small(), tmp_path / "model.gguf"
    text = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    source.tokenizer.chat_template = {"default": text, "tool_use": text + "!"}
    source.write(file)
    fields = gguf.GGUFReader(file).fields
    assert fields["tokenizer.chat_template"].contents() == text
    assert fields["tokenizer.chat_template.tool_use"].contents() == text + "!"


def test_what_rounding_decides_is_no_fault_of_a_file_that_is_not_quantized(
    small: Callable[..., Small], tmp_path: Path
) -> None:
    source, file = small(), tmp_path / "model.gguf"
    source.write(file)
    check = replace(source.check(file, new_tokens=8), agreement=0.9, tokens=100)
    assert replace(check, near=10).faults() == [] and replace(check, near=5).faults() != []
    assert replace(check, near=10, type="q8_0").faults() != []


def _no_layer(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.extra.weight"] = tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _huge(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e5
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _config(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: _rewrite(folder / "config.json", lambda config: config.update(fields))


NO_NAME = "is not one that llama.cpp has by name"
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
STRETCH = "does not stretch positions as this model does"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_config(architectures=["GPT2LMHeadModel"]), "GPT2LMHeadModel does not convert to GGUF"),
        (_config(hidden_act="relu"), "its activation is relu"),
        (_config(rope_parameters=DYNAMIC), f"{STRETCH} .dynamic"),
        (_config(rope_parameters={**YARN, "truncate": False}), f"{STRETCH} .yarn"),
        (_config(rope_parameters={**YARN, "beta_fast": 16.0}), f"{STRETCH} .yarn"),
        (_config(rope_parameters={**YARN, "attention_factor": 1.1}), f"{STRETCH} .yarn"),
        (_config(quantization_config={"quant_method": "gptq", "bits": 4}), "is quantized already .gptq 4 bit"),
        (_no_layer, "lacks 1 tensors: model.layers.0.mlp.up_proj.weight"),
        (_huge, "beyond what fp16 can hold"),
    ],
)
def test_what_would_be_another_model_is_refused(
    small: Callable[..., Small], tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    source = small()
    change(source.folder)
    with pytest.raises(SwiftError, match=message):
        source.write(tmp_path / "model.gguf")


def test_factors_of_frequencies_that_llama_cpp_does_not_read(small: Callable[..., Small], tmp_path: Path) -> None:
    """It would load no such file."""
    with pytest.raises(SwiftError, match=f"{STRETCH} .llama3"):
        small("qwen2", rope_parameters=LLAMA3).write(tmp_path / "model.gguf")


def test_tensors_of_no_layer_are_refused(small: Callable[..., Small], tmp_path: Path) -> None:
    source = small("llama, biases")
    _config(mlp_bias=False)(source.folder)
    with pytest.raises(SwiftError, match="6 tensors that its class does not know"):
        source.write(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["pre_tokenizer"]["pretokenizers"][0].update(individual_digits=False),
            "is not one that llama.cpp has by name",
        ),
        (lambda d: d.update(normalizer={"type": "Lowercase"}), "is not one that llama.cpp has by name"),
        (lambda d: d["model"].update(ignore_merges=True), "is not one that llama.cpp has by name"),
        (lambda d: d["model"].update(dropout=0.1), "a dropout"),
    ],
)
def test_a_tokenizer_that_is_not_known_is_not_guessed(
    small: Callable[..., Small], tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    source = small()
    _rewrite(source.folder / "tokenizer.json", change)
    source.tokenizer = PreTrainedTokenizerFast.from_pretrained(source.folder)
    with pytest.raises(SwiftError) as caught:
        source.write(tmp_path / "model.gguf")
    assert message in str(caught.value)


def test_shards_old_files_and_a_bare_model_are_read_alike(small: Callable[..., Small], tmp_path: Path) -> None:
    source, file = small("qwen3"), tmp_path / "one.gguf"
    source.write(file)
    model = _loaded(source.folder)
    for number, save in enumerate(
        (
            lambda folder: model.save_pretrained(folder, max_shard_size="50KB"),
            lambda folder: torch.save(model.state_dict(), folder / "pytorch_model.bin"),
            lambda folder: torch.save(model.model.state_dict(), folder / "pytorch_model.bin"),
        )
    ):
        (source.folder / "model.safetensors").unlink(missing_ok=True)
        save(source.folder)
        other = tmp_path / f"{number}.gguf"
        source.write(other)
        assert other.read_bytes() == file.read_bytes()
        for path in (*source.folder.glob("*.bin"), *source.folder.glob("*.safetensors*")):
            path.unlink()


def test_the_command_merges_converts_and_reports(
    small: Callable[..., Small], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = adapter(small("llama, biases").folder, tmp_path / "checkpoint-1", saved_args=True)
    words = ["export", "--ckpt_dir", str(checkpoint), "--template_type", "chatml", "--to_gguf"]
    assert main([*words, "f16"]) == 0
    target = tmp_path / "checkpoint-1-gguf-f16"
    assert sorted(path.name for path in target.iterdir()) == [
        "README.md",
        "gguf_report.json",
        "manifest.json",
        "model.gguf",
    ]
    report = json.loads((target / "gguf_report.json").read_text())
    assert report["agreement"] >= 0.99 and report["faults"] == [] and report["source"].endswith("checkpoint-1-merged")
    printed = capsys.readouterr().err
    assert all(f"{word}:" in printed for word in ("size", "tokenizer", "answers", "agreement", "speed"))
    assert main([*words, "f16"]) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*words, "q3_k"]) == 2
    strict = ["--gguf_min_agreement", "1", "--gguf_output_dir", str(tmp_path / "strict")]
    assert main([*words, "q4_0", *strict]) == 1
    assert "--gguf_min_agreement" in capsys.readouterr().err and not (tmp_path / "strict").exists()


def test_a_full_disk_and_a_rejected_file_leave_nothing(
    small: Callable[..., Small], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = small(), tmp_path / "out"
    words = ["export", "--model_id_or_path", str(source.folder), "--template_type", "chatml", "--to_gguf", "q4_0"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
        assert main([*words, "--gguf_output_dir", str(target)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    printed = capsys.readouterr().err
    assert "could not be written to its end" in printed and "--gguf_output_dir" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    # llama.cpp does not take the space in front of a token with it.
    token = {"content": "caf\u00e9", "special": False, "normalized": False, "single_word": False}
    grown = {**token, "lstrip": True, "rstrip": False}
    _rewrite(
        source.folder / "tokenizer.json", lambda d: d["added_tokens"].append({**grown, "id": len(source.tokenizer)})
    )
    assert main([*words, "--gguf_output_dir", str(target)]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out.gguf_report.json"]
    assert "cuts a text otherwise" in capsys.readouterr().err
