"""Every tuning method on every kind of model, from the command line: train, go on for longer, answer, merge."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from tests.commands.test_tuners import rows, train, weights
from tests.conftest import TINY, _save_tiny

from swift.cli import main

__all__ = ["rows"]  # a fixture
pytestmark = pytest.mark.slow

METHODS = {
    "lora": "",
    "swift-lora": "--tuner_backend swift",
    "longlora": "--sft_type longlora --max_length 64",
    "adalora": "--sft_type adalora --adalora_init_r 6 --adalora_target_r 2",
    "ia3": "--sft_type ia3",
    "vera": "--sft_type vera",
    "boft": "--sft_type boft",
    "fourierft": "--sft_type fourierft",
    "adapter": "--sft_type adapter --adapter_length 8",
    "reft": "--sft_type reft --tuner_backend swift --reft_intervention_type DireftIntervention",
    "llamapro": "--sft_type llamapro --llamapro_num_new_blocks 2",
    "swift-llamapro": "--sft_type llamapro --llamapro_num_new_blocks 1 --tuner_backend swift",
    "galore": "--sft_type full --use_galore true --galore_rank 4 --galore_update_proj_gap 3",
    "lisa": "--sft_type full --lisa_activated_layers 1 --lisa_step_interval 1",
}
ARCHITECTURES = ("llama", "qwen2", "qwen3", "phi3", "gpt2", "qwen2_moe")
QUANTIZED = "llama in 4 bits"
ON_QUANTIZED = ("lora", "swift-lora", "longlora", "adalora", "ia3", "vera")
UNMERGED, WHOLE = ("adapter", "reft"), ("galore", "lisa")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, smollm2_tokenizer_dir: Path) -> Callable[[str], Path]:
    """Makes a folder with a random two-layer model of an architecture, once."""
    import transformers

    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": [0]}
    ends = {name: TINY[name] for name in ("vocab_size", "bos_token_id", "eos_token_id")}
    make = {
        "llama": lambda: transformers.LlamaConfig(**TINY, tie_word_embeddings=True),
        "qwen2": lambda: transformers.Qwen2Config(**TINY, tie_word_embeddings=False),
        "qwen3": lambda: transformers.Qwen3Config(**TINY, head_dim=16),
        "phi3": lambda: transformers.Phi3Config(**TINY),
        "gpt2": lambda: transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=4096, **ends),
        "qwen2_moe": lambda: transformers.Qwen2MoeConfig(**TINY, **experts, shared_expert_intermediate_size=32),
    }

    @cache
    def folder(name: str) -> Path:
        return _save_tiny(tmp_path_factory.mktemp("models") / name, make[name](), smollm2_tokenizer_dir)

    return folder


CASES = [
    *((method, base) for base in ARCHITECTURES for method in METHODS),
    *((method, QUANTIZED) for method in ON_QUANTIZED),
]


@pytest.mark.parametrize(("method", "base"), CASES, ids=lambda name: name.replace(" ", "-"))
def test_a_run_that_goes_on_for_longer_ends_as_the_whole_one(
    method: str,
    base: str,
    tiny: Callable[[str], Path],
    rows: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words, model = METHODS[method].split(), tiny(base.partition(" ")[0])
    if base == QUANTIZED:
        pytest.importorskip("bitsandbytes")
        words += ["--quantization_bit", "4", "--quant_method", "bnb"]
    if (method, base) == ("boft", "gpt2"):
        common = (
            f"sft --model_id_or_path {model} --dataset {rows} --output_dir {tmp_path} --sft_type boft --max_steps 1"
        )
        assert main(common.split()) == 2
        assert "Conv1D" in capsys.readouterr().err
        return
    whole = train(model, rows, tmp_path / "whole", *words, steps=4) / "checkpoint-4"
    first = train(model, rows, tmp_path / "first", *words, steps=2) / "checkpoint-2"
    going_on = ("--resume_from_checkpoint", str(first))
    rest = train(model, rows, tmp_path / "rest", *words, *going_on, steps=4) / "checkpoint-4"
    expected, got = weights(whole), weights(rest)
    if method == "adalora":  # spreads its ranks over the steps of the run it is in
        kept = [t for name, t in got.items() if "adapter_model" in name and "lora_E" in name]
        assert sum(len(t) for t in kept) == 2 * len(kept)
    else:
        assert expected.keys() == got.keys()
        assert all(torch.equal(expected[key], got[key]) for key in expected)
    capsys.readouterr()

    infer = f"infer --ckpt_dir {rest} --val_dataset {rows} --show_dataset_sample 1 --max_new_tokens 2"
    assert main([*infer.split(), "--result_dir", str(tmp_path / "answers")]) == 0
    assert len(next((tmp_path / "answers").iterdir()).read_text().splitlines()) == 1
    capsys.readouterr()

    refused = "it is a whole model" if method in WHOLE else "cannot be merged" if method in UNMERGED else None
    assert main(["merge-lora", "--ckpt_dir", str(rest)]) == (2 if refused else 0)
    assert (refused or "") in capsys.readouterr().err
