"""Which checkpoint is loaded, and what is done with it."""

from __future__ import annotations

from typing import Annotated

from swift.params.flag import Alias, Basic
from swift.params.frozen import Frozen


class Checkpoint(Frozen):
    """Which checkpoint is loaded, and what is done with it."""

    ckpt_dir: Annotated[str | None, Basic()] = None
    """Checkpoint folder written by training, or a merged one."""
    load_args_from_ckpt_dir: bool = True
    """Take model, template and precision from the sft_args.json of ckpt_dir."""
    merge_lora: Annotated[bool, Basic()] = False
    """Merge the adapter into the model first and save it as CKPT_DIR-merged."""
    merge_device_map: str | None = None
    """Where the model lies while it is merged; None means cpu, auto for a merge alone."""
    save_safetensors: bool = True
    """Save merged weights as safetensors instead of bin files."""
    overwrite_generation_config: bool = False
    """Write the generation settings in use into ckpt_dir as generation_config.json."""
    safe_serialization: Annotated[bool | None, Alias("save_safetensors")] = None
    """Another spelling of save_safetensors."""
    merge_lora_and_save: Annotated[bool | None, Alias("merge_lora")] = None
    """Another spelling of merge_lora."""
