"""Answering: the engine, the rows, the result file."""

from __future__ import annotations

from typing import Annotated, Literal

from swift.params.flag import Alias, Basic, Named, Range
from swift.params.frozen import Frozen


class Infer(Frozen):
    """Answering: the engine, the rows, the result file."""

    infer_backend: Annotated[Literal["vllm", "pt", "lmdeploy", "llamacpp", "AUTO"], Basic()] = "AUTO"
    """Engine that generates; AUTO takes vLLM when it is installed and can serve the model, otherwise pt.
    llamacpp (not in the 2.5 release) runs a GGUF file, made once from the checkpoint, and is the fastest on a CPU."""
    load_dataset_config: Annotated[bool, Basic()] = False
    """Take the datasets too from the sft_args.json of ckpt_dir."""
    eval_human: bool | None = None
    """Chat at the terminal (true) or answer dataset rows (false); None means rows when there are any."""
    show_dataset_sample: Annotated[int, Basic(), Range(0, also=(-1,))] = -1
    """Rows to answer, -1 for all."""
    verbose: Annotated[bool | None, Basic()] = None
    """Print prompt and answer of each row (true) or a progress bar (false); None means a bar from 100 rows on."""
    stream: bool = True
    """Show answers while they are written."""
    lora_modules: Annotated[tuple[str, ...], Named()] = ()
    """More adapters to choose among, written NAME=PATH; that of ckpt_dir is called default-lora."""
    result_dir: str | None = None
    """Folder of the result file; None means CKPT_DIR/infer_result."""
    save_result: bool = True
    """Write each answer to the result file."""
    max_logprobs: Annotated[int, Range(0)] = 20
    """Most log probabilities a request may ask for."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 42
    """Seed of everything random."""
    vllm_lora_modules: Annotated[tuple[str, ...] | None, Alias("lora_modules"), Named()] = None
    """Another spelling of lora_modules."""
