"""The tuning methods that share one behaviour: a new one joins by a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A method, as the flags that ask for it."""

    name: str
    flags: tuple[str, ...] = ()
    changes_base: bool = False
    """PiSSA and OLoRA move a part of the base weights into the adapter."""
    whole_modules: bool = False
    """Modules of the base are trained whole, so switching the adapter off does not give the base back."""
    stays: bool = False
    """It changes the model for good: there is no base below it to go back to."""
    merges: bool = True
    """Whether the weights of the base can hold it."""
    reload_error: float = 1e-6
    """Largest logit difference after a reload for use; a bf16 adapter on an fp32 base is then computed in fp32."""


def _row(name: str, flags: str = "", **marks: Any) -> Row:
    return Row(name, ("--lora_dropout", "0", *flags.split()), **marks)


ROWS = (
    _row("lora"),
    _row("names", "--target_modules q_proj down_proj"),
    _row("regex", r"--target_regex model\.layers\.1\..*_proj"),
    _row("all", "--target_modules ALL"),
    _row("embedding", "--target_modules EMBEDDING ALL"),
    _row("head", "--target_modules q_proj lm_head"),
    _row("embedding_saved", "--modules_to_save EMBEDDING LN", whole_modules=True),
    _row("head_saved", "--modules_to_save lm_head", whole_modules=True),
    _row("bias", "--lora_bias_trainable all", whole_modules=True),
    _row("dora", "--use_dora true"),
    _row("rslora", "--use_rslora true"),
    _row("gaussian", "--init_lora_weights guassian"),
    _row("nonzero", "--init_lora_weights false"),
    _row("pissa", "--init_lora_weights pissa", changes_base=True),
    _row("pissa_niter", "--init_lora_weights pissa_niter_4", changes_base=True),
    _row("olora", "--init_lora_weights olora", changes_base=True),
    _row("loftq", "--init_lora_weights loftq", changes_base=True),
    _row("bf16_adapter", "--lora_dtype bf16", reload_error=5e-3),
    _row("adalora", "--sft_type adalora"),
    _row("ia3", "--sft_type ia3"),
    _row(
        "ia3_feedforward", "--sft_type ia3 --target_modules k_proj v_proj down_proj --ia3_feedforward_modules down_proj"
    ),
    _row("ia3_all", "--sft_type ia3 --target_modules ALL"),
    _row("vera", "--sft_type vera"),
    _row("vera_unstored", "--sft_type vera --target_modules q_proj v_proj --vera_projection_prng_key false"),
    _row("adalora_bias", "--sft_type adalora --lora_bias_trainable all", whole_modules=True),
    _row("boft", "--sft_type boft"),
    _row("boft_blocks", "--sft_type boft --boft_block_num 8"),
    _row("fourierft", "--sft_type fourierft --fourier_n_frequency 500"),
    _row("longlora", "--sft_type longlora"),
    _row("adapter", "--sft_type adapter --adapter_length 8", merges=False),
    _row(
        "adapter_attention",
        "--sft_type adapter --adapter_length 8 --adapter_act silu --adapter_after_attention true",
        merges=False,
    ),
    *(
        _row(kind.lower(), f"--sft_type reft --reft_intervention_type {kind}Intervention", merges=False)
        for kind in ("Loreft", "Noreft", "Consreft", "Lobireft", "Direft", "Nodireft")
    ),
    _row(
        "reft_args",
        "--sft_type reft --reft_layers 1 --reft_rank 2 --reft_args "
        '{"act_fn":"relu","add_bias":true,"dropout":0} --reft_intervention_type NoreftIntervention',
        merges=False,
    ),
    _row("llamapro", "--sft_type llamapro --llamapro_num_new_blocks 2", stays=True),
    _row("llamapro_groups", "--sft_type llamapro --llamapro_num_new_blocks 2 --llamapro_num_groups 1", stays=True),
)

ON_EVERY_ARCHITECTURE = (
    *("lora", "adalora", "ia3", "vera", "boft", "fourierft", "adapter_attention", "loreft", "llamapro", "loftq"),
)
"""Rows that are tried on all of them."""
