"""Which flags count only where another has a certain value: the form says it beside a field, and pales it otherwise.

Wrong combinations are refused by `swift.params.rules` and by the plans; flags that only count for nothing are named by
`swift.params.idle_flags`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from swift.params.alignment import ALGORITHMS
from swift.params.flag import Flag
from swift.params.frozen import Frozen

ON = ("true",)
PEFT = ("lora", "longlora", "adalora", "ia3", "vera", "boft", "fourierft")
OWNERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("target_modules", PEFT),
    ("target_regex", PEFT),
    ("modules_to_save", PEFT),
    ("lora_rank", ("lora", "longlora")),
    ("init_lora_weights", ("lora", "longlora")),
    ("lora_alpha", ("lora", "longlora", "adalora")),
    ("lora_dropout", ("lora", "longlora", "adalora")),
    ("lora_bias_trainable", ("lora", "longlora", "adalora")),
    ("lora_dtype", PEFT),
    ("adalora_", ("adalora",)),
    ("ia3_", ("ia3",)),
    ("vera_", ("vera",)),
    ("boft_", ("boft",)),
    ("fourier_", ("fourierft",)),
    ("reft_", ("reft",)),
    ("llamapro_", ("llamapro",)),
    ("adapter_", ("adapter",)),
)
"""The name of a flag, or the beginning of several, and the values of `--sft_type` that read it."""
ENGINES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                *("gpu_memory_utilization", "tensor_parallel_size", "disable_custom_all_reduce", "enforce_eager"),
                *("vllm_enable_lora", "vllm_max_lora_rank"),
            ),
            ("vllm",),
        ),
        "max_num_seqs": ("vllm", "llamacpp"),
        "limit_mm_per_prompt": ("vllm", "lmdeploy"),
        **dict.fromkeys(("cache_max_entry_count", "quant_policy", "tp"), ("lmdeploy",)),
        **dict.fromkeys(("device_map_config", "device_max_memory"), ("pt",)),
    }
)
"""Flags of answering that some engines alone read."""


class Condition(Frozen):
    """The flag counts where the flag `name` has one of `values` (as written on a command line)."""

    name: str
    values: tuple[str, ...]


_GROUPS: Mapping[str, Condition] = MappingProxyType(
    {"Lora": Condition("sft_type", ("lora", "longlora")), "Galore": Condition("use_galore", ON)}
)
_FLAGS: Mapping[str, Condition] = MappingProxyType(
    {
        "use_galore": Condition("sft_type", ("full", "llamapro")),
        **dict.fromkeys(
            ("freeze_parameters", "freeze_parameters_ratio", "additional_trainable_parameters"),
            Condition("sft_type", ("full",)),
        ),
        "lisa_activated_layers": Condition("sft_type", ("full",)),
        **{
            f"galore_{name}": Condition("galore_quantization", ON)
            for name in ("proj_quant", "proj_bits", "proj_group_size", "cos_threshold", "gamma_proj", "queue_size")
        },
        "loss_scale_config_path": Condition("use_loss_scale", ON),
        **dict.fromkeys(("streaming_val_size", "streaming_buffer_size"), Condition("streaming", ON)),
        **dict.fromkeys(
            ("hub_model_id", "hub_private_repo", "hub_strategy", "commit_message"), Condition("push_to_hub", ON)
        ),
        **dict.fromkeys(
            (
                *("quant_n_samples", "quant_seqlen", "quant_batch_size"),
                *("quant_device_map", "quant_output_dir", "quant_max_perplexity_ratio"),
            ),
            Condition("quant_bits", ("2", "3", "4", "8")),
        ),
        **dict.fromkeys(
            ("bnb_4bit_comp_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_quant_storage"),
            Condition("quantization_bit", ("4",)),
        ),
        "ollama_output_dir": Condition("to_ollama", ON),
        "result_dir": Condition("save_result", ON),
        **dict.fromkeys(("max_resample_times",), Condition("dynamic_sample", ON)),
    }
)


def condition(flag: Flag) -> Condition | None:
    """What must hold for the flag to count; None for those that always do."""
    if flag.group.__name__ == "Rlhf" and flag.name != "rlhf_type":
        kinds = tuple(name for name, algorithm in ALGORITHMS.items() if flag.name in algorithm.flags)
        if flag.name not in _FLAGS and kinds:
            return Condition("rlhf_type", kinds)
    if flag.group.__name__ != "Galore" and (kinds := owners(flag.name)) is not None:
        return Condition("sft_type", kinds)
    if flag.group.__name__ in ("Vllm", "Lmdeploy") and flag.name in ENGINES:
        return Condition("infer_backend", ("AUTO", *ENGINES[flag.name]))
    return _FLAGS.get(flag.name) or _GROUPS.get(flag.group.__name__)


def owners(name: str) -> tuple[str, ...] | None:
    """The values of `--sft_type` that read a flag; None where the table has none."""
    return next((of for start, of in OWNERS if name == start or (start[-1] == "_" and name.startswith(start))), None)
