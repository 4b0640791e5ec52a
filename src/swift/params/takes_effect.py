"""Which flags count only where another has a certain value: what the form says beside a field, and pales it otherwise.

Wrong combinations are refused by `swift.params.rules` and by the plans; this page of data only tells it beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from swift.params.alignment import ALGORITHMS
from swift.params.flag import Flag
from swift.params.frozen import Frozen
from swift.params.tuning_flags import owners

ON = ("true",)


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
            ("quant_n_samples", "quant_seqlen", "quant_batch_size"), Condition("quant_bits", ("2", "3", "4", "8"))
        ),
        "ollama_output_dir": Condition("to_ollama", ON),
        "result_dir": Condition("save_result", ON),
        **dict.fromkeys(("max_resample_times",), Condition("dynamic_sample", ON)),
        **dict.fromkeys(
            (
                *("gpu_memory_utilization", "tensor_parallel_size", "max_num_seqs", "disable_custom_all_reduce"),
                *("enforce_eager", "limit_mm_per_prompt", "vllm_enable_lora", "vllm_max_lora_rank"),
            ),
            Condition("infer_backend", ("AUTO", "vllm")),
        ),
        **dict.fromkeys(
            ("cache_max_entry_count", "quant_policy", "vision_batch_size"), Condition("infer_backend", ("lmdeploy",))
        ),
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
    return _FLAGS.get(flag.name) or _GROUPS.get(flag.group.__name__)
