"""Settings of the tuning methods beside LoRA."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from swift.params.flag import Json, Known, Ours, Range
from swift.params.frozen import Frozen


class Adalora(Frozen):
    """AdaLoRA."""

    adalora_target_r: Annotated[int, Range(1)] = 8
    """Average rank aimed at."""
    adalora_init_r: Annotated[int, Range(1)] = 12
    """Initial rank."""
    adalora_tinit: Annotated[int, Range(0)] = 0
    """Steps of initial warm-up."""
    adalora_tfinal: Annotated[int, Range(0)] = 0
    """Steps of final fine-tuning."""
    adalora_deltaT: Annotated[int, Range(1)] = 1
    """Steps between rank allocations."""
    adalora_beta1: Annotated[float, Range(0, 1)] = 0.85
    """First EMA coefficient."""
    adalora_beta2: Annotated[float, Range(0, 1)] = 0.85
    """Second EMA coefficient."""
    adalora_orth_reg_weight: float = 0.5
    """Weight of the orthogonality regularizer."""


class Ia3(Frozen):
    """IA3."""

    ia3_feedforward_modules: tuple[str, ...] = ()
    """Names of the MLP linear layers whose inputs are scaled; they must be among the target modules. When not given:
    those of the targets that end an MLP, and DEFAULT adds these."""


class Vera(Frozen):
    """VeRA."""

    vera_rank: Annotated[int, Range(1)] = 256
    """VeRA rank."""
    vera_projection_prng_key: int | bool = True
    """Seed of the shared VeRA projection, which is stored with the adapter. true takes 0; false too, and stores
    nothing."""
    vera_dropout: Annotated[float, Range(0, 1)] = 0.0
    """VeRA dropout."""
    vera_d_initial: float = 0.1
    """Initial value of the d vector."""


class Boft(Frozen):
    """BOFT."""

    boft_block_size: Annotated[int, Range(0)] = 4
    """BOFT block size."""
    boft_block_num: Annotated[int, Range(0)] = 0
    """BOFT number of blocks; excludes boft_block_size."""
    boft_n_butterfly_factor: int = 1
    """Number of butterfly factors."""
    boft_dropout: Annotated[float, Range(0, 1)] = 0.0
    """BOFT dropout."""


class Fourierft(Frozen):
    """FourierFT."""

    fourier_n_frequency: Annotated[int, Range(1)] = 2000
    """Number of frequencies (comparable to r of LoRA)."""
    fourier_scaling: float = 300.0
    """Scale of the weight update (comparable to lora_alpha)."""


class Reft(Frozen):
    """ReFT."""

    reft_layers: tuple[int, ...] | None = None
    """Layer numbers it works on; None means all."""
    reft_layer_key: str | None = None
    """Name of the module list that holds the layers; None finds it."""
    reft_rank: Annotated[int, Range(1)] = 4
    """Rank."""
    reft_intervention_type: Literal[
        "NoreftIntervention",
        "LoreftIntervention",
        "ConsreftIntervention",
        "LobireftIntervention",
        "DireftIntervention",
        "NodireftIntervention",
    ] = "LoreftIntervention"
    """Kind of intervention."""
    reft_args: Annotated[str | dict[str, Any] | None, Json()] = None
    """Further settings of the intervention as JSON text."""


class Llamapro(Frozen):
    """LLaMA-Pro."""

    llamapro_num_new_blocks: Annotated[int, Range(1)] = 4
    """Number of new layers."""
    llamapro_num_groups: Annotated[int | None, Range(1)] = None
    """Number of groups the new layers are put in as; None means one group per new layer."""


class Adapter(Frozen):
    """Adapter layers."""

    adapter_act: str = "gelu"
    """Activation of the adapter layers."""
    adapter_length: Annotated[int, Range(1)] = 128
    """Hidden width of the adapter layers."""
    adapter_after_attention: Annotated[bool, Ours()] = False
    """Put adapter layers after attention too, as Houlsby et al. do; 2.5 has them after the MLP alone."""


class Galore(Frozen):
    """GaLore and Q-GaLore."""

    use_galore: bool = False
    """Use GaLore."""
    galore_target_modules: tuple[str, ...] | None = None
    """Modules GaLore works on; None means attention and MLP."""
    galore_rank: Annotated[int, Range(1)] = 128
    """GaLore rank."""
    galore_update_proj_gap: Annotated[int, Range(1)] = 50
    """Steps between updates of the GaLore projection."""
    galore_scale: float = 1.0
    """GaLore scale factor."""
    galore_proj_type: Annotated[str, Known(("std", "reverse_std", "right", "left", "full"))] = "std"
    """Kind of GaLore projection: std projects the longer side of a matrix, reverse_std the shorter, full both."""
    galore_optim_per_parameter: bool = False
    """Step each GaLore matrix as soon as its gradient is there, and free it: gradients never exist all together."""
    galore_with_embedding: bool = False
    """Apply GaLore to the embeddings as well."""
    galore_quantization: bool = False
    """Use Q-GaLore."""
    galore_proj_quant: bool = False
    """Quantize the SVD projection."""
    galore_proj_bits: Annotated[int, Range(1)] = 4
    """Bits of the quantized projection."""
    galore_proj_group_size: Annotated[int, Range(1)] = 256
    """Group size of the quantized projection."""
    galore_cos_threshold: Annotated[float, Range(0, 1)] = 0.4
    """Cosine similarity above which the projection counts as unchanged."""
    galore_gamma_proj: Annotated[int, Range(1)] = 2
    """Factor by which the update gap grows while projections stay similar."""
    galore_queue_size: Annotated[int, Range(1)] = 5
    """Length of the queue used to compare projections."""


class Lisa(Frozen):
    """LISA."""

    lisa_activated_layers: Annotated[int, Range(0)] = 0
    """LISA (full tuning only): layers trained at a time, 0 for off; 2 or 8 advised."""
    lisa_step_interval: Annotated[int, Range(1)] = 20
    """Steps between switches of the trained layers."""
