"""Which model, in which precision, on which devices; and quantizing it while it loads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from swift.params.flag import Alias, Basic, Exists, Json, OneOf, Ours, Range, Saved
from swift.params.frozen import Frozen

Dtype = Literal["bf16", "fp16", "fp32", "AUTO"]


class Model(Frozen):
    """Which model, and how it is loaded."""

    model_type: Annotated[str | None, Basic(), OneOf("models"), Saved("model")] = None
    """Registered name of a model: it brings the hub id, the chat template and the LoRA targets. Needed only for a
    model that cannot be recognised by its id."""
    model_id_or_path: Annotated[str | None, Basic(), Saved("model")] = None
    """Hub id or local folder of the model. Any chat model works; a registered one also brings its own settings."""
    model_revision: Annotated[str | None, Saved("model")] = None
    """Branch, tag or commit on the hub; None takes the registered one."""
    dtype: Annotated[Dtype, Saved("model")] = "AUTO"
    """Precision the model is loaded in. AUTO takes the registered or stored one, bf16 where the device has it; on a CPU
    fp32, and for answers bf16 where it is measured to be faster."""
    use_flash_attn: Annotated[bool | None, Basic()] = None
    """Use flash attention; None takes what the device and the model do best."""
    check_model_is_latest: Annotated[bool, Basic()] = True
    """Ask the hub whether the model is the newest; set it to false without a network."""
    rope_scaling: Annotated[Literal["linear", "dynamic", "yarn"] | None, Saved("model")] = None
    """Stretch the positions for a max_length beyond the model's own."""
    device_map_config: Annotated[str | dict[str, Any] | None, Json()] = None
    """Which layer lies on which device: a JSON file or JSON text."""
    device_max_memory: tuple[str, ...] = ()
    """Memory each device may use, in their order, e.g. 10GB 10GB."""
    model_kwargs: Annotated[str | dict[str, Any] | None, Json(), Saved("model")] = None
    """Settings that one model family knows, as JSON text; the same as its upper-case environment variables."""
    rescale_image: Annotated[int, Range(1, also=(-1,)), Saved("model")] = -1
    """Scale images with more pixels (width times height) down to this many; -1 leaves them."""
    local_repo_path: Annotated[str | None, Exists("folder"), Saved("model")] = None
    """Local clone of the GitHub repository that a few models need, so that nothing is cloned."""
    custom_register_path: Annotated[str | None, Exists(), Saved("model")] = None
    """Python file that registers models, templates and datasets of your own."""
    ignore_base_mismatch: Annotated[bool, Ours()] = False
    """Go on when an adapter was trained on other weights than those of this model."""
    model_cache_dir: Annotated[str | None, Alias("model_id_or_path")] = None
    """Another spelling of model_id_or_path."""
    device_map_config_path: Annotated[str | dict[str, Any] | None, Alias("device_map_config"), Json()] = None
    """Another spelling of device_map_config."""


class Quant(Frozen):
    """Quantizing the weights while they load."""

    quant_method: Annotated[Literal["bnb", "hqq", "eetq", "awq", "gptq", "aqlm"] | None, Saved("model")] = None
    """Library that quantizes the weights while they load; None is bnb, and for answers on a CPU PyTorch itself. bnb: 4
    and 8 bits, hqq: 1, 2, 3, 4 and 8, eetq: 8 on a GPU. awq, gptq and aqlm are found in the model's folder and need no
    flag."""
    quantization_bit: Annotated[Literal[0, 1, 2, 3, 4, 8], Saved("model")] = 0
    """Bits the linear layers are quantized to while they load, the head left out; 0 leaves them as they are."""
    bnb_4bit_comp_dtype: Annotated[Dtype, Saved("model")] = "AUTO"
    """bitsandbytes 4 bit: dtype of the dequantized computation; AUTO follows dtype."""
    bnb_4bit_quant_type: Annotated[Literal["nf4", "fp4"], Saved("model")] = "nf4"
    """bitsandbytes 4 bit: quantization type."""
    bnb_4bit_use_double_quant: Annotated[bool, Saved("model")] = True
    """bitsandbytes 4 bit: quantize the quantization constants too."""
    bnb_4bit_quant_storage: Annotated[str | bool | None, Saved("model")] = None
    """bitsandbytes 4 bit: dtype the packed weights are stored in; None and true take the library's (uint8)."""
    hqq_axis: Annotated[Literal[0, 1], Saved("model")] = 0
    """HQQ: axis along which weights are grouped."""
    hqq_dynamic_config_path: Annotated[str | None, Exists(), Saved("model")] = None
    """HQQ: JSON file of the layers to quantize, {"self_attn.q_proj": {"nbits": 4, "group_size": 64, "axis": 1}, ...};
    layers it does not name stay as they are."""
