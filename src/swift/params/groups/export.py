"""Quantizing, converting and handing over."""

from __future__ import annotations

from typing import Annotated, Literal

from swift.params.flag import Basic, Ours, Range
from swift.params.frozen import Frozen


class Export(Frozen):
    """Quantizing, converting and handing over."""

    quant_bits: Annotated[Literal[0, 2, 3, 4, 8], Basic()] = 0
    """Bits of post-training quantization, 0 for none; awq: 4, gptq: 2, 3, 4, 8, bnb: 4, 8. Output:
    {model_type}-{quant_method}-int{quant_bits}, or {ckpt_dir}-{quant_method}-int{quant_bits} for a tuned model."""
    quant_method: Annotated[Literal["awq", "gptq", "bnb"], Basic()] = "awq"
    """Method of quantizing after training."""
    quant_n_samples: Annotated[int, Range(1)] = 256
    """Calibration rows; lower it together with quant_seqlen when awq runs out of memory."""
    quant_seqlen: Annotated[int, Range(1)] = 2048
    """Length of calibration sequences."""
    quant_batch_size: Annotated[int, Range(1)] = 1
    """Batch size of calibration."""
    quant_device_map: str | None = None
    """Device map for loading the model to be quantized, e.g. cuda:0, auto, cpu."""
    quant_output_dir: str | None = None
    """Output directory of quantization; the default is printed."""
    quant_max_perplexity_ratio: Annotated[float | None, Ours(), Range(1.0)] = None
    """Largest perplexity of the quantized model on held rows, as a multiple of the original's; above it nothing is
    written. None: 1.05 for 8 bits, 1.25 for 4 (bnb 2), 2 for 3, 20 for 2."""
    to_peft_format: bool = False
    """Convert an adapter saved by tuner_backend swift to the PEFT format."""
    commit_message: str = "update files"
    """Commit message of the push."""
    to_ollama: bool = False
    """Export for ollama."""
    ollama_output_dir: str | None = None
    """Output directory of the ollama export; default {ckpt_dir or model_type}-ollama."""
    to_gguf: Annotated[Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] | None, Ours()] = None
    """Convert to a GGUF file of this type for llama.cpp and Ollama, and check it in llama.cpp; an adapter is merged
    first."""
    gguf_min_agreement: Annotated[float | None, Ours(), Range(0.0, 1.0)] = None
    """Smallest share of llama.cpp's greedy tokens that must be the original's; below it nothing is written. None: 0.99
    for f32 and f16, 0.98 for bf16, 0.95 for q8_0, 0.8 for five bits, 0.7 for four."""
    gguf_output_dir: Annotated[str | None, Ours()] = None
    """Output directory of the GGUF file and its report; default {ckpt_dir or model_type}-gguf-{type}."""
    gguf_file: str | None = None
    """GGUF file to load the weights from."""
    to_megatron: bool = False
    """Convert the model to megatron's format."""
    to_hf: bool = False
    """Convert a megatron checkpoint to the Hugging Face format."""
    megatron_output_dir: str | None = None
    """Output folder of to_megatron."""
    hf_output_dir: str | None = None
    """Output folder of to_hf."""
    pp: Annotated[int, Range(1)] = 1
    """Pipeline parallelism of the megatron conversion."""
