"""The run: output, steps, batches, evaluation, saving, logging."""

from __future__ import annotations

from typing import Annotated, Literal

from swift.params.flag import Alias, Auto, Bare, Basic, Exists, Known, Ours, Range
from swift.params.frozen import Frozen

When = Literal["steps", "epoch", "no"]


class Train(Frozen):
    """The run."""

    output_dir: Annotated[str, Basic()] = "output"
    """Where runs are written; a folder named by model and vN-time is added unless add_output_dir_suffix is false."""
    add_output_dir_suffix: bool | None = True
    """Add MODEL/vN-TIME to output_dir, so that no run overwrites another."""
    num_train_epochs: Annotated[int | float, Basic(), Range(0, above=True)] = 1
    """Passes over the rows; max_steps overrides it."""
    max_steps: Annotated[int, Range(1, also=(-1,))] = -1
    """Optimizer steps in all; -1 follows num_train_epochs."""
    batch_size: Annotated[int, Range(1)] = 1
    """Rows a device takes in one forward pass."""
    eval_batch_size: Annotated[int | None, Range(1)] = None
    """Rows a device takes in one forward pass of evaluation; None takes batch_size."""
    gradient_accumulation_steps: Annotated[int | None, Basic(), Range(1)] = None
    """Forward passes an optimizer step; None means ceil(16 / batch_size / devices)."""
    micro_batching: Annotated[str, Ours()] = "auto"
    """How the rows of an optimizer step are laid into forward passes: auto into as few as fit in batch_size times the
    longest row (on a CPU in 1,024 tokens, if no row is longer, and in as many where batch_size is not given and there
    is room), said into batch_size rows each; the loss is the same. A number is the most tokens of one."""
    share_prompts: Annotated[Auto, Ours(), Bare("true")] = "AUTO"
    """Compute once what sequences of a forward pass begin with alike: the prompt of a pair for both answers, that of a
    group for all, a system prompt or tools for all rows. AUTO does it where the model can and it saves more than 4 % of
    the tokens."""
    auto_find_batch_size: bool = False
    """Halve batch_size until it fits into memory, keeping the rows of an optimizer step."""
    gradient_checkpointing: Annotated[bool | None, Basic()] = True
    """Recompute activations to save memory at the cost of speed; not given: only where there is no room for them."""
    pack_frozen_layers: Annotated[Auto, Ours(), Bare("true")] = "AUTO"
    """On a CPU, hold an adapter's base in the order that oneDNN reads it in, once for each direction: faster, for twice
    the memory of these layers. AUTO: from 2,000 tokens on, where activations are kept and a quarter of the free memory
    is enough."""
    cache_vision_features: Annotated[Auto, Ours(), Bare("true")] = "AUTO"
    """Keep what a frozen vision tower makes of each image, so that later epochs do not compute it. AUTO: where there is
    more than one epoch and the model's images can be told apart in its tower."""
    torch_compile: Annotated[bool, Ours()] = False
    """Compile the norms and feed-forward blocks of the layers with torch.compile; the first step takes a minute longer.
    """
    vit_use_gc: bool = True
    """Recompute activations in the vision tower too."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 42
    """Seed of everything random."""
    full_determinism: bool = False
    """Use deterministic operations only."""
    resume_from_checkpoint: Annotated[str | None, Basic()] = None
    """Checkpoint folder to go on from, or auto for the newest complete one of output_dir."""
    resume_only_model: bool = False
    """Take only the weights from resume_from_checkpoint, not the optimizer, the schedule, the random state and the
    step."""
    ignore_data_skip: bool = False
    """Start the rows anew when resuming, instead of going on after the last one seen."""
    dry_run: Annotated[bool, Ours(), Basic()] = False
    """Do everything up to loading the weights: show the plan, the first rows token by token and the row ledger."""
    evaluation_strategy: When = "steps"
    """When evaluation runs."""
    eval_steps: Annotated[int | None, Basic(), Range(1)] = 50
    """Optimizer steps between evaluations."""
    predict_with_generate: bool = False
    """Evaluate by generating answers and scoring them with ROUGE and BLEU instead of by the loss; slow."""
    answer_samples: Annotated[int | None, Ours(), Range(0)] = None
    """Rows whose prompts the model answers before and after training, side by side in report.html and samples.jsonl of
    the run's folder; 0 for none, None for 2 in a run of 20 steps or more. An answer has up to 64 tokens (rlhf: 128), or
    --max_new_tokens, and is the likeliest, or with --do_sample true sampled as --temperature and its kin say."""
    eval_after: Annotated[str | None, Exists(), Ours()] = None
    """JSON list of own suites of questions, as `swift eval --custom_eval_config` takes it: the base and the tuned model
    answer them when the training has ended."""
    metric_for_best_model: Annotated[str | None, Ours()] = None
    """What tells the best checkpoint, by its name in the log: acc, nll_loss, rewards/accuracies, accuracy, rouge-l …
    None is the loss, or rouge-l under predict_with_generate."""
    acc_strategy: Literal["token", "sentence"] = "token"
    """Count accuracy by token or by whole sentence."""
    acc_steps: Annotated[int, Range(1)] = 1
    """Log accuracy at every Nth step only."""
    save_strategy: When = "steps"
    """When checkpoints are saved."""
    save_steps: Annotated[int | None, Range(1)] = None
    """Optimizer steps between checkpoints; None takes eval_steps."""
    save_total_limit: Annotated[int, Range(1, also=(-1,))] = 2
    """Checkpoints kept beside the best and the last; 2 keeps just these, -1 keeps all."""
    save_only_model: Annotated[bool, Basic()] = False
    """Save the weights alone; the run cannot be resumed from them."""
    save_safetensors: bool = True
    """Save weights as safetensors."""
    save_on_each_node: bool = False
    """Multi-node: save checkpoints on every node."""
    logging_steps: Annotated[int, Range(1)] = 5
    """Steps between log lines."""
    logging_dir: str | None = None
    """TensorBoard directory; None means {output_dir}/runs."""
    report_to: tuple[str, ...] = ("tensorboard",)
    """Trackers to write to; all means every one that is installed."""
    include_num_input_tokens_seen: bool | None = False
    """Count the input tokens seen in training."""
    metric_warmup_step: Annotated[float | None, Range(0)] = 0.0
    """Leave the first steps out of the measured speed: a count, or a share of the steps when below 1."""
    disable_tqdm: bool = False
    """Print plain lines instead of a progress bar."""
    neftune_noise_alpha: Annotated[float | None, Range(0)] = None
    """Strength of the NEFTune noise on the embeddings; usual are 5, 10, 15."""
    neftune_backend: Literal["transformers", "swift"] = "transformers"
    """Who adds the NEFTune noise: transformers or our own hook."""
    loss_name: Annotated[str | None, Known(("long-ce", "loss-scale"))] = None
    """What the summed cross-entropy is divided by: None the weights of the trained tokens, loss-scale their number,
    long-ce their mean number over the steps so far."""
    use_liger: bool = False
    """Compute rotary positions, norms and MLPs with the kernels of liger-kernel, on a GPU. Its fused loss is left out:
    ours never makes all logits at once either."""
    dataloader_num_workers: Annotated[int | None, Range(0)] = None
    """Processes that prepare batches; None means 1, and 0 on Windows."""
    dataloader_pin_memory: bool = True
    """Pin batches in memory for quicker copies to the GPU."""
    dataloader_drop_last: bool = False
    """Drop the last batch when it is not full."""
    test_oom_error: bool = False
    """Put the longest rows first, so that a lack of memory shows at once."""
    rehearse: Annotated[bool, Ours()] = False
    """Before the first step, train one on the longest rows, evaluate and save, and leave no trace of it; where memory
    is short, halve batch_size and keep the rows of an optimizer step."""
    gpu_memory_fraction: Annotated[float | None, Range(0, 1, above=True)] = None
    """Largest share of GPU memory the run may use (stress tests)."""
    per_device_train_batch_size: Annotated[int | None, Alias("batch_size"), Range(1)] = None
    """Another spelling of batch_size."""
    per_device_eval_batch_size: Annotated[int | None, Alias("eval_batch_size"), Range(1)] = None
    """Another spelling of eval_batch_size."""
    eval_strategy: Annotated[When | None, Alias("evaluation_strategy")] = None
    """Another spelling of evaluation_strategy."""
    safe_serialization: Annotated[bool | None, Alias("save_safetensors")] = None
    """Another spelling of save_safetensors."""
    only_save_model: Annotated[bool | None, Alias("save_only_model")] = None
    """Another spelling of save_only_model."""
    neftune_alpha: Annotated[float | None, Alias("neftune_noise_alpha"), Range(0)] = None
    """Another spelling of neftune_noise_alpha."""
