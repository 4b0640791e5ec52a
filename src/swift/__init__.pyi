"""The public names of swift with their types. Generated from the declarations by docs/generate.py: do not edit."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from swift.api.model import Chat as Chat
from swift.api.model import Model as Model
from swift.api.results import Endpoint as Endpoint
from swift.api.results import Evaluation as Evaluation
from swift.api.results import Run as Run
from swift.catalog.custom import Template as Template
from swift.catalog.custom import register_dataset as register_dataset
from swift.catalog.custom import register_model as register_model
from swift.catalog.custom import register_template as register_template
from swift.checking.verdict import Verdict as Verdict
from swift.core.errors import SwiftError as SwiftError
from swift.prompts.api import get_template as get_template

__version__: str

def sft(
    config: str | PathLike[str] | None = None,
    *,
    model_type: str | PathLike[str] | None = None,
    model_id_or_path: str | PathLike[str] | None = None,
    model_revision: str | PathLike[str] | None = None,
    dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    use_flash_attn: bool | None = None,
    check_model_is_latest: bool = True,
    rope_scaling: Literal["linear", "dynamic", "yarn"] | None = None,
    device_map_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    device_max_memory: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    model_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    rescale_image: int = -1,
    local_repo_path: str | PathLike[str] | None = None,
    custom_register_path: str | PathLike[str] | None = None,
    ignore_base_mismatch: bool = False,
    model_cache_dir: str | PathLike[str] | None = None,
    device_map_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    val_dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    dataset_test_ratio: float = 0.01,
    dataset_seed: int | None = None,
    check_dataset_strategy: Literal["none", "warning", "discard", "error"] = "none",
    columns: str | PathLike[str] | Mapping[str, Any] | None = None,
    custom_dataset_info: str | PathLike[str] | Mapping[str, Any] | None = None,
    model_name: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    model_author: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    lazy_tokenize: bool | None = None,
    preprocess_num_proc: int = 1,
    packing: bool = False,
    streaming: bool = False,
    streaming_val_size: int = 0,
    streaming_buffer_size: int = 16384,
    max_drop_ratio: float = 0.5,
    max_rewritten_ratio: float = 0.05,
    strict: bool = False,
    no_cache: bool = False,
    cache_dir: str | PathLike[str] | None = None,
    train_dataset_sample: int = -1,
    val_dataset_sample: int | None = None,
    custom_train_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    custom_val_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    self_cognition_sample: int = 0,
    train_dataset_mix_ratio: float = 0.0,
    train_dataset_mix_ds: str | PathLike[str] | Sequence[str | PathLike[str]] = ('ms-bench',),
    template_type: str | PathLike[str] = "AUTO",
    system: str | PathLike[str] | None = None,
    max_length: int = 2048,
    truncation_strategy: Literal["delete", "truncation_left"] = "delete",
    tools_prompt: Literal["react_en", "react_zh", "toolbench"] = "react_en",
    use_loss_scale: bool = False,
    loss_scale_config_path: str | PathLike[str] | Mapping[str, Any] = "DEFAULT",
    ignore_template_mismatch: bool = False,
    sft_type: Literal["lora", "full", "longlora", "adalora", "ia3", "llamapro", "adapter", "vera", "boft", "fourierft", "reft"] = "lora",
    tuner_backend: Literal["swift", "peft", "unsloth"] = "peft",
    target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = ('DEFAULT',),
    target_regex: str | PathLike[str] | None = None,
    modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    freeze_vit: bool = False,
    freeze_parameters: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    freeze_parameters_ratio: float = 0.0,
    additional_trainable_parameters: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    lora_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    lora_target_regex: str | PathLike[str] | None = None,
    lora_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    boft_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    boft_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vera_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vera_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    ia3_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    ia3_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    lora_rank: int = 8,
    lora_alpha: int = 32,
    lora_dropout: float = 0.05,
    lora_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    lora_bias_trainable: Literal["none", "all"] = "none",
    init_lora_weights: bool | str | PathLike[str] = True,
    use_dora: bool = False,
    use_rslora: bool = False,
    lora_lr_ratio: float | None = None,
    lora_dropout_p: float | None = None,
    output_dir: str | PathLike[str] = "output",
    add_output_dir_suffix: bool | None = True,
    num_train_epochs: int | float = 1,
    max_steps: int = -1,
    batch_size: int = 1,
    eval_batch_size: int | None = None,
    gradient_accumulation_steps: int | None = None,
    micro_batching: str | PathLike[str] = "auto",
    share_prompts: Literal["AUTO", "true", "false"] | bool = "AUTO",
    auto_find_batch_size: bool = False,
    gradient_checkpointing: bool | None = True,
    pack_frozen_layers: Literal["AUTO", "true", "false"] | bool = "AUTO",
    cache_vision_features: Literal["AUTO", "true", "false"] | bool = "AUTO",
    torch_compile: bool = False,
    vit_use_gc: bool = True,
    seed: int = 42,
    full_determinism: bool = False,
    resume_from_checkpoint: str | PathLike[str] | None = None,
    resume_only_model: bool = False,
    ignore_data_skip: bool = False,
    dry_run: bool = False,
    evaluation_strategy: Literal["steps", "epoch", "no"] = "steps",
    eval_steps: int | None = 50,
    predict_with_generate: bool = False,
    answer_samples: int | None = None,
    eval_after: str | PathLike[str] | None = None,
    metric_for_best_model: str | PathLike[str] | None = None,
    acc_strategy: Literal["token", "sentence"] = "token",
    acc_steps: int = 1,
    save_strategy: Literal["steps", "epoch", "no"] = "steps",
    save_steps: int | None = None,
    save_total_limit: int = 2,
    save_only_model: bool = False,
    save_safetensors: bool = True,
    save_on_each_node: bool = False,
    logging_steps: int = 5,
    logging_dir: str | PathLike[str] | None = None,
    report_to: str | PathLike[str] | Sequence[str | PathLike[str]] = ('tensorboard',),
    include_num_input_tokens_seen: bool | None = False,
    metric_warmup_step: float | None = 0.0,
    disable_tqdm: bool = False,
    neftune_noise_alpha: float | None = None,
    neftune_backend: Literal["transformers", "swift"] = "transformers",
    loss_name: str | PathLike[str] | None = None,
    use_liger: bool = False,
    dataloader_num_workers: int | None = None,
    dataloader_pin_memory: bool = True,
    dataloader_drop_last: bool = False,
    test_oom_error: bool = False,
    rehearse: bool = False,
    gpu_memory_fraction: float | None = None,
    per_device_train_batch_size: int | None = None,
    per_device_eval_batch_size: int | None = None,
    eval_strategy: Literal["steps", "epoch", "no"] | None = None,
    safe_serialization: bool | None = None,
    only_save_model: bool | None = None,
    neftune_alpha: float | None = None,
    learning_rate: float | None = None,
    lr_scheduler_type: str | PathLike[str] = "cosine",
    lr_scheduler_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    warmup_ratio: float = 0.05,
    warmup_steps: int = 0,
    min_lr: float | None = None,
    optim: str | PathLike[str] = "adamw_torch",
    weight_decay: float = 0.1,
    max_grad_norm: float = 1.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.95,
    adam_epsilon: float = 1e-08,
    max_new_tokens: int = 2048,
    do_sample: bool | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    num_beams: int = 1,
    quant_method: Literal["bnb", "hqq", "eetq", "awq", "gptq", "aqlm"] | None = None,
    quantization_bit: Literal[0, 1, 2, 3, 4, 8] = 0,
    bnb_4bit_comp_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4",
    bnb_4bit_use_double_quant: bool = True,
    bnb_4bit_quant_storage: str | PathLike[str] | bool | None = None,
    hqq_axis: Literal[0, 1] = 0,
    hqq_dynamic_config_path: str | PathLike[str] | None = None,
    deepspeed: str | PathLike[str] | Mapping[str, Any] | None = None,
    fsdp: str | PathLike[str] | None = "",
    fsdp_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    fsdp_num: int = 1,
    sequence_parallel_size: int = 1,
    ddp_backend: Literal["nccl", "gloo", "mpi", "ccl", "hccl"] | None = None,
    ddp_timeout: int = 1800,
    ddp_find_unused_parameters: bool | None = None,
    ddp_broadcast_buffers: bool | None = None,
    train_backend: Literal["transformers", "megatron"] = "transformers",
    tp: int = 1,
    pp: int = 1,
    sequence_parallel: bool = False,
    model_layer_cls_name: str | PathLike[str] | None = None,
    deepspeed_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    push_to_hub: bool = False,
    hub_model_id: str | PathLike[str] | None = None,
    hub_token: str | PathLike[str] | None = None,
    hub_private_repo: bool = False,
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"] = "every_save",
    push_hub_strategy: Literal["end", "push_best", "push_last", "checkpoint", "all_checkpoints"] | None = None,
    adalora_target_r: int = 8,
    adalora_init_r: int = 12,
    adalora_tinit: int = 0,
    adalora_tfinal: int = 0,
    adalora_deltaT: int = 1,
    adalora_beta1: float = 0.85,
    adalora_beta2: float = 0.85,
    adalora_orth_reg_weight: float = 0.5,
    ia3_feedforward_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vera_rank: int = 256,
    vera_projection_prng_key: int | bool = True,
    vera_dropout: float = 0.0,
    vera_d_initial: float = 0.1,
    boft_block_size: int = 4,
    boft_block_num: int = 0,
    boft_n_butterfly_factor: int = 1,
    boft_dropout: float = 0.0,
    fourier_n_frequency: int = 2000,
    fourier_scaling: float = 300.0,
    reft_layers: int | Sequence[int] | None = None,
    reft_layer_key: str | PathLike[str] | None = None,
    reft_rank: int = 4,
    reft_intervention_type: Literal["NoreftIntervention", "LoreftIntervention", "ConsreftIntervention", "LobireftIntervention", "DireftIntervention", "NodireftIntervention"] = "LoreftIntervention",
    reft_args: str | PathLike[str] | Mapping[str, Any] | None = None,
    llamapro_num_new_blocks: int = 4,
    llamapro_num_groups: int | None = None,
    adapter_act: str | PathLike[str] = "gelu",
    adapter_length: int = 128,
    adapter_after_attention: bool = False,
    use_galore: bool = False,
    galore_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    galore_rank: int = 128,
    galore_update_proj_gap: int = 50,
    galore_scale: float = 1.0,
    galore_proj_type: str | PathLike[str] = "std",
    galore_optim_per_parameter: bool = False,
    galore_with_embedding: bool = False,
    galore_quantization: bool = False,
    galore_proj_quant: bool = False,
    galore_proj_bits: int = 4,
    galore_proj_group_size: int = 256,
    galore_cos_threshold: float = 0.4,
    galore_gamma_proj: int = 2,
    galore_queue_size: int = 5,
    lisa_activated_layers: int = 0,
    lisa_step_interval: int = 20,
    ignore_args_error: bool = False,
) -> Run:
    """Fine-tune a model on your rows.

    Args:
        model_type: Registered name of a model.
        model_id_or_path: Hub id or local folder of the model.
        model_revision: Branch, tag or commit on the hub.
        dtype: Precision the model is loaded in: bf16, fp16, fp32, AUTO.
        use_flash_attn: Use flash attention.
        check_model_is_latest: Ask the hub whether the model is the newest.
        rope_scaling: Stretch the positions for a max_length beyond the model's own: linear, dynamic, yarn.
        device_map_config: Which layer lies on which device: a JSON file or JSON text.
        device_max_memory: Memory each device may use, in their order, e.g.
        model_kwargs: Settings that one model family knows, as JSON text.
        rescale_image: Scale images with more pixels (width times height) down to this many.
        local_repo_path: Local clone of the GitHub repository that a few models need, so that nothing is cloned.
        custom_register_path: Python file that registers models, templates and datasets of your own.
        ignore_base_mismatch: Go on when an adapter was trained on other weights than those of this model.
        dataset: Rows to work on.
        val_dataset: Rows to validate on, written like dataset.
        dataset_test_ratio: Share of each dataset that is held back for validation.
        dataset_seed: Seed of sampling, splitting and shuffling rows.
        check_dataset_strategy: What to do about rows with wrong types: nothing, warn, discard the row, or stop: none, warning, discard, error.
        columns: What columns are called in the formats that are known, for the rows of all data sets.
        custom_dataset_info: Further datasets: a dataset_info.json file or JSON text.
        model_name: The model's new name in Chinese and English.
        model_author: Its author's name in Chinese and English.
        lazy_tokenize: Keep no tokens in memory or on disk.
        preprocess_num_proc: Processes that read and encode rows.
        packing: Fill each sequence of max_length with several rows.
        streaming: Read rows as they are needed instead of all at first.
        streaming_val_size: Rows of a stream that are held back for validation.
        streaming_buffer_size: Rows a stream shuffles at a time.
        max_drop_ratio: Stop before training when more than this share of the rows was dropped.
        max_rewritten_ratio: Stop before training when the chat template loses text of the answers of more than this share of the rows.
        strict: Stop at the first row that cannot be used, instead of dropping it and going on.
        no_cache: Encode every row anew instead of reusing what an earlier run encoded.
        cache_dir: Where encoded rows are kept between runs.
        template_type: Chat template by name.
        system: System prompt.
        max_length: Most tokens a row may have.
        truncation_strategy: delete drops rows longer than max_length: delete, truncation_left.
        tools_prompt: How the tools of a row are described to the model: react_en, react_zh, toolbench.
        use_loss_scale: Weigh the parts of agent answers (Action, Action Input, Observation) by the rules of loss_scale_config_path.
        loss_scale_config_path: Rules for use_loss_scale: DEFAULT, alpha-umi, agent-flan, or a JSON file.
        ignore_template_mismatch: Go on when template_type renders another prompt than the chat template of the tokenizer.
        sft_type: Tuning method: lora, full, longlora, adalora, ia3, llamapro, adapter, vera, boft, fourierft, reft.
        tuner_backend: Library that implements the adapters: swift, peft, unsloth.
        target_modules: Modules that get adapters: DEFAULT or AUTO (attention q, k, v of an LLM.
        target_regex: Regular expression for module names that get adapters.
        modules_to_save: Further modules that are trained and saved whole: EMBEDDING, LN, or names.
        freeze_vit: Leave the vision tower of a multimodal model alone.
        freeze_parameters: Names (beginnings) of parameters that full tuning leaves alone.
        freeze_parameters_ratio: Share of the parameters, from the bottom up, that full tuning leaves alone.
        additional_trainable_parameters: Names (beginnings) of parameters that full tuning trains although they were frozen.
        lora_rank: Rank of the LoRA matrices.
        lora_alpha: LoRA scale: the update is multiplied by lora_alpha / lora_rank.
        lora_dropout: Dropout on the LoRA path (lora only).
        lora_dtype: dtype of the LoRA weights: bf16, fp16, fp32, AUTO.
        lora_bias_trainable: Train the bias terms too: none or all: none, all.
        init_lora_weights: How LoRA starts.
        use_dora: Use DoRA.
        use_rslora: Use rank-stabilised LoRA.
        lora_lr_ratio: Turns LoRA+ on: ratio of the learning rates of B and A.
        output_dir: Where runs are written.
        add_output_dir_suffix: Add MODEL/vN-TIME to output_dir, so that no run overwrites another.
        num_train_epochs: Passes over the rows.
        max_steps: Optimizer steps in all.
        batch_size: Rows a device takes in one forward pass.
        eval_batch_size: Rows a device takes in one forward pass of evaluation.
        gradient_accumulation_steps: Forward passes an optimizer step.
        micro_batching: How the rows of an optimizer step are laid into forward passes.
        share_prompts: Compute once what sequences of a forward pass begin with alike: AUTO, true, false.
        auto_find_batch_size: Halve batch_size until it fits into memory, keeping the rows of an optimizer step.
        gradient_checkpointing: Recompute activations to save memory at the cost of speed.
        pack_frozen_layers: On a CPU, hold an adapter's base in the order that oneDNN reads it in, once for each direction: AUTO, true, false.
        cache_vision_features: Keep what a frozen vision tower makes of each image, so that later epochs do not compute it: AUTO, true, false.
        torch_compile: Compile the norms and feed-forward blocks of the layers with torch.compile.
        vit_use_gc: Recompute activations in the vision tower too.
        seed: Seed of everything random.
        full_determinism: Use deterministic operations only.
        resume_from_checkpoint: Checkpoint folder to go on from, or auto for the newest complete one of output_dir.
        resume_only_model: Take only the weights from resume_from_checkpoint, not the optimizer, the schedule, the random state and the step.
        ignore_data_skip: Start the rows anew when resuming, instead of going on after the last one seen.
        dry_run: Do everything up to loading the weights.
        evaluation_strategy: When evaluation runs: steps, epoch, no.
        eval_steps: Optimizer steps between evaluations.
        predict_with_generate: Evaluate by generating answers and scoring them with ROUGE and BLEU instead of by the loss.
        answer_samples: Rows whose prompts the model answers before and after training, side by side in report.html and samples.jsonl of the run's folder.
        eval_after: JSON list of own suites of questions, as `swift eval --custom_eval_config` takes it.
        metric_for_best_model: What tells the best checkpoint, by its name in the log.
        acc_strategy: Count accuracy by token or by whole sentence: token, sentence.
        acc_steps: Log accuracy at every Nth step only.
        save_strategy: When checkpoints are saved: steps, epoch, no.
        save_steps: Optimizer steps between checkpoints.
        save_total_limit: Checkpoints kept beside the best and the last.
        save_only_model: Save the weights alone.
        save_safetensors: Save weights as safetensors.
        save_on_each_node: Multi-node: save checkpoints on every node.
        logging_steps: Steps between log lines.
        logging_dir: TensorBoard directory.
        report_to: Trackers to write to.
        include_num_input_tokens_seen: Count the input tokens seen in training.
        metric_warmup_step: Leave the first steps out of the measured speed.
        disable_tqdm: Print plain lines instead of a progress bar.
        neftune_noise_alpha: Strength of the NEFTune noise on the embeddings.
        neftune_backend: Who adds the NEFTune noise: transformers or our own hook: transformers, swift.
        loss_name: What the summed cross-entropy is divided by.
        use_liger: Compute rotary positions, norms and MLPs with the kernels of liger-kernel, on a GPU.
        dataloader_num_workers: Processes that prepare batches.
        dataloader_pin_memory: Pin batches in memory for quicker copies to the GPU.
        dataloader_drop_last: Drop the last batch when it is not full.
        test_oom_error: Put the longest rows first, so that a lack of memory shows at once.
        rehearse: Before the first step, train one on the longest rows, evaluate and save, and leave no trace of it.
        gpu_memory_fraction: Largest share of GPU memory the run may use (stress tests).
        learning_rate: Highest learning rate.
        lr_scheduler_type: Learning rate schedule.
        lr_scheduler_kwargs: Further settings of the schedule, as JSON text.
        warmup_ratio: Share of the steps used for warm-up.
        warmup_steps: Number of warm-up steps.
        min_lr: Lowest learning rate of the megatron backend.
        optim: Name of the optimizer.
        weight_decay: Weight decay.
        max_grad_norm: Norm to which gradients are clipped.
        adam_beta1: Adam beta1.
        adam_beta2: Adam beta2.
        adam_epsilon: Adam epsilon.
        max_new_tokens: Most tokens an answer may have.
        do_sample: Sample instead of taking the likeliest token.
        temperature: Sampling temperature.
        top_k: Sample from the k likeliest tokens.
        top_p: Sample from the likeliest tokens that make up this probability.
        repetition_penalty: Penalty on tokens already there, 1 for none.
        num_beams: Beams of beam search.
        quant_method: Library that quantizes the weights while they load: bnb, hqq, eetq, awq, gptq, aqlm.
        quantization_bit: Bits the linear layers are quantized to while they load, the head left out: 0, 1, 2, 3, 4, 8.
        bnb_4bit_comp_dtype: bitsandbytes 4 bit: dtype of the dequantized computation: bf16, fp16, fp32, AUTO.
        bnb_4bit_quant_type: bitsandbytes 4 bit: quantization type: nf4, fp4.
        bnb_4bit_use_double_quant: bitsandbytes 4 bit: quantize the quantization constants too.
        bnb_4bit_quant_storage: bitsandbytes 4 bit: dtype the packed weights are stored in.
        hqq_axis: HQQ: axis along which weights are grouped: 0, 1.
        hqq_dynamic_config_path: HQQ.
        deepspeed: DeepSpeed configuration: a preset, a JSON file or JSON text.
        fsdp: FSDP mode as in transformers.
        fsdp_config: Path of the FSDP configuration.
        fsdp_num: FSDP: number of devices that share one copy of the parameters.
        sequence_parallel_size: Number of GPUs one sequence is split over.
        ddp_backend: Communication backend for distributed training: nccl, gloo, mpi, ccl, hccl.
        ddp_timeout: Timeout of distributed operations in seconds.
        ddp_find_unused_parameters: Let DDP look for parameters without gradient.
        ddp_broadcast_buffers: Let DDP send the buffers of rank 0 to the others before each forward pass.
        train_backend: What runs the training loop: transformers, megatron.
        tp: Tensor parallelism of the megatron backend.
        pp: Pipeline parallelism of the megatron backend.
        sequence_parallel: Split the activations of one sequence over the devices (megatron backend).
        model_layer_cls_name: FSDP: class name of the layer that is wrapped.
        push_to_hub: Push the result to the model hub.
        hub_model_id: Repository to push to.
        hub_token: Token of the hub.
        hub_private_repo: Make the repository private.
        hub_strategy: What is pushed during training, and when: end, every_save, checkpoint, all_checkpoints.
        adalora_target_r: Average rank aimed at.
        adalora_init_r: Initial rank.
        adalora_tinit: Steps of initial warm-up.
        adalora_tfinal: Steps of final fine-tuning.
        adalora_deltaT: Steps between rank allocations.
        adalora_beta1: First EMA coefficient.
        adalora_beta2: Second EMA coefficient.
        adalora_orth_reg_weight: Weight of the orthogonality regularizer.
        ia3_feedforward_modules: Names of the MLP linear layers whose inputs are scaled.
        vera_rank: VeRA rank.
        vera_projection_prng_key: Seed of the shared VeRA projection, which is stored with the adapter.
        vera_dropout: VeRA dropout.
        vera_d_initial: Initial value of the d vector.
        boft_block_size: BOFT block size.
        boft_block_num: BOFT number of blocks.
        boft_n_butterfly_factor: Number of butterfly factors.
        boft_dropout: BOFT dropout.
        fourier_n_frequency: Number of frequencies (comparable to r of LoRA).
        fourier_scaling: Scale of the weight update (comparable to lora_alpha).
        reft_layers: Layer numbers it works on.
        reft_layer_key: Name of the module list that holds the layers.
        reft_rank: Rank.
        reft_intervention_type: Kind of intervention: NoreftIntervention, LoreftIntervention, ConsreftIntervention, LobireftIntervention, DireftIntervention, NodireftIntervention.
        reft_args: Further settings of the intervention as JSON text.
        llamapro_num_new_blocks: Number of new layers.
        llamapro_num_groups: Number of groups the new layers are put in as.
        adapter_act: Activation of the adapter layers.
        adapter_length: Hidden width of the adapter layers.
        adapter_after_attention: Put adapter layers after attention too, as Houlsby et al.
        use_galore: Use GaLore.
        galore_target_modules: Modules GaLore works on.
        galore_rank: GaLore rank.
        galore_update_proj_gap: Steps between updates of the GaLore projection.
        galore_scale: GaLore scale factor.
        galore_proj_type: Kind of GaLore projection.
        galore_optim_per_parameter: Step each GaLore matrix as soon as its gradient is there, and free it.
        galore_with_embedding: Apply GaLore to the embeddings as well.
        galore_quantization: Use Q-GaLore.
        galore_proj_quant: Quantize the SVD projection.
        galore_proj_bits: Bits of the quantized projection.
        galore_proj_group_size: Group size of the quantized projection.
        galore_cos_threshold: Cosine similarity above which the projection counts as unchanged.
        galore_gamma_proj: Factor by which the update gap grows while projections stay similar.
        galore_queue_size: Length of the queue used to compare projections.
        lisa_activated_layers: LISA (full tuning only): layers trained at a time, 0 for off.
        lisa_step_interval: Steps between switches of the trained layers.
        ignore_args_error: Report unknown flags in one warning instead of stopping.
    """
    ...

def pt(
    config: str | PathLike[str] | None = None,
    *,
    model_type: str | PathLike[str] | None = None,
    model_id_or_path: str | PathLike[str] | None = None,
    model_revision: str | PathLike[str] | None = None,
    dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    use_flash_attn: bool | None = None,
    check_model_is_latest: bool = True,
    rope_scaling: Literal["linear", "dynamic", "yarn"] | None = None,
    device_map_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    device_max_memory: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    model_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    rescale_image: int = -1,
    local_repo_path: str | PathLike[str] | None = None,
    custom_register_path: str | PathLike[str] | None = None,
    ignore_base_mismatch: bool = False,
    model_cache_dir: str | PathLike[str] | None = None,
    device_map_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    val_dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    dataset_test_ratio: float = 0.01,
    dataset_seed: int | None = None,
    check_dataset_strategy: Literal["none", "warning", "discard", "error"] = "none",
    columns: str | PathLike[str] | Mapping[str, Any] | None = None,
    custom_dataset_info: str | PathLike[str] | Mapping[str, Any] | None = None,
    model_name: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    model_author: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    lazy_tokenize: bool | None = True,
    preprocess_num_proc: int = 1,
    packing: bool = False,
    streaming: bool = False,
    streaming_val_size: int = 0,
    streaming_buffer_size: int = 16384,
    max_drop_ratio: float = 0.5,
    max_rewritten_ratio: float = 0.05,
    strict: bool = False,
    no_cache: bool = False,
    cache_dir: str | PathLike[str] | None = None,
    train_dataset_sample: int = -1,
    val_dataset_sample: int | None = None,
    custom_train_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    custom_val_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    self_cognition_sample: int = 0,
    train_dataset_mix_ratio: float = 0.0,
    train_dataset_mix_ds: str | PathLike[str] | Sequence[str | PathLike[str]] = ('ms-bench',),
    template_type: str | PathLike[str] = "AUTO",
    system: str | PathLike[str] | None = None,
    max_length: int = 2048,
    truncation_strategy: Literal["delete", "truncation_left"] = "delete",
    tools_prompt: Literal["react_en", "react_zh", "toolbench"] = "react_en",
    use_loss_scale: bool = False,
    loss_scale_config_path: str | PathLike[str] | Mapping[str, Any] = "DEFAULT",
    ignore_template_mismatch: bool = False,
    sft_type: Literal["lora", "full", "longlora", "adalora", "ia3", "llamapro", "adapter", "vera", "boft", "fourierft", "reft"] = "full",
    tuner_backend: Literal["swift", "peft", "unsloth"] = "peft",
    target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = ('ALL',),
    target_regex: str | PathLike[str] | None = None,
    modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    freeze_vit: bool = False,
    freeze_parameters: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    freeze_parameters_ratio: float = 0.0,
    additional_trainable_parameters: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    lora_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    lora_target_regex: str | PathLike[str] | None = None,
    lora_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    boft_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    boft_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vera_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vera_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    ia3_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    ia3_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    lora_rank: int = 8,
    lora_alpha: int = 32,
    lora_dropout: float = 0.05,
    lora_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    lora_bias_trainable: Literal["none", "all"] = "none",
    init_lora_weights: bool | str | PathLike[str] = True,
    use_dora: bool = False,
    use_rslora: bool = False,
    lora_lr_ratio: float | None = None,
    lora_dropout_p: float | None = None,
    output_dir: str | PathLike[str] = "output",
    add_output_dir_suffix: bool | None = True,
    num_train_epochs: int | float = 1,
    max_steps: int = -1,
    batch_size: int = 1,
    eval_batch_size: int | None = None,
    gradient_accumulation_steps: int | None = None,
    micro_batching: str | PathLike[str] = "auto",
    share_prompts: Literal["AUTO", "true", "false"] | bool = "AUTO",
    auto_find_batch_size: bool = False,
    gradient_checkpointing: bool | None = True,
    pack_frozen_layers: Literal["AUTO", "true", "false"] | bool = "AUTO",
    cache_vision_features: Literal["AUTO", "true", "false"] | bool = "AUTO",
    torch_compile: bool = False,
    vit_use_gc: bool = True,
    seed: int = 42,
    full_determinism: bool = False,
    resume_from_checkpoint: str | PathLike[str] | None = None,
    resume_only_model: bool = False,
    ignore_data_skip: bool = False,
    dry_run: bool = False,
    evaluation_strategy: Literal["steps", "epoch", "no"] = "steps",
    eval_steps: int | None = 500,
    predict_with_generate: bool = False,
    eval_after: str | PathLike[str] | None = None,
    metric_for_best_model: str | PathLike[str] | None = None,
    acc_strategy: Literal["token", "sentence"] = "token",
    acc_steps: int = 1,
    save_strategy: Literal["steps", "epoch", "no"] = "steps",
    save_steps: int | None = None,
    save_total_limit: int = 2,
    save_only_model: bool = False,
    save_safetensors: bool = True,
    save_on_each_node: bool = False,
    logging_steps: int = 5,
    logging_dir: str | PathLike[str] | None = None,
    report_to: str | PathLike[str] | Sequence[str | PathLike[str]] = ('tensorboard',),
    include_num_input_tokens_seen: bool | None = False,
    metric_warmup_step: float | None = 0.0,
    disable_tqdm: bool = False,
    neftune_noise_alpha: float | None = None,
    neftune_backend: Literal["transformers", "swift"] = "transformers",
    loss_name: str | PathLike[str] | None = None,
    use_liger: bool = False,
    dataloader_num_workers: int | None = None,
    dataloader_pin_memory: bool = True,
    dataloader_drop_last: bool = False,
    test_oom_error: bool = False,
    rehearse: bool = False,
    gpu_memory_fraction: float | None = None,
    per_device_train_batch_size: int | None = None,
    per_device_eval_batch_size: int | None = None,
    eval_strategy: Literal["steps", "epoch", "no"] | None = None,
    safe_serialization: bool | None = None,
    only_save_model: bool | None = None,
    neftune_alpha: float | None = None,
    learning_rate: float | None = None,
    lr_scheduler_type: str | PathLike[str] = "cosine",
    lr_scheduler_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    warmup_ratio: float = 0.05,
    warmup_steps: int = 0,
    min_lr: float | None = None,
    optim: str | PathLike[str] = "adamw_torch",
    weight_decay: float = 0.1,
    max_grad_norm: float = 1.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.95,
    adam_epsilon: float = 1e-08,
    max_new_tokens: int = 2048,
    do_sample: bool | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    num_beams: int = 1,
    quant_method: Literal["bnb", "hqq", "eetq", "awq", "gptq", "aqlm"] | None = None,
    quantization_bit: Literal[0, 1, 2, 3, 4, 8] = 0,
    bnb_4bit_comp_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4",
    bnb_4bit_use_double_quant: bool = True,
    bnb_4bit_quant_storage: str | PathLike[str] | bool | None = None,
    hqq_axis: Literal[0, 1] = 0,
    hqq_dynamic_config_path: str | PathLike[str] | None = None,
    deepspeed: str | PathLike[str] | Mapping[str, Any] | None = None,
    fsdp: str | PathLike[str] | None = "",
    fsdp_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    fsdp_num: int = 1,
    sequence_parallel_size: int = 1,
    ddp_backend: Literal["nccl", "gloo", "mpi", "ccl", "hccl"] | None = None,
    ddp_timeout: int = 1800,
    ddp_find_unused_parameters: bool | None = None,
    ddp_broadcast_buffers: bool | None = None,
    train_backend: Literal["transformers", "megatron"] = "transformers",
    tp: int = 1,
    pp: int = 1,
    sequence_parallel: bool = False,
    model_layer_cls_name: str | PathLike[str] | None = None,
    deepspeed_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    push_to_hub: bool = False,
    hub_model_id: str | PathLike[str] | None = None,
    hub_token: str | PathLike[str] | None = None,
    hub_private_repo: bool = False,
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"] = "every_save",
    push_hub_strategy: Literal["end", "push_best", "push_last", "checkpoint", "all_checkpoints"] | None = None,
    adalora_target_r: int = 8,
    adalora_init_r: int = 12,
    adalora_tinit: int = 0,
    adalora_tfinal: int = 0,
    adalora_deltaT: int = 1,
    adalora_beta1: float = 0.85,
    adalora_beta2: float = 0.85,
    adalora_orth_reg_weight: float = 0.5,
    ia3_feedforward_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vera_rank: int = 256,
    vera_projection_prng_key: int | bool = True,
    vera_dropout: float = 0.0,
    vera_d_initial: float = 0.1,
    boft_block_size: int = 4,
    boft_block_num: int = 0,
    boft_n_butterfly_factor: int = 1,
    boft_dropout: float = 0.0,
    fourier_n_frequency: int = 2000,
    fourier_scaling: float = 300.0,
    reft_layers: int | Sequence[int] | None = None,
    reft_layer_key: str | PathLike[str] | None = None,
    reft_rank: int = 4,
    reft_intervention_type: Literal["NoreftIntervention", "LoreftIntervention", "ConsreftIntervention", "LobireftIntervention", "DireftIntervention", "NodireftIntervention"] = "LoreftIntervention",
    reft_args: str | PathLike[str] | Mapping[str, Any] | None = None,
    llamapro_num_new_blocks: int = 4,
    llamapro_num_groups: int | None = None,
    adapter_act: str | PathLike[str] = "gelu",
    adapter_length: int = 128,
    adapter_after_attention: bool = False,
    use_galore: bool = False,
    galore_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    galore_rank: int = 128,
    galore_update_proj_gap: int = 50,
    galore_scale: float = 1.0,
    galore_proj_type: str | PathLike[str] = "std",
    galore_optim_per_parameter: bool = False,
    galore_with_embedding: bool = False,
    galore_quantization: bool = False,
    galore_proj_quant: bool = False,
    galore_proj_bits: int = 4,
    galore_proj_group_size: int = 256,
    galore_cos_threshold: float = 0.4,
    galore_gamma_proj: int = 2,
    galore_queue_size: int = 5,
    lisa_activated_layers: int = 0,
    lisa_step_interval: int = 20,
    ignore_args_error: bool = False,
) -> Run:
    """Continue pre-training on plain text.

    Args:
        model_type: Registered name of a model.
        model_id_or_path: Hub id or local folder of the model.
        model_revision: Branch, tag or commit on the hub.
        dtype: Precision the model is loaded in: bf16, fp16, fp32, AUTO.
        use_flash_attn: Use flash attention.
        check_model_is_latest: Ask the hub whether the model is the newest.
        rope_scaling: Stretch the positions for a max_length beyond the model's own: linear, dynamic, yarn.
        device_map_config: Which layer lies on which device: a JSON file or JSON text.
        device_max_memory: Memory each device may use, in their order, e.g.
        model_kwargs: Settings that one model family knows, as JSON text.
        rescale_image: Scale images with more pixels (width times height) down to this many.
        local_repo_path: Local clone of the GitHub repository that a few models need, so that nothing is cloned.
        custom_register_path: Python file that registers models, templates and datasets of your own.
        ignore_base_mismatch: Go on when an adapter was trained on other weights than those of this model.
        dataset: Rows to work on.
        val_dataset: Rows to validate on, written like dataset.
        dataset_test_ratio: Share of each dataset that is held back for validation.
        dataset_seed: Seed of sampling, splitting and shuffling rows.
        check_dataset_strategy: What to do about rows with wrong types: nothing, warn, discard the row, or stop: none, warning, discard, error.
        columns: What columns are called in the formats that are known, for the rows of all data sets.
        custom_dataset_info: Further datasets: a dataset_info.json file or JSON text.
        model_name: The model's new name in Chinese and English.
        model_author: Its author's name in Chinese and English.
        lazy_tokenize: Keep no tokens in memory or on disk.
        preprocess_num_proc: Processes that read and encode rows.
        packing: Fill each sequence of max_length with several rows.
        streaming: Read rows as they are needed instead of all at first.
        streaming_val_size: Rows of a stream that are held back for validation.
        streaming_buffer_size: Rows a stream shuffles at a time.
        max_drop_ratio: Stop before training when more than this share of the rows was dropped.
        max_rewritten_ratio: Stop before training when the chat template loses text of the answers of more than this share of the rows.
        strict: Stop at the first row that cannot be used, instead of dropping it and going on.
        no_cache: Encode every row anew instead of reusing what an earlier run encoded.
        cache_dir: Where encoded rows are kept between runs.
        template_type: Chat template by name.
        system: System prompt.
        max_length: Most tokens a row may have.
        truncation_strategy: delete drops rows longer than max_length: delete, truncation_left.
        tools_prompt: How the tools of a row are described to the model: react_en, react_zh, toolbench.
        use_loss_scale: Weigh the parts of agent answers (Action, Action Input, Observation) by the rules of loss_scale_config_path.
        loss_scale_config_path: Rules for use_loss_scale: DEFAULT, alpha-umi, agent-flan, or a JSON file.
        ignore_template_mismatch: Go on when template_type renders another prompt than the chat template of the tokenizer.
        sft_type: Tuning method: lora, full, longlora, adalora, ia3, llamapro, adapter, vera, boft, fourierft, reft.
        tuner_backend: Library that implements the adapters: swift, peft, unsloth.
        target_modules: Modules that get adapters: DEFAULT or AUTO (attention q, k, v of an LLM.
        target_regex: Regular expression for module names that get adapters.
        modules_to_save: Further modules that are trained and saved whole: EMBEDDING, LN, or names.
        freeze_vit: Leave the vision tower of a multimodal model alone.
        freeze_parameters: Names (beginnings) of parameters that full tuning leaves alone.
        freeze_parameters_ratio: Share of the parameters, from the bottom up, that full tuning leaves alone.
        additional_trainable_parameters: Names (beginnings) of parameters that full tuning trains although they were frozen.
        lora_rank: Rank of the LoRA matrices.
        lora_alpha: LoRA scale: the update is multiplied by lora_alpha / lora_rank.
        lora_dropout: Dropout on the LoRA path (lora only).
        lora_dtype: dtype of the LoRA weights: bf16, fp16, fp32, AUTO.
        lora_bias_trainable: Train the bias terms too: none or all: none, all.
        init_lora_weights: How LoRA starts.
        use_dora: Use DoRA.
        use_rslora: Use rank-stabilised LoRA.
        lora_lr_ratio: Turns LoRA+ on: ratio of the learning rates of B and A.
        output_dir: Where runs are written.
        add_output_dir_suffix: Add MODEL/vN-TIME to output_dir, so that no run overwrites another.
        num_train_epochs: Passes over the rows.
        max_steps: Optimizer steps in all.
        batch_size: Rows a device takes in one forward pass.
        eval_batch_size: Rows a device takes in one forward pass of evaluation.
        gradient_accumulation_steps: Forward passes an optimizer step.
        micro_batching: How the rows of an optimizer step are laid into forward passes.
        share_prompts: Compute once what sequences of a forward pass begin with alike: AUTO, true, false.
        auto_find_batch_size: Halve batch_size until it fits into memory, keeping the rows of an optimizer step.
        gradient_checkpointing: Recompute activations to save memory at the cost of speed.
        pack_frozen_layers: On a CPU, hold an adapter's base in the order that oneDNN reads it in, once for each direction: AUTO, true, false.
        cache_vision_features: Keep what a frozen vision tower makes of each image, so that later epochs do not compute it: AUTO, true, false.
        torch_compile: Compile the norms and feed-forward blocks of the layers with torch.compile.
        vit_use_gc: Recompute activations in the vision tower too.
        seed: Seed of everything random.
        full_determinism: Use deterministic operations only.
        resume_from_checkpoint: Checkpoint folder to go on from, or auto for the newest complete one of output_dir.
        resume_only_model: Take only the weights from resume_from_checkpoint, not the optimizer, the schedule, the random state and the step.
        ignore_data_skip: Start the rows anew when resuming, instead of going on after the last one seen.
        dry_run: Do everything up to loading the weights.
        evaluation_strategy: When evaluation runs: steps, epoch, no.
        eval_steps: Optimizer steps between evaluations.
        predict_with_generate: Evaluate by generating answers and scoring them with ROUGE and BLEU instead of by the loss.
        eval_after: JSON list of own suites of questions, as `swift eval --custom_eval_config` takes it.
        metric_for_best_model: What tells the best checkpoint, by its name in the log.
        acc_strategy: Count accuracy by token or by whole sentence: token, sentence.
        acc_steps: Log accuracy at every Nth step only.
        save_strategy: When checkpoints are saved: steps, epoch, no.
        save_steps: Optimizer steps between checkpoints.
        save_total_limit: Checkpoints kept beside the best and the last.
        save_only_model: Save the weights alone.
        save_safetensors: Save weights as safetensors.
        save_on_each_node: Multi-node: save checkpoints on every node.
        logging_steps: Steps between log lines.
        logging_dir: TensorBoard directory.
        report_to: Trackers to write to.
        include_num_input_tokens_seen: Count the input tokens seen in training.
        metric_warmup_step: Leave the first steps out of the measured speed.
        disable_tqdm: Print plain lines instead of a progress bar.
        neftune_noise_alpha: Strength of the NEFTune noise on the embeddings.
        neftune_backend: Who adds the NEFTune noise: transformers or our own hook: transformers, swift.
        loss_name: What the summed cross-entropy is divided by.
        use_liger: Compute rotary positions, norms and MLPs with the kernels of liger-kernel, on a GPU.
        dataloader_num_workers: Processes that prepare batches.
        dataloader_pin_memory: Pin batches in memory for quicker copies to the GPU.
        dataloader_drop_last: Drop the last batch when it is not full.
        test_oom_error: Put the longest rows first, so that a lack of memory shows at once.
        rehearse: Before the first step, train one on the longest rows, evaluate and save, and leave no trace of it.
        gpu_memory_fraction: Largest share of GPU memory the run may use (stress tests).
        learning_rate: Highest learning rate.
        lr_scheduler_type: Learning rate schedule.
        lr_scheduler_kwargs: Further settings of the schedule, as JSON text.
        warmup_ratio: Share of the steps used for warm-up.
        warmup_steps: Number of warm-up steps.
        min_lr: Lowest learning rate of the megatron backend.
        optim: Name of the optimizer.
        weight_decay: Weight decay.
        max_grad_norm: Norm to which gradients are clipped.
        adam_beta1: Adam beta1.
        adam_beta2: Adam beta2.
        adam_epsilon: Adam epsilon.
        max_new_tokens: Most tokens an answer may have.
        do_sample: Sample instead of taking the likeliest token.
        temperature: Sampling temperature.
        top_k: Sample from the k likeliest tokens.
        top_p: Sample from the likeliest tokens that make up this probability.
        repetition_penalty: Penalty on tokens already there, 1 for none.
        num_beams: Beams of beam search.
        quant_method: Library that quantizes the weights while they load: bnb, hqq, eetq, awq, gptq, aqlm.
        quantization_bit: Bits the linear layers are quantized to while they load, the head left out: 0, 1, 2, 3, 4, 8.
        bnb_4bit_comp_dtype: bitsandbytes 4 bit: dtype of the dequantized computation: bf16, fp16, fp32, AUTO.
        bnb_4bit_quant_type: bitsandbytes 4 bit: quantization type: nf4, fp4.
        bnb_4bit_use_double_quant: bitsandbytes 4 bit: quantize the quantization constants too.
        bnb_4bit_quant_storage: bitsandbytes 4 bit: dtype the packed weights are stored in.
        hqq_axis: HQQ: axis along which weights are grouped: 0, 1.
        hqq_dynamic_config_path: HQQ.
        deepspeed: DeepSpeed configuration: a preset, a JSON file or JSON text.
        fsdp: FSDP mode as in transformers.
        fsdp_config: Path of the FSDP configuration.
        fsdp_num: FSDP: number of devices that share one copy of the parameters.
        sequence_parallel_size: Number of GPUs one sequence is split over.
        ddp_backend: Communication backend for distributed training: nccl, gloo, mpi, ccl, hccl.
        ddp_timeout: Timeout of distributed operations in seconds.
        ddp_find_unused_parameters: Let DDP look for parameters without gradient.
        ddp_broadcast_buffers: Let DDP send the buffers of rank 0 to the others before each forward pass.
        train_backend: What runs the training loop: transformers, megatron.
        tp: Tensor parallelism of the megatron backend.
        pp: Pipeline parallelism of the megatron backend.
        sequence_parallel: Split the activations of one sequence over the devices (megatron backend).
        model_layer_cls_name: FSDP: class name of the layer that is wrapped.
        push_to_hub: Push the result to the model hub.
        hub_model_id: Repository to push to.
        hub_token: Token of the hub.
        hub_private_repo: Make the repository private.
        hub_strategy: What is pushed during training, and when: end, every_save, checkpoint, all_checkpoints.
        adalora_target_r: Average rank aimed at.
        adalora_init_r: Initial rank.
        adalora_tinit: Steps of initial warm-up.
        adalora_tfinal: Steps of final fine-tuning.
        adalora_deltaT: Steps between rank allocations.
        adalora_beta1: First EMA coefficient.
        adalora_beta2: Second EMA coefficient.
        adalora_orth_reg_weight: Weight of the orthogonality regularizer.
        ia3_feedforward_modules: Names of the MLP linear layers whose inputs are scaled.
        vera_rank: VeRA rank.
        vera_projection_prng_key: Seed of the shared VeRA projection, which is stored with the adapter.
        vera_dropout: VeRA dropout.
        vera_d_initial: Initial value of the d vector.
        boft_block_size: BOFT block size.
        boft_block_num: BOFT number of blocks.
        boft_n_butterfly_factor: Number of butterfly factors.
        boft_dropout: BOFT dropout.
        fourier_n_frequency: Number of frequencies (comparable to r of LoRA).
        fourier_scaling: Scale of the weight update (comparable to lora_alpha).
        reft_layers: Layer numbers it works on.
        reft_layer_key: Name of the module list that holds the layers.
        reft_rank: Rank.
        reft_intervention_type: Kind of intervention: NoreftIntervention, LoreftIntervention, ConsreftIntervention, LobireftIntervention, DireftIntervention, NodireftIntervention.
        reft_args: Further settings of the intervention as JSON text.
        llamapro_num_new_blocks: Number of new layers.
        llamapro_num_groups: Number of groups the new layers are put in as.
        adapter_act: Activation of the adapter layers.
        adapter_length: Hidden width of the adapter layers.
        adapter_after_attention: Put adapter layers after attention too, as Houlsby et al.
        use_galore: Use GaLore.
        galore_target_modules: Modules GaLore works on.
        galore_rank: GaLore rank.
        galore_update_proj_gap: Steps between updates of the GaLore projection.
        galore_scale: GaLore scale factor.
        galore_proj_type: Kind of GaLore projection.
        galore_optim_per_parameter: Step each GaLore matrix as soon as its gradient is there, and free it.
        galore_with_embedding: Apply GaLore to the embeddings as well.
        galore_quantization: Use Q-GaLore.
        galore_proj_quant: Quantize the SVD projection.
        galore_proj_bits: Bits of the quantized projection.
        galore_proj_group_size: Group size of the quantized projection.
        galore_cos_threshold: Cosine similarity above which the projection counts as unchanged.
        galore_gamma_proj: Factor by which the update gap grows while projections stay similar.
        galore_queue_size: Length of the queue used to compare projections.
        lisa_activated_layers: LISA (full tuning only): layers trained at a time, 0 for off.
        lisa_step_interval: Steps between switches of the trained layers.
        ignore_args_error: Report unknown flags in one warning instead of stopping.
    """
    ...

def rlhf(
    config: str | PathLike[str] | None = None,
    *,
    rlhf_type: Literal["dpo", "orpo", "simpo", "kto", "cpo", "rm", "ppo", "grpo"] = "dpo",
    ref_model_type: str | PathLike[str] | None = None,
    ref_model_id_or_path: str | PathLike[str] | None = None,
    ref_model_revision: str | PathLike[str] | None = None,
    precompute_ref_log_probs: Literal["AUTO", "true", "false"] | bool = "AUTO",
    beta: float | None = None,
    label_smoothing: float = 0.0,
    loss_type: str | PathLike[str] | None = None,
    rpo_alpha: float = 1.0,
    cpo_alpha: float = 1.0,
    simpo_gamma: float = 1.0,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    reward_model_id_or_path: str | PathLike[str] | None = None,
    reward_model_type: str | PathLike[str] | None = None,
    reward_model_revision: str | PathLike[str] | None = None,
    num_ppo_epochs: int = 4,
    num_mini_batches: int = 1,
    missing_eos_penalty: float | None = None,
    local_rollout_forward_batch_size: int = 64,
    whiten_rewards: bool = False,
    kl_coef: float = 0.05,
    cliprange: float = 0.2,
    vf_coef: float = 0.1,
    cliprange_value: float = 0.2,
    gamma: float = 1.0,
    lam: float = 0.95,
    reward_model: str | PathLike[str] | None = None,
    reward_funcs: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    reward_weights: float | Sequence[float] = (),
    external_plugins: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    num_generations: int = 8,
    max_completion_length: int | None = None,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    num_iterations: int = 1,
    scale_rewards: Literal["group", "batch", "none"] | None = None,
    overlong_filter: bool = False,
    dynamic_sample: bool = False,
    max_resample_times: int = 3,
    soft_cache_length: int | None = None,
    log_completions: bool = False,
    model_type: str | PathLike[str] | None = None,
    model_id_or_path: str | PathLike[str] | None = None,
    model_revision: str | PathLike[str] | None = None,
    dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    use_flash_attn: bool | None = None,
    check_model_is_latest: bool = True,
    rope_scaling: Literal["linear", "dynamic", "yarn"] | None = None,
    device_map_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    device_max_memory: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    model_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    rescale_image: int = -1,
    local_repo_path: str | PathLike[str] | None = None,
    custom_register_path: str | PathLike[str] | None = None,
    ignore_base_mismatch: bool = False,
    model_cache_dir: str | PathLike[str] | None = None,
    device_map_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    val_dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    dataset_test_ratio: float = 0.01,
    dataset_seed: int | None = None,
    check_dataset_strategy: Literal["none", "warning", "discard", "error"] = "none",
    columns: str | PathLike[str] | Mapping[str, Any] | None = None,
    custom_dataset_info: str | PathLike[str] | Mapping[str, Any] | None = None,
    model_name: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    model_author: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    lazy_tokenize: bool | None = None,
    preprocess_num_proc: int = 1,
    packing: bool = False,
    streaming: bool = False,
    streaming_val_size: int = 0,
    streaming_buffer_size: int = 16384,
    max_drop_ratio: float = 0.5,
    max_rewritten_ratio: float = 0.05,
    strict: bool = False,
    no_cache: bool = False,
    cache_dir: str | PathLike[str] | None = None,
    train_dataset_sample: int = -1,
    val_dataset_sample: int | None = None,
    custom_train_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    custom_val_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    self_cognition_sample: int = 0,
    train_dataset_mix_ratio: float = 0.0,
    train_dataset_mix_ds: str | PathLike[str] | Sequence[str | PathLike[str]] = ('ms-bench',),
    template_type: str | PathLike[str] = "AUTO",
    system: str | PathLike[str] | None = None,
    max_length: int = 2048,
    truncation_strategy: Literal["delete", "truncation_left"] = "delete",
    tools_prompt: Literal["react_en", "react_zh", "toolbench"] = "react_en",
    use_loss_scale: bool = False,
    loss_scale_config_path: str | PathLike[str] | Mapping[str, Any] = "DEFAULT",
    ignore_template_mismatch: bool = False,
    sft_type: Literal["lora", "full", "longlora", "adalora", "ia3", "llamapro", "adapter", "vera", "boft", "fourierft", "reft"] = "lora",
    tuner_backend: Literal["swift", "peft", "unsloth"] = "peft",
    target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = ('DEFAULT',),
    target_regex: str | PathLike[str] | None = None,
    modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    freeze_vit: bool = False,
    freeze_parameters: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    freeze_parameters_ratio: float = 0.0,
    additional_trainable_parameters: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    lora_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    lora_target_regex: str | PathLike[str] | None = None,
    lora_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    boft_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    boft_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vera_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vera_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    ia3_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    ia3_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    lora_rank: int = 8,
    lora_alpha: int = 32,
    lora_dropout: float = 0.05,
    lora_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    lora_bias_trainable: Literal["none", "all"] = "none",
    init_lora_weights: bool | str | PathLike[str] = True,
    use_dora: bool = False,
    use_rslora: bool = False,
    lora_lr_ratio: float | None = None,
    lora_dropout_p: float | None = None,
    output_dir: str | PathLike[str] = "output",
    add_output_dir_suffix: bool | None = True,
    num_train_epochs: int | float = 1,
    max_steps: int = -1,
    batch_size: int = 1,
    eval_batch_size: int | None = None,
    gradient_accumulation_steps: int | None = None,
    micro_batching: str | PathLike[str] = "auto",
    share_prompts: Literal["AUTO", "true", "false"] | bool = "AUTO",
    auto_find_batch_size: bool = False,
    gradient_checkpointing: bool | None = True,
    pack_frozen_layers: Literal["AUTO", "true", "false"] | bool = "AUTO",
    cache_vision_features: Literal["AUTO", "true", "false"] | bool = "AUTO",
    torch_compile: bool = False,
    vit_use_gc: bool = True,
    seed: int = 42,
    full_determinism: bool = False,
    resume_from_checkpoint: str | PathLike[str] | None = None,
    resume_only_model: bool = False,
    ignore_data_skip: bool = False,
    dry_run: bool = False,
    evaluation_strategy: Literal["steps", "epoch", "no"] = "steps",
    eval_steps: int | None = 50,
    predict_with_generate: bool = False,
    answer_samples: int | None = 4,
    eval_after: str | PathLike[str] | None = None,
    metric_for_best_model: str | PathLike[str] | None = None,
    acc_strategy: Literal["token", "sentence"] = "token",
    acc_steps: int = 1,
    save_strategy: Literal["steps", "epoch", "no"] = "steps",
    save_steps: int | None = None,
    save_total_limit: int = 2,
    save_only_model: bool = False,
    save_safetensors: bool = True,
    save_on_each_node: bool = False,
    logging_steps: int = 5,
    logging_dir: str | PathLike[str] | None = None,
    report_to: str | PathLike[str] | Sequence[str | PathLike[str]] = ('tensorboard',),
    include_num_input_tokens_seen: bool | None = False,
    metric_warmup_step: float | None = 0.0,
    disable_tqdm: bool = False,
    neftune_noise_alpha: float | None = None,
    neftune_backend: Literal["transformers", "swift"] = "transformers",
    loss_name: str | PathLike[str] | None = None,
    use_liger: bool = False,
    dataloader_num_workers: int | None = None,
    dataloader_pin_memory: bool = True,
    dataloader_drop_last: bool = False,
    test_oom_error: bool = False,
    rehearse: bool = False,
    gpu_memory_fraction: float | None = None,
    per_device_train_batch_size: int | None = None,
    per_device_eval_batch_size: int | None = None,
    eval_strategy: Literal["steps", "epoch", "no"] | None = None,
    safe_serialization: bool | None = None,
    only_save_model: bool | None = None,
    neftune_alpha: float | None = None,
    learning_rate: float | None = None,
    lr_scheduler_type: str | PathLike[str] = "cosine",
    lr_scheduler_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    warmup_ratio: float = 0.05,
    warmup_steps: int = 0,
    min_lr: float | None = None,
    optim: str | PathLike[str] = "adamw_torch",
    weight_decay: float = 0.1,
    max_grad_norm: float = 1.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.95,
    adam_epsilon: float = 1e-08,
    max_new_tokens: int = 2048,
    do_sample: bool | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    num_beams: int = 1,
    quant_method: Literal["bnb", "hqq", "eetq", "awq", "gptq", "aqlm"] | None = None,
    quantization_bit: Literal[0, 1, 2, 3, 4, 8] = 0,
    bnb_4bit_comp_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4",
    bnb_4bit_use_double_quant: bool = True,
    bnb_4bit_quant_storage: str | PathLike[str] | bool | None = None,
    hqq_axis: Literal[0, 1] = 0,
    hqq_dynamic_config_path: str | PathLike[str] | None = None,
    deepspeed: str | PathLike[str] | Mapping[str, Any] | None = None,
    fsdp: str | PathLike[str] | None = "",
    fsdp_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    fsdp_num: int = 1,
    sequence_parallel_size: int = 1,
    ddp_backend: Literal["nccl", "gloo", "mpi", "ccl", "hccl"] | None = None,
    ddp_timeout: int = 1800,
    ddp_find_unused_parameters: bool | None = None,
    ddp_broadcast_buffers: bool | None = None,
    train_backend: Literal["transformers", "megatron"] = "transformers",
    tp: int = 1,
    pp: int = 1,
    sequence_parallel: bool = False,
    model_layer_cls_name: str | PathLike[str] | None = None,
    deepspeed_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    push_to_hub: bool = False,
    hub_model_id: str | PathLike[str] | None = None,
    hub_token: str | PathLike[str] | None = None,
    hub_private_repo: bool = False,
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"] = "every_save",
    push_hub_strategy: Literal["end", "push_best", "push_last", "checkpoint", "all_checkpoints"] | None = None,
    adalora_target_r: int = 8,
    adalora_init_r: int = 12,
    adalora_tinit: int = 0,
    adalora_tfinal: int = 0,
    adalora_deltaT: int = 1,
    adalora_beta1: float = 0.85,
    adalora_beta2: float = 0.85,
    adalora_orth_reg_weight: float = 0.5,
    ia3_feedforward_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vera_rank: int = 256,
    vera_projection_prng_key: int | bool = True,
    vera_dropout: float = 0.0,
    vera_d_initial: float = 0.1,
    boft_block_size: int = 4,
    boft_block_num: int = 0,
    boft_n_butterfly_factor: int = 1,
    boft_dropout: float = 0.0,
    fourier_n_frequency: int = 2000,
    fourier_scaling: float = 300.0,
    reft_layers: int | Sequence[int] | None = None,
    reft_layer_key: str | PathLike[str] | None = None,
    reft_rank: int = 4,
    reft_intervention_type: Literal["NoreftIntervention", "LoreftIntervention", "ConsreftIntervention", "LobireftIntervention", "DireftIntervention", "NodireftIntervention"] = "LoreftIntervention",
    reft_args: str | PathLike[str] | Mapping[str, Any] | None = None,
    llamapro_num_new_blocks: int = 4,
    llamapro_num_groups: int | None = None,
    adapter_act: str | PathLike[str] = "gelu",
    adapter_length: int = 128,
    adapter_after_attention: bool = False,
    use_galore: bool = False,
    galore_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    galore_rank: int = 128,
    galore_update_proj_gap: int = 50,
    galore_scale: float = 1.0,
    galore_proj_type: str | PathLike[str] = "std",
    galore_optim_per_parameter: bool = False,
    galore_with_embedding: bool = False,
    galore_quantization: bool = False,
    galore_proj_quant: bool = False,
    galore_proj_bits: int = 4,
    galore_proj_group_size: int = 256,
    galore_cos_threshold: float = 0.4,
    galore_gamma_proj: int = 2,
    galore_queue_size: int = 5,
    lisa_activated_layers: int = 0,
    lisa_step_interval: int = 20,
    ignore_args_error: bool = False,
) -> Run:
    """Align a model (short: swift dpo, orpo, simpo, cpo, kto, ppo, grpo).

    Args:
        rlhf_type: Alignment algorithm: dpo, orpo, simpo, kto, cpo, rm, ppo, grpo.
        ref_model_type: model_type of the reference model.
        ref_model_id_or_path: Local path or id of the reference model.
        ref_model_revision: Revision of the reference model.
        precompute_ref_log_probs: Compute the reference's log-probabilities of all rows once, keep them beside the token cache, and train without the reference in memory: AUTO, true, false.
        beta: Strength of the KL regularization.
        label_smoothing: DPO label smoothing, usually between 0 and 0.5.
        loss_type: Loss variant.
        rpo_alpha: DPO: weight of the added SFT loss (total = KL loss + rpo_alpha * SFT loss).
        cpo_alpha: CPO/SimPO: weight of the NLL term.
        simpo_gamma: SimPO: reward margin, 0.5 to 1.5 advised.
        desirable_weight: KTO: weight of desirable responses.
        undesirable_weight: KTO: weight of undesirable responses.
        reward_model_id_or_path: PPO, GRPO.
        reward_model_type: PPO, GRPO: model_type of the reward model.
        reward_model_revision: PPO, GRPO: revision of the reward model.
        num_ppo_epochs: PPO: how often the answers of a roll-out are trained on.
        num_mini_batches: PPO, GRPO.
        missing_eos_penalty: PPO.
        local_rollout_forward_batch_size: PPO, GRPO: rows of one forward pass while rolling out.
        whiten_rewards: PPO: normalize rewards.
        kl_coef: PPO: coefficient of the KL term.
        cliprange: PPO: clip range of the policy loss.
        vf_coef: PPO: coefficient of the value loss.
        cliprange_value: PPO: clip range of the value loss.
        gamma: PPO: discount factor.
        lam: PPO: lambda of GAE.
        reward_funcs: GRPO.
        reward_weights: GRPO: weights of the rewards in their sum, the reward model's last.
        external_plugins: GRPO.
        num_generations: GRPO: answers to each prompt, which are compared with each other.
        epsilon: GRPO: how far the ratio of policies may fall below 1 before it is clipped.
        epsilon_high: GRPO: how far it may rise above 1.
        num_iterations: GRPO: how often the answers of a roll-out are trained on.
        scale_rewards: GRPO: group, batch, none.
        overlong_filter: GRPO: leave answers that did not come to their end out of the loss.
        dynamic_sample: GRPO.
        max_resample_times: GRPO: how often --dynamic_sample samples again for one roll-out.
        soft_cache_length: GRPO.
        log_completions: GRPO: print an answer of each prompt of a roll-out with its rewards.
        model_type: Registered name of a model.
        model_id_or_path: Hub id or local folder of the model.
        model_revision: Branch, tag or commit on the hub.
        dtype: Precision the model is loaded in: bf16, fp16, fp32, AUTO.
        use_flash_attn: Use flash attention.
        check_model_is_latest: Ask the hub whether the model is the newest.
        rope_scaling: Stretch the positions for a max_length beyond the model's own: linear, dynamic, yarn.
        device_map_config: Which layer lies on which device: a JSON file or JSON text.
        device_max_memory: Memory each device may use, in their order, e.g.
        model_kwargs: Settings that one model family knows, as JSON text.
        rescale_image: Scale images with more pixels (width times height) down to this many.
        local_repo_path: Local clone of the GitHub repository that a few models need, so that nothing is cloned.
        custom_register_path: Python file that registers models, templates and datasets of your own.
        ignore_base_mismatch: Go on when an adapter was trained on other weights than those of this model.
        dataset: Rows to work on.
        val_dataset: Rows to validate on, written like dataset.
        dataset_test_ratio: Share of each dataset that is held back for validation.
        dataset_seed: Seed of sampling, splitting and shuffling rows.
        check_dataset_strategy: What to do about rows with wrong types: nothing, warn, discard the row, or stop: none, warning, discard, error.
        columns: What columns are called in the formats that are known, for the rows of all data sets.
        custom_dataset_info: Further datasets: a dataset_info.json file or JSON text.
        model_name: The model's new name in Chinese and English.
        model_author: Its author's name in Chinese and English.
        lazy_tokenize: Keep no tokens in memory or on disk.
        preprocess_num_proc: Processes that read and encode rows.
        packing: Fill each sequence of max_length with several rows.
        streaming: Read rows as they are needed instead of all at first.
        streaming_val_size: Rows of a stream that are held back for validation.
        streaming_buffer_size: Rows a stream shuffles at a time.
        max_drop_ratio: Stop before training when more than this share of the rows was dropped.
        max_rewritten_ratio: Stop before training when the chat template loses text of the answers of more than this share of the rows.
        strict: Stop at the first row that cannot be used, instead of dropping it and going on.
        no_cache: Encode every row anew instead of reusing what an earlier run encoded.
        cache_dir: Where encoded rows are kept between runs.
        template_type: Chat template by name.
        system: System prompt.
        max_length: Most tokens a row may have.
        truncation_strategy: delete drops rows longer than max_length: delete, truncation_left.
        tools_prompt: How the tools of a row are described to the model: react_en, react_zh, toolbench.
        use_loss_scale: Weigh the parts of agent answers (Action, Action Input, Observation) by the rules of loss_scale_config_path.
        loss_scale_config_path: Rules for use_loss_scale: DEFAULT, alpha-umi, agent-flan, or a JSON file.
        ignore_template_mismatch: Go on when template_type renders another prompt than the chat template of the tokenizer.
        sft_type: Tuning method: lora, full, longlora, adalora, ia3, llamapro, adapter, vera, boft, fourierft, reft.
        tuner_backend: Library that implements the adapters: swift, peft, unsloth.
        target_modules: Modules that get adapters: DEFAULT or AUTO (attention q, k, v of an LLM.
        target_regex: Regular expression for module names that get adapters.
        modules_to_save: Further modules that are trained and saved whole: EMBEDDING, LN, or names.
        freeze_vit: Leave the vision tower of a multimodal model alone.
        freeze_parameters: Names (beginnings) of parameters that full tuning leaves alone.
        freeze_parameters_ratio: Share of the parameters, from the bottom up, that full tuning leaves alone.
        additional_trainable_parameters: Names (beginnings) of parameters that full tuning trains although they were frozen.
        lora_rank: Rank of the LoRA matrices.
        lora_alpha: LoRA scale: the update is multiplied by lora_alpha / lora_rank.
        lora_dropout: Dropout on the LoRA path (lora only).
        lora_dtype: dtype of the LoRA weights: bf16, fp16, fp32, AUTO.
        lora_bias_trainable: Train the bias terms too: none or all: none, all.
        init_lora_weights: How LoRA starts.
        use_dora: Use DoRA.
        use_rslora: Use rank-stabilised LoRA.
        lora_lr_ratio: Turns LoRA+ on: ratio of the learning rates of B and A.
        output_dir: Where runs are written.
        add_output_dir_suffix: Add MODEL/vN-TIME to output_dir, so that no run overwrites another.
        num_train_epochs: Passes over the rows.
        max_steps: Optimizer steps in all.
        batch_size: Rows a device takes in one forward pass.
        eval_batch_size: Rows a device takes in one forward pass of evaluation.
        gradient_accumulation_steps: Forward passes an optimizer step.
        micro_batching: How the rows of an optimizer step are laid into forward passes.
        share_prompts: Compute once what sequences of a forward pass begin with alike: AUTO, true, false.
        auto_find_batch_size: Halve batch_size until it fits into memory, keeping the rows of an optimizer step.
        gradient_checkpointing: Recompute activations to save memory at the cost of speed.
        pack_frozen_layers: On a CPU, hold an adapter's base in the order that oneDNN reads it in, once for each direction: AUTO, true, false.
        cache_vision_features: Keep what a frozen vision tower makes of each image, so that later epochs do not compute it: AUTO, true, false.
        torch_compile: Compile the norms and feed-forward blocks of the layers with torch.compile.
        vit_use_gc: Recompute activations in the vision tower too.
        seed: Seed of everything random.
        full_determinism: Use deterministic operations only.
        resume_from_checkpoint: Checkpoint folder to go on from, or auto for the newest complete one of output_dir.
        resume_only_model: Take only the weights from resume_from_checkpoint, not the optimizer, the schedule, the random state and the step.
        ignore_data_skip: Start the rows anew when resuming, instead of going on after the last one seen.
        dry_run: Do everything up to loading the weights.
        evaluation_strategy: When evaluation runs: steps, epoch, no.
        eval_steps: Optimizer steps between evaluations.
        predict_with_generate: Evaluate by generating answers and scoring them with ROUGE and BLEU instead of by the loss.
        answer_samples: Rows whose prompts the model answers before and after training, side by side in report.html and samples.jsonl of the run's folder.
        eval_after: JSON list of own suites of questions, as `swift eval --custom_eval_config` takes it.
        metric_for_best_model: What tells the best checkpoint, by its name in the log.
        acc_strategy: Count accuracy by token or by whole sentence: token, sentence.
        acc_steps: Log accuracy at every Nth step only.
        save_strategy: When checkpoints are saved: steps, epoch, no.
        save_steps: Optimizer steps between checkpoints.
        save_total_limit: Checkpoints kept beside the best and the last.
        save_only_model: Save the weights alone.
        save_safetensors: Save weights as safetensors.
        save_on_each_node: Multi-node: save checkpoints on every node.
        logging_steps: Steps between log lines.
        logging_dir: TensorBoard directory.
        report_to: Trackers to write to.
        include_num_input_tokens_seen: Count the input tokens seen in training.
        metric_warmup_step: Leave the first steps out of the measured speed.
        disable_tqdm: Print plain lines instead of a progress bar.
        neftune_noise_alpha: Strength of the NEFTune noise on the embeddings.
        neftune_backend: Who adds the NEFTune noise: transformers or our own hook: transformers, swift.
        loss_name: What the summed cross-entropy is divided by.
        use_liger: Compute rotary positions, norms and MLPs with the kernels of liger-kernel, on a GPU.
        dataloader_num_workers: Processes that prepare batches.
        dataloader_pin_memory: Pin batches in memory for quicker copies to the GPU.
        dataloader_drop_last: Drop the last batch when it is not full.
        test_oom_error: Put the longest rows first, so that a lack of memory shows at once.
        rehearse: Before the first step, train one on the longest rows, evaluate and save, and leave no trace of it.
        gpu_memory_fraction: Largest share of GPU memory the run may use (stress tests).
        learning_rate: Highest learning rate.
        lr_scheduler_type: Learning rate schedule.
        lr_scheduler_kwargs: Further settings of the schedule, as JSON text.
        warmup_ratio: Share of the steps used for warm-up.
        warmup_steps: Number of warm-up steps.
        min_lr: Lowest learning rate of the megatron backend.
        optim: Name of the optimizer.
        weight_decay: Weight decay.
        max_grad_norm: Norm to which gradients are clipped.
        adam_beta1: Adam beta1.
        adam_beta2: Adam beta2.
        adam_epsilon: Adam epsilon.
        max_new_tokens: Most tokens an answer may have.
        do_sample: Sample instead of taking the likeliest token.
        temperature: Sampling temperature.
        top_k: Sample from the k likeliest tokens.
        top_p: Sample from the likeliest tokens that make up this probability.
        repetition_penalty: Penalty on tokens already there, 1 for none.
        num_beams: Beams of beam search.
        quant_method: Library that quantizes the weights while they load: bnb, hqq, eetq, awq, gptq, aqlm.
        quantization_bit: Bits the linear layers are quantized to while they load, the head left out: 0, 1, 2, 3, 4, 8.
        bnb_4bit_comp_dtype: bitsandbytes 4 bit: dtype of the dequantized computation: bf16, fp16, fp32, AUTO.
        bnb_4bit_quant_type: bitsandbytes 4 bit: quantization type: nf4, fp4.
        bnb_4bit_use_double_quant: bitsandbytes 4 bit: quantize the quantization constants too.
        bnb_4bit_quant_storage: bitsandbytes 4 bit: dtype the packed weights are stored in.
        hqq_axis: HQQ: axis along which weights are grouped: 0, 1.
        hqq_dynamic_config_path: HQQ.
        deepspeed: DeepSpeed configuration: a preset, a JSON file or JSON text.
        fsdp: FSDP mode as in transformers.
        fsdp_config: Path of the FSDP configuration.
        fsdp_num: FSDP: number of devices that share one copy of the parameters.
        sequence_parallel_size: Number of GPUs one sequence is split over.
        ddp_backend: Communication backend for distributed training: nccl, gloo, mpi, ccl, hccl.
        ddp_timeout: Timeout of distributed operations in seconds.
        ddp_find_unused_parameters: Let DDP look for parameters without gradient.
        ddp_broadcast_buffers: Let DDP send the buffers of rank 0 to the others before each forward pass.
        train_backend: What runs the training loop: transformers, megatron.
        tp: Tensor parallelism of the megatron backend.
        pp: Pipeline parallelism of the megatron backend.
        sequence_parallel: Split the activations of one sequence over the devices (megatron backend).
        model_layer_cls_name: FSDP: class name of the layer that is wrapped.
        push_to_hub: Push the result to the model hub.
        hub_model_id: Repository to push to.
        hub_token: Token of the hub.
        hub_private_repo: Make the repository private.
        hub_strategy: What is pushed during training, and when: end, every_save, checkpoint, all_checkpoints.
        adalora_target_r: Average rank aimed at.
        adalora_init_r: Initial rank.
        adalora_tinit: Steps of initial warm-up.
        adalora_tfinal: Steps of final fine-tuning.
        adalora_deltaT: Steps between rank allocations.
        adalora_beta1: First EMA coefficient.
        adalora_beta2: Second EMA coefficient.
        adalora_orth_reg_weight: Weight of the orthogonality regularizer.
        ia3_feedforward_modules: Names of the MLP linear layers whose inputs are scaled.
        vera_rank: VeRA rank.
        vera_projection_prng_key: Seed of the shared VeRA projection, which is stored with the adapter.
        vera_dropout: VeRA dropout.
        vera_d_initial: Initial value of the d vector.
        boft_block_size: BOFT block size.
        boft_block_num: BOFT number of blocks.
        boft_n_butterfly_factor: Number of butterfly factors.
        boft_dropout: BOFT dropout.
        fourier_n_frequency: Number of frequencies (comparable to r of LoRA).
        fourier_scaling: Scale of the weight update (comparable to lora_alpha).
        reft_layers: Layer numbers it works on.
        reft_layer_key: Name of the module list that holds the layers.
        reft_rank: Rank.
        reft_intervention_type: Kind of intervention: NoreftIntervention, LoreftIntervention, ConsreftIntervention, LobireftIntervention, DireftIntervention, NodireftIntervention.
        reft_args: Further settings of the intervention as JSON text.
        llamapro_num_new_blocks: Number of new layers.
        llamapro_num_groups: Number of groups the new layers are put in as.
        adapter_act: Activation of the adapter layers.
        adapter_length: Hidden width of the adapter layers.
        adapter_after_attention: Put adapter layers after attention too, as Houlsby et al.
        use_galore: Use GaLore.
        galore_target_modules: Modules GaLore works on.
        galore_rank: GaLore rank.
        galore_update_proj_gap: Steps between updates of the GaLore projection.
        galore_scale: GaLore scale factor.
        galore_proj_type: Kind of GaLore projection.
        galore_optim_per_parameter: Step each GaLore matrix as soon as its gradient is there, and free it.
        galore_with_embedding: Apply GaLore to the embeddings as well.
        galore_quantization: Use Q-GaLore.
        galore_proj_quant: Quantize the SVD projection.
        galore_proj_bits: Bits of the quantized projection.
        galore_proj_group_size: Group size of the quantized projection.
        galore_cos_threshold: Cosine similarity above which the projection counts as unchanged.
        galore_gamma_proj: Factor by which the update gap grows while projections stay similar.
        galore_queue_size: Length of the queue used to compare projections.
        lisa_activated_layers: LISA (full tuning only): layers trained at a time, 0 for off.
        lisa_step_interval: Steps between switches of the trained layers.
        ignore_args_error: Report unknown flags in one warning instead of stopping.
    """
    ...

def check(
    config: str | PathLike[str] | None = None,
    *,
    command: str | None = None,
    result_path: str | PathLike[str] | None = None,
    rlhf_type: Literal["dpo", "orpo", "simpo", "kto", "cpo", "rm", "ppo", "grpo"] | None = None,
    ref_model_type: str | PathLike[str] | None = None,
    ref_model_id_or_path: str | PathLike[str] | None = None,
    ref_model_revision: str | PathLike[str] | None = None,
    precompute_ref_log_probs: Literal["AUTO", "true", "false"] | bool = "AUTO",
    beta: float | None = None,
    label_smoothing: float = 0.0,
    loss_type: str | PathLike[str] | None = None,
    rpo_alpha: float = 1.0,
    cpo_alpha: float = 1.0,
    simpo_gamma: float = 1.0,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    reward_model_id_or_path: str | PathLike[str] | None = None,
    reward_model_type: str | PathLike[str] | None = None,
    reward_model_revision: str | PathLike[str] | None = None,
    num_ppo_epochs: int = 4,
    num_mini_batches: int = 1,
    missing_eos_penalty: float | None = None,
    local_rollout_forward_batch_size: int = 64,
    whiten_rewards: bool = False,
    kl_coef: float = 0.05,
    cliprange: float = 0.2,
    vf_coef: float = 0.1,
    cliprange_value: float = 0.2,
    gamma: float = 1.0,
    lam: float = 0.95,
    reward_model: str | PathLike[str] | None = None,
    reward_funcs: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    reward_weights: float | Sequence[float] = (),
    external_plugins: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    num_generations: int = 8,
    max_completion_length: int | None = None,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    num_iterations: int = 1,
    scale_rewards: Literal["group", "batch", "none"] | None = None,
    overlong_filter: bool = False,
    dynamic_sample: bool = False,
    max_resample_times: int = 3,
    soft_cache_length: int | None = None,
    log_completions: bool = False,
    model_type: str | PathLike[str] | None = None,
    model_id_or_path: str | PathLike[str] | None = None,
    model_revision: str | PathLike[str] | None = None,
    dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    use_flash_attn: bool | None = None,
    check_model_is_latest: bool = True,
    rope_scaling: Literal["linear", "dynamic", "yarn"] | None = None,
    device_map_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    device_max_memory: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    model_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    rescale_image: int = -1,
    local_repo_path: str | PathLike[str] | None = None,
    custom_register_path: str | PathLike[str] | None = None,
    ignore_base_mismatch: bool = False,
    model_cache_dir: str | PathLike[str] | None = None,
    device_map_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    val_dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    dataset_test_ratio: float = 0.01,
    dataset_seed: int | None = None,
    check_dataset_strategy: Literal["none", "warning", "discard", "error"] = "none",
    columns: str | PathLike[str] | Mapping[str, Any] | None = None,
    custom_dataset_info: str | PathLike[str] | Mapping[str, Any] | None = None,
    model_name: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    model_author: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    lazy_tokenize: bool | None = None,
    preprocess_num_proc: int = 1,
    packing: bool = False,
    streaming: bool = False,
    streaming_val_size: int = 0,
    streaming_buffer_size: int = 16384,
    max_drop_ratio: float = 0.5,
    max_rewritten_ratio: float = 0.05,
    strict: bool = False,
    no_cache: bool = False,
    cache_dir: str | PathLike[str] | None = None,
    train_dataset_sample: int = -1,
    val_dataset_sample: int | None = None,
    custom_train_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    custom_val_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    self_cognition_sample: int = 0,
    train_dataset_mix_ratio: float = 0.0,
    train_dataset_mix_ds: str | PathLike[str] | Sequence[str | PathLike[str]] = ('ms-bench',),
    template_type: str | PathLike[str] = "AUTO",
    system: str | PathLike[str] | None = None,
    max_length: int = 2048,
    truncation_strategy: Literal["delete", "truncation_left"] = "delete",
    tools_prompt: Literal["react_en", "react_zh", "toolbench"] = "react_en",
    use_loss_scale: bool = False,
    loss_scale_config_path: str | PathLike[str] | Mapping[str, Any] = "DEFAULT",
    ignore_template_mismatch: bool = False,
    sft_type: Literal["lora", "full", "longlora", "adalora", "ia3", "llamapro", "adapter", "vera", "boft", "fourierft", "reft"] = "lora",
    tuner_backend: Literal["swift", "peft", "unsloth"] = "peft",
    target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = ('DEFAULT',),
    target_regex: str | PathLike[str] | None = None,
    modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    freeze_vit: bool = False,
    freeze_parameters: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    freeze_parameters_ratio: float = 0.0,
    additional_trainable_parameters: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    lora_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    lora_target_regex: str | PathLike[str] | None = None,
    lora_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    boft_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    boft_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vera_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vera_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    ia3_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    ia3_modules_to_save: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    lora_rank: int = 8,
    lora_alpha: int = 32,
    lora_dropout: float = 0.05,
    lora_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    lora_bias_trainable: Literal["none", "all"] = "none",
    init_lora_weights: bool | str | PathLike[str] = True,
    use_dora: bool = False,
    use_rslora: bool = False,
    lora_lr_ratio: float | None = None,
    lora_dropout_p: float | None = None,
    output_dir: str | PathLike[str] = "output",
    add_output_dir_suffix: bool | None = True,
    num_train_epochs: int | float = 1,
    max_steps: int = -1,
    batch_size: int = 1,
    eval_batch_size: int | None = None,
    gradient_accumulation_steps: int | None = None,
    micro_batching: str | PathLike[str] = "auto",
    share_prompts: Literal["AUTO", "true", "false"] | bool = "AUTO",
    auto_find_batch_size: bool = False,
    gradient_checkpointing: bool | None = True,
    pack_frozen_layers: Literal["AUTO", "true", "false"] | bool = "AUTO",
    cache_vision_features: Literal["AUTO", "true", "false"] | bool = "AUTO",
    torch_compile: bool = False,
    vit_use_gc: bool = True,
    seed: int = 42,
    full_determinism: bool = False,
    resume_from_checkpoint: str | PathLike[str] | None = None,
    resume_only_model: bool = False,
    ignore_data_skip: bool = False,
    dry_run: bool = False,
    evaluation_strategy: Literal["steps", "epoch", "no"] = "steps",
    eval_steps: int | None = 50,
    predict_with_generate: bool = False,
    answer_samples: int | None = 4,
    eval_after: str | PathLike[str] | None = None,
    metric_for_best_model: str | PathLike[str] | None = None,
    acc_strategy: Literal["token", "sentence"] = "token",
    acc_steps: int = 1,
    save_strategy: Literal["steps", "epoch", "no"] = "steps",
    save_steps: int | None = None,
    save_total_limit: int = 2,
    save_only_model: bool = False,
    save_safetensors: bool = True,
    save_on_each_node: bool = False,
    logging_steps: int = 5,
    logging_dir: str | PathLike[str] | None = None,
    report_to: str | PathLike[str] | Sequence[str | PathLike[str]] = ('tensorboard',),
    include_num_input_tokens_seen: bool | None = False,
    metric_warmup_step: float | None = 0.0,
    disable_tqdm: bool = False,
    neftune_noise_alpha: float | None = None,
    neftune_backend: Literal["transformers", "swift"] = "transformers",
    loss_name: str | PathLike[str] | None = None,
    use_liger: bool = False,
    dataloader_num_workers: int | None = None,
    dataloader_pin_memory: bool = True,
    dataloader_drop_last: bool = False,
    test_oom_error: bool = False,
    rehearse: bool = False,
    gpu_memory_fraction: float | None = None,
    per_device_train_batch_size: int | None = None,
    per_device_eval_batch_size: int | None = None,
    eval_strategy: Literal["steps", "epoch", "no"] | None = None,
    safe_serialization: bool | None = None,
    only_save_model: bool | None = None,
    neftune_alpha: float | None = None,
    learning_rate: float | None = None,
    lr_scheduler_type: str | PathLike[str] = "cosine",
    lr_scheduler_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    warmup_ratio: float = 0.05,
    warmup_steps: int = 0,
    min_lr: float | None = None,
    optim: str | PathLike[str] = "adamw_torch",
    weight_decay: float = 0.1,
    max_grad_norm: float = 1.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.95,
    adam_epsilon: float = 1e-08,
    max_new_tokens: int = 2048,
    do_sample: bool | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    num_beams: int = 1,
    quant_method: Literal["bnb", "hqq", "eetq", "awq", "gptq", "aqlm"] | None = None,
    quantization_bit: Literal[0, 1, 2, 3, 4, 8] = 0,
    bnb_4bit_comp_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4",
    bnb_4bit_use_double_quant: bool = True,
    bnb_4bit_quant_storage: str | PathLike[str] | bool | None = None,
    hqq_axis: Literal[0, 1] = 0,
    hqq_dynamic_config_path: str | PathLike[str] | None = None,
    deepspeed: str | PathLike[str] | Mapping[str, Any] | None = None,
    fsdp: str | PathLike[str] | None = "",
    fsdp_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    fsdp_num: int = 1,
    sequence_parallel_size: int = 1,
    ddp_backend: Literal["nccl", "gloo", "mpi", "ccl", "hccl"] | None = None,
    ddp_timeout: int = 1800,
    ddp_find_unused_parameters: bool | None = None,
    ddp_broadcast_buffers: bool | None = None,
    train_backend: Literal["transformers", "megatron"] = "transformers",
    tp: int = 1,
    pp: int = 1,
    sequence_parallel: bool = False,
    model_layer_cls_name: str | PathLike[str] | None = None,
    deepspeed_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    push_to_hub: bool = False,
    hub_model_id: str | PathLike[str] | None = None,
    hub_token: str | PathLike[str] | None = None,
    hub_private_repo: bool = False,
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"] = "every_save",
    push_hub_strategy: Literal["end", "push_best", "push_last", "checkpoint", "all_checkpoints"] | None = None,
    adalora_target_r: int = 8,
    adalora_init_r: int = 12,
    adalora_tinit: int = 0,
    adalora_tfinal: int = 0,
    adalora_deltaT: int = 1,
    adalora_beta1: float = 0.85,
    adalora_beta2: float = 0.85,
    adalora_orth_reg_weight: float = 0.5,
    ia3_feedforward_modules: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    vera_rank: int = 256,
    vera_projection_prng_key: int | bool = True,
    vera_dropout: float = 0.0,
    vera_d_initial: float = 0.1,
    boft_block_size: int = 4,
    boft_block_num: int = 0,
    boft_n_butterfly_factor: int = 1,
    boft_dropout: float = 0.0,
    fourier_n_frequency: int = 2000,
    fourier_scaling: float = 300.0,
    reft_layers: int | Sequence[int] | None = None,
    reft_layer_key: str | PathLike[str] | None = None,
    reft_rank: int = 4,
    reft_intervention_type: Literal["NoreftIntervention", "LoreftIntervention", "ConsreftIntervention", "LobireftIntervention", "DireftIntervention", "NodireftIntervention"] = "LoreftIntervention",
    reft_args: str | PathLike[str] | Mapping[str, Any] | None = None,
    llamapro_num_new_blocks: int = 4,
    llamapro_num_groups: int | None = None,
    adapter_act: str | PathLike[str] = "gelu",
    adapter_length: int = 128,
    adapter_after_attention: bool = False,
    use_galore: bool = False,
    galore_target_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    galore_rank: int = 128,
    galore_update_proj_gap: int = 50,
    galore_scale: float = 1.0,
    galore_proj_type: str | PathLike[str] = "std",
    galore_optim_per_parameter: bool = False,
    galore_with_embedding: bool = False,
    galore_quantization: bool = False,
    galore_proj_quant: bool = False,
    galore_proj_bits: int = 4,
    galore_proj_group_size: int = 256,
    galore_cos_threshold: float = 0.4,
    galore_gamma_proj: int = 2,
    galore_queue_size: int = 5,
    lisa_activated_layers: int = 0,
    lisa_step_interval: int = 20,
    ignore_args_error: bool = False,
) -> Verdict:
    """Whether a training on these rows computes what it should

    Args:
        rlhf_type: Alignment algorithm: dpo, orpo, simpo, kto, cpo, rm, ppo, grpo.
        ref_model_type: model_type of the reference model.
        ref_model_id_or_path: Local path or id of the reference model.
        ref_model_revision: Revision of the reference model.
        precompute_ref_log_probs: Compute the reference's log-probabilities of all rows once, keep them beside the token cache, and train without the reference in memory: AUTO, true, false.
        beta: Strength of the KL regularization.
        label_smoothing: DPO label smoothing, usually between 0 and 0.5.
        loss_type: Loss variant.
        rpo_alpha: DPO: weight of the added SFT loss (total = KL loss + rpo_alpha * SFT loss).
        cpo_alpha: CPO/SimPO: weight of the NLL term.
        simpo_gamma: SimPO: reward margin, 0.5 to 1.5 advised.
        desirable_weight: KTO: weight of desirable responses.
        undesirable_weight: KTO: weight of undesirable responses.
        reward_model_id_or_path: PPO, GRPO.
        reward_model_type: PPO, GRPO: model_type of the reward model.
        reward_model_revision: PPO, GRPO: revision of the reward model.
        num_ppo_epochs: PPO: how often the answers of a roll-out are trained on.
        num_mini_batches: PPO, GRPO.
        missing_eos_penalty: PPO.
        local_rollout_forward_batch_size: PPO, GRPO: rows of one forward pass while rolling out.
        whiten_rewards: PPO: normalize rewards.
        kl_coef: PPO: coefficient of the KL term.
        cliprange: PPO: clip range of the policy loss.
        vf_coef: PPO: coefficient of the value loss.
        cliprange_value: PPO: clip range of the value loss.
        gamma: PPO: discount factor.
        lam: PPO: lambda of GAE.
        reward_funcs: GRPO.
        reward_weights: GRPO: weights of the rewards in their sum, the reward model's last.
        external_plugins: GRPO.
        num_generations: GRPO: answers to each prompt, which are compared with each other.
        epsilon: GRPO: how far the ratio of policies may fall below 1 before it is clipped.
        epsilon_high: GRPO: how far it may rise above 1.
        num_iterations: GRPO: how often the answers of a roll-out are trained on.
        scale_rewards: GRPO: group, batch, none.
        overlong_filter: GRPO: leave answers that did not come to their end out of the loss.
        dynamic_sample: GRPO.
        max_resample_times: GRPO: how often --dynamic_sample samples again for one roll-out.
        soft_cache_length: GRPO.
        log_completions: GRPO: print an answer of each prompt of a roll-out with its rewards.
        model_type: Registered name of a model.
        model_id_or_path: Hub id or local folder of the model.
        model_revision: Branch, tag or commit on the hub.
        dtype: Precision the model is loaded in: bf16, fp16, fp32, AUTO.
        use_flash_attn: Use flash attention.
        check_model_is_latest: Ask the hub whether the model is the newest.
        rope_scaling: Stretch the positions for a max_length beyond the model's own: linear, dynamic, yarn.
        device_map_config: Which layer lies on which device: a JSON file or JSON text.
        device_max_memory: Memory each device may use, in their order, e.g.
        model_kwargs: Settings that one model family knows, as JSON text.
        rescale_image: Scale images with more pixels (width times height) down to this many.
        local_repo_path: Local clone of the GitHub repository that a few models need, so that nothing is cloned.
        custom_register_path: Python file that registers models, templates and datasets of your own.
        ignore_base_mismatch: Go on when an adapter was trained on other weights than those of this model.
        dataset: Rows to work on.
        val_dataset: Rows to validate on, written like dataset.
        dataset_test_ratio: Share of each dataset that is held back for validation.
        dataset_seed: Seed of sampling, splitting and shuffling rows.
        check_dataset_strategy: What to do about rows with wrong types: nothing, warn, discard the row, or stop: none, warning, discard, error.
        columns: What columns are called in the formats that are known, for the rows of all data sets.
        custom_dataset_info: Further datasets: a dataset_info.json file or JSON text.
        model_name: The model's new name in Chinese and English.
        model_author: Its author's name in Chinese and English.
        lazy_tokenize: Keep no tokens in memory or on disk.
        preprocess_num_proc: Processes that read and encode rows.
        packing: Fill each sequence of max_length with several rows.
        streaming: Read rows as they are needed instead of all at first.
        streaming_val_size: Rows of a stream that are held back for validation.
        streaming_buffer_size: Rows a stream shuffles at a time.
        max_drop_ratio: Stop before training when more than this share of the rows was dropped.
        max_rewritten_ratio: Stop before training when the chat template loses text of the answers of more than this share of the rows.
        strict: Stop at the first row that cannot be used, instead of dropping it and going on.
        no_cache: Encode every row anew instead of reusing what an earlier run encoded.
        cache_dir: Where encoded rows are kept between runs.
        template_type: Chat template by name.
        system: System prompt.
        max_length: Most tokens a row may have.
        truncation_strategy: delete drops rows longer than max_length: delete, truncation_left.
        tools_prompt: How the tools of a row are described to the model: react_en, react_zh, toolbench.
        use_loss_scale: Weigh the parts of agent answers (Action, Action Input, Observation) by the rules of loss_scale_config_path.
        loss_scale_config_path: Rules for use_loss_scale: DEFAULT, alpha-umi, agent-flan, or a JSON file.
        ignore_template_mismatch: Go on when template_type renders another prompt than the chat template of the tokenizer.
        sft_type: Tuning method: lora, full, longlora, adalora, ia3, llamapro, adapter, vera, boft, fourierft, reft.
        tuner_backend: Library that implements the adapters: swift, peft, unsloth.
        target_modules: Modules that get adapters: DEFAULT or AUTO (attention q, k, v of an LLM.
        target_regex: Regular expression for module names that get adapters.
        modules_to_save: Further modules that are trained and saved whole: EMBEDDING, LN, or names.
        freeze_vit: Leave the vision tower of a multimodal model alone.
        freeze_parameters: Names (beginnings) of parameters that full tuning leaves alone.
        freeze_parameters_ratio: Share of the parameters, from the bottom up, that full tuning leaves alone.
        additional_trainable_parameters: Names (beginnings) of parameters that full tuning trains although they were frozen.
        lora_rank: Rank of the LoRA matrices.
        lora_alpha: LoRA scale: the update is multiplied by lora_alpha / lora_rank.
        lora_dropout: Dropout on the LoRA path (lora only).
        lora_dtype: dtype of the LoRA weights: bf16, fp16, fp32, AUTO.
        lora_bias_trainable: Train the bias terms too: none or all: none, all.
        init_lora_weights: How LoRA starts.
        use_dora: Use DoRA.
        use_rslora: Use rank-stabilised LoRA.
        lora_lr_ratio: Turns LoRA+ on: ratio of the learning rates of B and A.
        output_dir: Where runs are written.
        add_output_dir_suffix: Add MODEL/vN-TIME to output_dir, so that no run overwrites another.
        num_train_epochs: Passes over the rows.
        max_steps: Optimizer steps in all.
        batch_size: Rows a device takes in one forward pass.
        eval_batch_size: Rows a device takes in one forward pass of evaluation.
        gradient_accumulation_steps: Forward passes an optimizer step.
        micro_batching: How the rows of an optimizer step are laid into forward passes.
        share_prompts: Compute once what sequences of a forward pass begin with alike: AUTO, true, false.
        auto_find_batch_size: Halve batch_size until it fits into memory, keeping the rows of an optimizer step.
        gradient_checkpointing: Recompute activations to save memory at the cost of speed.
        pack_frozen_layers: On a CPU, hold an adapter's base in the order that oneDNN reads it in, once for each direction: AUTO, true, false.
        cache_vision_features: Keep what a frozen vision tower makes of each image, so that later epochs do not compute it: AUTO, true, false.
        torch_compile: Compile the norms and feed-forward blocks of the layers with torch.compile.
        vit_use_gc: Recompute activations in the vision tower too.
        seed: Seed of everything random.
        full_determinism: Use deterministic operations only.
        resume_from_checkpoint: Checkpoint folder to go on from, or auto for the newest complete one of output_dir.
        resume_only_model: Take only the weights from resume_from_checkpoint, not the optimizer, the schedule, the random state and the step.
        ignore_data_skip: Start the rows anew when resuming, instead of going on after the last one seen.
        dry_run: Do everything up to loading the weights.
        evaluation_strategy: When evaluation runs: steps, epoch, no.
        eval_steps: Optimizer steps between evaluations.
        predict_with_generate: Evaluate by generating answers and scoring them with ROUGE and BLEU instead of by the loss.
        answer_samples: Rows whose prompts the model answers before and after training, side by side in report.html and samples.jsonl of the run's folder.
        eval_after: JSON list of own suites of questions, as `swift eval --custom_eval_config` takes it.
        metric_for_best_model: What tells the best checkpoint, by its name in the log.
        acc_strategy: Count accuracy by token or by whole sentence: token, sentence.
        acc_steps: Log accuracy at every Nth step only.
        save_strategy: When checkpoints are saved: steps, epoch, no.
        save_steps: Optimizer steps between checkpoints.
        save_total_limit: Checkpoints kept beside the best and the last.
        save_only_model: Save the weights alone.
        save_safetensors: Save weights as safetensors.
        save_on_each_node: Multi-node: save checkpoints on every node.
        logging_steps: Steps between log lines.
        logging_dir: TensorBoard directory.
        report_to: Trackers to write to.
        include_num_input_tokens_seen: Count the input tokens seen in training.
        metric_warmup_step: Leave the first steps out of the measured speed.
        disable_tqdm: Print plain lines instead of a progress bar.
        neftune_noise_alpha: Strength of the NEFTune noise on the embeddings.
        neftune_backend: Who adds the NEFTune noise: transformers or our own hook: transformers, swift.
        loss_name: What the summed cross-entropy is divided by.
        use_liger: Compute rotary positions, norms and MLPs with the kernels of liger-kernel, on a GPU.
        dataloader_num_workers: Processes that prepare batches.
        dataloader_pin_memory: Pin batches in memory for quicker copies to the GPU.
        dataloader_drop_last: Drop the last batch when it is not full.
        test_oom_error: Put the longest rows first, so that a lack of memory shows at once.
        rehearse: Before the first step, train one on the longest rows, evaluate and save, and leave no trace of it.
        gpu_memory_fraction: Largest share of GPU memory the run may use (stress tests).
        learning_rate: Highest learning rate.
        lr_scheduler_type: Learning rate schedule.
        lr_scheduler_kwargs: Further settings of the schedule, as JSON text.
        warmup_ratio: Share of the steps used for warm-up.
        warmup_steps: Number of warm-up steps.
        min_lr: Lowest learning rate of the megatron backend.
        optim: Name of the optimizer.
        weight_decay: Weight decay.
        max_grad_norm: Norm to which gradients are clipped.
        adam_beta1: Adam beta1.
        adam_beta2: Adam beta2.
        adam_epsilon: Adam epsilon.
        max_new_tokens: Most tokens an answer may have.
        do_sample: Sample instead of taking the likeliest token.
        temperature: Sampling temperature.
        top_k: Sample from the k likeliest tokens.
        top_p: Sample from the likeliest tokens that make up this probability.
        repetition_penalty: Penalty on tokens already there, 1 for none.
        num_beams: Beams of beam search.
        quant_method: Library that quantizes the weights while they load: bnb, hqq, eetq, awq, gptq, aqlm.
        quantization_bit: Bits the linear layers are quantized to while they load, the head left out: 0, 1, 2, 3, 4, 8.
        bnb_4bit_comp_dtype: bitsandbytes 4 bit: dtype of the dequantized computation: bf16, fp16, fp32, AUTO.
        bnb_4bit_quant_type: bitsandbytes 4 bit: quantization type: nf4, fp4.
        bnb_4bit_use_double_quant: bitsandbytes 4 bit: quantize the quantization constants too.
        bnb_4bit_quant_storage: bitsandbytes 4 bit: dtype the packed weights are stored in.
        hqq_axis: HQQ: axis along which weights are grouped: 0, 1.
        hqq_dynamic_config_path: HQQ.
        deepspeed: DeepSpeed configuration: a preset, a JSON file or JSON text.
        fsdp: FSDP mode as in transformers.
        fsdp_config: Path of the FSDP configuration.
        fsdp_num: FSDP: number of devices that share one copy of the parameters.
        sequence_parallel_size: Number of GPUs one sequence is split over.
        ddp_backend: Communication backend for distributed training: nccl, gloo, mpi, ccl, hccl.
        ddp_timeout: Timeout of distributed operations in seconds.
        ddp_find_unused_parameters: Let DDP look for parameters without gradient.
        ddp_broadcast_buffers: Let DDP send the buffers of rank 0 to the others before each forward pass.
        train_backend: What runs the training loop: transformers, megatron.
        tp: Tensor parallelism of the megatron backend.
        pp: Pipeline parallelism of the megatron backend.
        sequence_parallel: Split the activations of one sequence over the devices (megatron backend).
        model_layer_cls_name: FSDP: class name of the layer that is wrapped.
        push_to_hub: Push the result to the model hub.
        hub_model_id: Repository to push to.
        hub_token: Token of the hub.
        hub_private_repo: Make the repository private.
        hub_strategy: What is pushed during training, and when: end, every_save, checkpoint, all_checkpoints.
        adalora_target_r: Average rank aimed at.
        adalora_init_r: Initial rank.
        adalora_tinit: Steps of initial warm-up.
        adalora_tfinal: Steps of final fine-tuning.
        adalora_deltaT: Steps between rank allocations.
        adalora_beta1: First EMA coefficient.
        adalora_beta2: Second EMA coefficient.
        adalora_orth_reg_weight: Weight of the orthogonality regularizer.
        ia3_feedforward_modules: Names of the MLP linear layers whose inputs are scaled.
        vera_rank: VeRA rank.
        vera_projection_prng_key: Seed of the shared VeRA projection, which is stored with the adapter.
        vera_dropout: VeRA dropout.
        vera_d_initial: Initial value of the d vector.
        boft_block_size: BOFT block size.
        boft_block_num: BOFT number of blocks.
        boft_n_butterfly_factor: Number of butterfly factors.
        boft_dropout: BOFT dropout.
        fourier_n_frequency: Number of frequencies (comparable to r of LoRA).
        fourier_scaling: Scale of the weight update (comparable to lora_alpha).
        reft_layers: Layer numbers it works on.
        reft_layer_key: Name of the module list that holds the layers.
        reft_rank: Rank.
        reft_intervention_type: Kind of intervention: NoreftIntervention, LoreftIntervention, ConsreftIntervention, LobireftIntervention, DireftIntervention, NodireftIntervention.
        reft_args: Further settings of the intervention as JSON text.
        llamapro_num_new_blocks: Number of new layers.
        llamapro_num_groups: Number of groups the new layers are put in as.
        adapter_act: Activation of the adapter layers.
        adapter_length: Hidden width of the adapter layers.
        adapter_after_attention: Put adapter layers after attention too, as Houlsby et al.
        use_galore: Use GaLore.
        galore_target_modules: Modules GaLore works on.
        galore_rank: GaLore rank.
        galore_update_proj_gap: Steps between updates of the GaLore projection.
        galore_scale: GaLore scale factor.
        galore_proj_type: Kind of GaLore projection.
        galore_optim_per_parameter: Step each GaLore matrix as soon as its gradient is there, and free it.
        galore_with_embedding: Apply GaLore to the embeddings as well.
        galore_quantization: Use Q-GaLore.
        galore_proj_quant: Quantize the SVD projection.
        galore_proj_bits: Bits of the quantized projection.
        galore_proj_group_size: Group size of the quantized projection.
        galore_cos_threshold: Cosine similarity above which the projection counts as unchanged.
        galore_gamma_proj: Factor by which the update gap grows while projections stay similar.
        galore_queue_size: Length of the queue used to compare projections.
        lisa_activated_layers: LISA (full tuning only): layers trained at a time, 0 for off.
        lisa_step_interval: Steps between switches of the trained layers.
        ignore_args_error: Report unknown flags in one warning instead of stopping.
    """
    ...

def infer(
    config: str | PathLike[str] | None = None,
    *,
    ckpt_dir: str | PathLike[str] | None = None,
    load_args_from_ckpt_dir: bool = True,
    merge_lora: bool = False,
    merge_device_map: str | PathLike[str] | None = None,
    save_safetensors: bool = True,
    overwrite_generation_config: bool = False,
    safe_serialization: bool | None = None,
    merge_lora_and_save: bool | None = None,
    infer_backend: Literal["vllm", "pt", "lmdeploy", "llamacpp", "AUTO"] = "AUTO",
    load_dataset_config: bool = False,
    eval_human: bool | None = None,
    show_dataset_sample: int = -1,
    verbose: bool | None = None,
    stream: bool = True,
    lora_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]] = (),
    result_dir: str | PathLike[str] | None = None,
    save_result: bool = True,
    max_logprobs: int = 20,
    seed: int = 42,
    vllm_lora_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]] | None = None,
    model_type: str | PathLike[str] | None = None,
    model_id_or_path: str | PathLike[str] | None = None,
    model_revision: str | PathLike[str] | None = None,
    dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    use_flash_attn: bool | None = None,
    check_model_is_latest: bool = True,
    rope_scaling: Literal["linear", "dynamic", "yarn"] | None = None,
    device_map_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    device_max_memory: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    model_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    rescale_image: int = -1,
    local_repo_path: str | PathLike[str] | None = None,
    custom_register_path: str | PathLike[str] | None = None,
    ignore_base_mismatch: bool = False,
    model_cache_dir: str | PathLike[str] | None = None,
    device_map_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    val_dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    dataset_test_ratio: float = 0.01,
    dataset_seed: int | None = None,
    check_dataset_strategy: Literal["none", "warning", "discard", "error"] = "none",
    columns: str | PathLike[str] | Mapping[str, Any] | None = None,
    custom_dataset_info: str | PathLike[str] | Mapping[str, Any] | None = None,
    model_name: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    model_author: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    strict: bool = False,
    train_dataset_sample: int = -1,
    val_dataset_sample: int | None = None,
    custom_train_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    custom_val_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    self_cognition_sample: int = 0,
    template_type: str | PathLike[str] = "AUTO",
    system: str | PathLike[str] | None = None,
    max_length: int = -1,
    truncation_strategy: Literal["delete", "truncation_left"] = "delete",
    tools_prompt: Literal["react_en", "react_zh", "toolbench"] = "react_en",
    ignore_template_mismatch: bool = False,
    sft_type: Literal["lora", "full", "longlora", "adalora", "ia3", "llamapro", "adapter", "vera", "boft", "fourierft", "reft"] = "lora",
    max_new_tokens: int = 2048,
    do_sample: bool | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    num_beams: int = 1,
    stop_words: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    quant_method: Literal["bnb", "hqq", "eetq", "awq", "gptq", "aqlm"] | None = None,
    quantization_bit: Literal[0, 1, 2, 3, 4, 8] = 0,
    bnb_4bit_comp_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4",
    bnb_4bit_use_double_quant: bool = True,
    bnb_4bit_quant_storage: str | PathLike[str] | bool | None = True,
    hqq_axis: Literal[0, 1] = 0,
    hqq_dynamic_config_path: str | PathLike[str] | None = None,
    hub_token: str | PathLike[str] | None = None,
    gpu_memory_utilization: float = 0.9,
    tensor_parallel_size: int = 1,
    max_model_len: int | None = None,
    max_num_seqs: int = 256,
    disable_custom_all_reduce: bool = True,
    enforce_eager: bool = False,
    limit_mm_per_prompt: str | PathLike[str] | Mapping[str, Any] | None = None,
    vllm_enable_lora: bool = False,
    vllm_max_lora_rank: int = 16,
    tp: int = 1,
    cache_max_entry_count: float = 0.8,
    quant_policy: Literal[0, 4, 8] = 0,
    vision_batch_size: int = 1,
    ignore_args_error: bool = False,
) -> list[dict[str, Any]]:
    """Chat with a model, or let it answer rows.

    Args:
        ckpt_dir: Checkpoint folder written by training, or a merged one.
        load_args_from_ckpt_dir: Take model, template and precision from the sft_args.json of ckpt_dir.
        merge_lora: Merge the adapter into the model first and save it as CKPT_DIR-merged.
        merge_device_map: Where the model lies while it is merged.
        save_safetensors: Save merged weights as safetensors instead of bin files.
        overwrite_generation_config: Write the generation settings in use into ckpt_dir as generation_config.json.
        infer_backend: Engine that generates: vllm, pt, lmdeploy, llamacpp, AUTO.
        load_dataset_config: Take the datasets too from the sft_args.json of ckpt_dir.
        eval_human: Chat at the terminal (true) or answer dataset rows (false).
        show_dataset_sample: Rows to answer, -1 for all.
        verbose: Print prompt and answer of each row (true) or a progress bar (false).
        stream: Show answers while they are written.
        lora_modules: More adapters to choose among, written NAME=PATH.
        result_dir: Folder of the result file.
        save_result: Write each answer to the result file.
        max_logprobs: Most log probabilities a request may ask for.
        seed: Seed of everything random.
        model_type: Registered name of a model.
        model_id_or_path: Hub id or local folder of the model.
        model_revision: Branch, tag or commit on the hub.
        dtype: Precision the model is loaded in: bf16, fp16, fp32, AUTO.
        use_flash_attn: Use flash attention.
        check_model_is_latest: Ask the hub whether the model is the newest.
        rope_scaling: Stretch the positions for a max_length beyond the model's own: linear, dynamic, yarn.
        device_map_config: Which layer lies on which device: a JSON file or JSON text.
        device_max_memory: Memory each device may use, in their order, e.g.
        model_kwargs: Settings that one model family knows, as JSON text.
        rescale_image: Scale images with more pixels (width times height) down to this many.
        local_repo_path: Local clone of the GitHub repository that a few models need, so that nothing is cloned.
        custom_register_path: Python file that registers models, templates and datasets of your own.
        ignore_base_mismatch: Go on when an adapter was trained on other weights than those of this model.
        dataset: Rows to work on.
        val_dataset: Rows to validate on, written like dataset.
        dataset_test_ratio: Share of each dataset that is held back for validation.
        dataset_seed: Seed of sampling, splitting and shuffling rows.
        check_dataset_strategy: What to do about rows with wrong types: nothing, warn, discard the row, or stop: none, warning, discard, error.
        columns: What columns are called in the formats that are known, for the rows of all data sets.
        custom_dataset_info: Further datasets: a dataset_info.json file or JSON text.
        model_name: The model's new name in Chinese and English.
        model_author: Its author's name in Chinese and English.
        strict: Stop at the first row that cannot be used, instead of dropping it and going on.
        template_type: Chat template by name.
        system: System prompt.
        max_length: Most tokens a row may have.
        truncation_strategy: delete drops rows longer than max_length: delete, truncation_left.
        tools_prompt: How the tools of a row are described to the model: react_en, react_zh, toolbench.
        ignore_template_mismatch: Go on when template_type renders another prompt than the chat template of the tokenizer.
        sft_type: Tuning method: lora, full, longlora, adalora, ia3, llamapro, adapter, vera, boft, fourierft, reft.
        max_new_tokens: Most tokens an answer may have.
        do_sample: Sample instead of taking the likeliest token.
        temperature: Sampling temperature.
        top_k: Sample from the k likeliest tokens.
        top_p: Sample from the likeliest tokens that make up this probability.
        repetition_penalty: Penalty on tokens already there, 1 for none.
        num_beams: Beams of beam search.
        stop_words: Texts that end an answer, beside those of the template.
        quant_method: Library that quantizes the weights while they load: bnb, hqq, eetq, awq, gptq, aqlm.
        quantization_bit: Bits the linear layers are quantized to while they load, the head left out: 0, 1, 2, 3, 4, 8.
        bnb_4bit_comp_dtype: bitsandbytes 4 bit: dtype of the dequantized computation: bf16, fp16, fp32, AUTO.
        bnb_4bit_quant_type: bitsandbytes 4 bit: quantization type: nf4, fp4.
        bnb_4bit_use_double_quant: bitsandbytes 4 bit: quantize the quantization constants too.
        bnb_4bit_quant_storage: bitsandbytes 4 bit: dtype the packed weights are stored in.
        hqq_axis: HQQ: axis along which weights are grouped: 0, 1.
        hqq_dynamic_config_path: HQQ.
        hub_token: Token of the hub.
        gpu_memory_utilization: Share of GPU memory to use.
        tensor_parallel_size: Number of GPUs for tensor parallelism.
        max_model_len: Overrides the model's maximum length.
        max_num_seqs: Most sequences at once.
        disable_custom_all_reduce: Use NCCL instead of the custom all-reduce kernel (vLLM itself has the other default).
        enforce_eager: Eager mode instead of CUDA graphs.
        limit_mm_per_prompt: Number of images/videos allowed per prompt, as JSON.
        vllm_enable_lora: Allow adapters.
        vllm_max_lora_rank: Largest adapter rank.
        tp: Tensor parallelism of the LMDeploy engine.
        cache_max_entry_count: Share of free memory for the KV cache.
        quant_policy: KV cache quantization, 0 off, 4 or 8 bits: 0, 4, 8.
        vision_batch_size: Batch size of the vision model.
        ignore_args_error: Report unknown flags in one warning instead of stopping.
    """
    ...

def merge(
    config: str | PathLike[str] | None = None,
    *,
    ckpt_dir: str | PathLike[str] | None = None,
    load_args_from_ckpt_dir: bool = True,
    merge_lora: bool = False,
    merge_device_map: str | PathLike[str] | None = None,
    save_safetensors: bool = True,
    overwrite_generation_config: bool = False,
    safe_serialization: bool | None = None,
    merge_lora_and_save: bool | None = None,
    infer_backend: Literal["vllm", "pt", "lmdeploy", "llamacpp", "AUTO"] = "AUTO",
    load_dataset_config: bool = False,
    eval_human: bool | None = None,
    show_dataset_sample: int = -1,
    verbose: bool | None = None,
    stream: bool = True,
    lora_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]] = (),
    result_dir: str | PathLike[str] | None = None,
    save_result: bool = True,
    max_logprobs: int = 20,
    seed: int = 42,
    vllm_lora_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]] | None = None,
    model_type: str | PathLike[str] | None = None,
    model_id_or_path: str | PathLike[str] | None = None,
    model_revision: str | PathLike[str] | None = None,
    dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    use_flash_attn: bool | None = None,
    check_model_is_latest: bool = True,
    rope_scaling: Literal["linear", "dynamic", "yarn"] | None = None,
    device_map_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    device_max_memory: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    model_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    rescale_image: int = -1,
    local_repo_path: str | PathLike[str] | None = None,
    custom_register_path: str | PathLike[str] | None = None,
    ignore_base_mismatch: bool = False,
    model_cache_dir: str | PathLike[str] | None = None,
    device_map_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    val_dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    dataset_test_ratio: float = 0.01,
    dataset_seed: int | None = None,
    check_dataset_strategy: Literal["none", "warning", "discard", "error"] = "none",
    columns: str | PathLike[str] | Mapping[str, Any] | None = None,
    custom_dataset_info: str | PathLike[str] | Mapping[str, Any] | None = None,
    model_name: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    model_author: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    strict: bool = False,
    train_dataset_sample: int = -1,
    val_dataset_sample: int | None = None,
    custom_train_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    custom_val_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    self_cognition_sample: int = 0,
    template_type: str | PathLike[str] = "AUTO",
    system: str | PathLike[str] | None = None,
    max_length: int = -1,
    truncation_strategy: Literal["delete", "truncation_left"] = "delete",
    tools_prompt: Literal["react_en", "react_zh", "toolbench"] = "react_en",
    ignore_template_mismatch: bool = False,
    sft_type: Literal["lora", "full", "longlora", "adalora", "ia3", "llamapro", "adapter", "vera", "boft", "fourierft", "reft"] = "lora",
    max_new_tokens: int = 2048,
    do_sample: bool | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    num_beams: int = 1,
    stop_words: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    quant_method: Literal["bnb", "hqq", "eetq", "awq", "gptq", "aqlm"] | None = None,
    quantization_bit: Literal[0, 1, 2, 3, 4, 8] = 0,
    bnb_4bit_comp_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4",
    bnb_4bit_use_double_quant: bool = True,
    bnb_4bit_quant_storage: str | PathLike[str] | bool | None = True,
    hqq_axis: Literal[0, 1] = 0,
    hqq_dynamic_config_path: str | PathLike[str] | None = None,
    hub_token: str | PathLike[str] | None = None,
    gpu_memory_utilization: float = 0.9,
    tensor_parallel_size: int = 1,
    max_model_len: int | None = None,
    max_num_seqs: int = 256,
    disable_custom_all_reduce: bool = True,
    enforce_eager: bool = False,
    limit_mm_per_prompt: str | PathLike[str] | Mapping[str, Any] | None = None,
    vllm_enable_lora: bool = False,
    vllm_max_lora_rank: int = 16,
    tp: int = 1,
    cache_max_entry_count: float = 0.8,
    quant_policy: Literal[0, 4, 8] = 0,
    vision_batch_size: int = 1,
    ignore_args_error: bool = False,
) -> Path:
    """Fold an adapter into its model, and check that nothing changed.

    Args:
        ckpt_dir: Checkpoint folder written by training, or a merged one.
        load_args_from_ckpt_dir: Take model, template and precision from the sft_args.json of ckpt_dir.
        merge_lora: Merge the adapter into the model first and save it as CKPT_DIR-merged.
        merge_device_map: Where the model lies while it is merged.
        save_safetensors: Save merged weights as safetensors instead of bin files.
        overwrite_generation_config: Write the generation settings in use into ckpt_dir as generation_config.json.
        infer_backend: Engine that generates: vllm, pt, lmdeploy, llamacpp, AUTO.
        load_dataset_config: Take the datasets too from the sft_args.json of ckpt_dir.
        eval_human: Chat at the terminal (true) or answer dataset rows (false).
        show_dataset_sample: Rows to answer, -1 for all.
        verbose: Print prompt and answer of each row (true) or a progress bar (false).
        stream: Show answers while they are written.
        lora_modules: More adapters to choose among, written NAME=PATH.
        result_dir: Folder of the result file.
        save_result: Write each answer to the result file.
        max_logprobs: Most log probabilities a request may ask for.
        seed: Seed of everything random.
        model_type: Registered name of a model.
        model_id_or_path: Hub id or local folder of the model.
        model_revision: Branch, tag or commit on the hub.
        dtype: Precision the model is loaded in: bf16, fp16, fp32, AUTO.
        use_flash_attn: Use flash attention.
        check_model_is_latest: Ask the hub whether the model is the newest.
        rope_scaling: Stretch the positions for a max_length beyond the model's own: linear, dynamic, yarn.
        device_map_config: Which layer lies on which device: a JSON file or JSON text.
        device_max_memory: Memory each device may use, in their order, e.g.
        model_kwargs: Settings that one model family knows, as JSON text.
        rescale_image: Scale images with more pixels (width times height) down to this many.
        local_repo_path: Local clone of the GitHub repository that a few models need, so that nothing is cloned.
        custom_register_path: Python file that registers models, templates and datasets of your own.
        ignore_base_mismatch: Go on when an adapter was trained on other weights than those of this model.
        dataset: Rows to work on.
        val_dataset: Rows to validate on, written like dataset.
        dataset_test_ratio: Share of each dataset that is held back for validation.
        dataset_seed: Seed of sampling, splitting and shuffling rows.
        check_dataset_strategy: What to do about rows with wrong types: nothing, warn, discard the row, or stop: none, warning, discard, error.
        columns: What columns are called in the formats that are known, for the rows of all data sets.
        custom_dataset_info: Further datasets: a dataset_info.json file or JSON text.
        model_name: The model's new name in Chinese and English.
        model_author: Its author's name in Chinese and English.
        strict: Stop at the first row that cannot be used, instead of dropping it and going on.
        template_type: Chat template by name.
        system: System prompt.
        max_length: Most tokens a row may have.
        truncation_strategy: delete drops rows longer than max_length: delete, truncation_left.
        tools_prompt: How the tools of a row are described to the model: react_en, react_zh, toolbench.
        ignore_template_mismatch: Go on when template_type renders another prompt than the chat template of the tokenizer.
        sft_type: Tuning method: lora, full, longlora, adalora, ia3, llamapro, adapter, vera, boft, fourierft, reft.
        max_new_tokens: Most tokens an answer may have.
        do_sample: Sample instead of taking the likeliest token.
        temperature: Sampling temperature.
        top_k: Sample from the k likeliest tokens.
        top_p: Sample from the likeliest tokens that make up this probability.
        repetition_penalty: Penalty on tokens already there, 1 for none.
        num_beams: Beams of beam search.
        stop_words: Texts that end an answer, beside those of the template.
        quant_method: Library that quantizes the weights while they load: bnb, hqq, eetq, awq, gptq, aqlm.
        quantization_bit: Bits the linear layers are quantized to while they load, the head left out: 0, 1, 2, 3, 4, 8.
        bnb_4bit_comp_dtype: bitsandbytes 4 bit: dtype of the dequantized computation: bf16, fp16, fp32, AUTO.
        bnb_4bit_quant_type: bitsandbytes 4 bit: quantization type: nf4, fp4.
        bnb_4bit_use_double_quant: bitsandbytes 4 bit: quantize the quantization constants too.
        bnb_4bit_quant_storage: bitsandbytes 4 bit: dtype the packed weights are stored in.
        hqq_axis: HQQ: axis along which weights are grouped: 0, 1.
        hqq_dynamic_config_path: HQQ.
        hub_token: Token of the hub.
        gpu_memory_utilization: Share of GPU memory to use.
        tensor_parallel_size: Number of GPUs for tensor parallelism.
        max_model_len: Overrides the model's maximum length.
        max_num_seqs: Most sequences at once.
        disable_custom_all_reduce: Use NCCL instead of the custom all-reduce kernel (vLLM itself has the other default).
        enforce_eager: Eager mode instead of CUDA graphs.
        limit_mm_per_prompt: Number of images/videos allowed per prompt, as JSON.
        vllm_enable_lora: Allow adapters.
        vllm_max_lora_rank: Largest adapter rank.
        tp: Tensor parallelism of the LMDeploy engine.
        cache_max_entry_count: Share of free memory for the KV cache.
        quant_policy: KV cache quantization, 0 off, 4 or 8 bits: 0, 4, 8.
        vision_batch_size: Batch size of the vision model.
        ignore_args_error: Report unknown flags in one warning instead of stopping.
    """
    ...

def export(
    config: str | PathLike[str] | None = None,
    *,
    quant_bits: Literal[0, 2, 3, 4, 8] = 0,
    quant_method: Literal["awq", "gptq", "bnb"] = "awq",
    quant_n_samples: int = 256,
    quant_seqlen: int = 2048,
    quant_batch_size: int = 1,
    quant_device_map: str | PathLike[str] | None = None,
    quant_output_dir: str | PathLike[str] | None = None,
    quant_max_perplexity_ratio: float | None = None,
    to_peft_format: bool = False,
    commit_message: str | PathLike[str] = "update files",
    to_ollama: bool = False,
    ollama_output_dir: str | PathLike[str] | None = None,
    to_gguf: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] | None = None,
    gguf_min_agreement: float | None = None,
    gguf_output_dir: str | PathLike[str] | None = None,
    gguf_file: str | PathLike[str] | None = None,
    to_megatron: bool = False,
    to_hf: bool = False,
    megatron_output_dir: str | PathLike[str] | None = None,
    hf_output_dir: str | PathLike[str] | None = None,
    pp: int = 1,
    ckpt_dir: str | PathLike[str] | None = None,
    load_args_from_ckpt_dir: bool = True,
    merge_lora: bool = False,
    merge_device_map: str | PathLike[str] | None = None,
    save_safetensors: bool = True,
    overwrite_generation_config: bool = False,
    safe_serialization: bool | None = None,
    merge_lora_and_save: bool | None = None,
    infer_backend: Literal["vllm", "pt", "lmdeploy", "llamacpp", "AUTO"] = "AUTO",
    load_dataset_config: bool = False,
    eval_human: bool | None = None,
    show_dataset_sample: int = -1,
    verbose: bool | None = None,
    stream: bool = True,
    lora_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]] = (),
    result_dir: str | PathLike[str] | None = None,
    save_result: bool = True,
    max_logprobs: int = 20,
    seed: int = 42,
    vllm_lora_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]] | None = None,
    model_type: str | PathLike[str] | None = None,
    model_id_or_path: str | PathLike[str] | None = None,
    model_revision: str | PathLike[str] | None = None,
    dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    use_flash_attn: bool | None = None,
    check_model_is_latest: bool = True,
    rope_scaling: Literal["linear", "dynamic", "yarn"] | None = None,
    device_map_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    device_max_memory: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    model_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    rescale_image: int = -1,
    local_repo_path: str | PathLike[str] | None = None,
    custom_register_path: str | PathLike[str] | None = None,
    ignore_base_mismatch: bool = False,
    model_cache_dir: str | PathLike[str] | None = None,
    device_map_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    val_dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    dataset_test_ratio: float = 0.01,
    dataset_seed: int | None = None,
    check_dataset_strategy: Literal["none", "warning", "discard", "error"] = "none",
    columns: str | PathLike[str] | Mapping[str, Any] | None = None,
    custom_dataset_info: str | PathLike[str] | Mapping[str, Any] | None = None,
    model_name: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    model_author: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    strict: bool = False,
    train_dataset_sample: int = -1,
    val_dataset_sample: int | None = None,
    custom_train_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    custom_val_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    self_cognition_sample: int = 0,
    template_type: str | PathLike[str] = "AUTO",
    system: str | PathLike[str] | None = None,
    max_length: int = -1,
    truncation_strategy: Literal["delete", "truncation_left"] = "delete",
    tools_prompt: Literal["react_en", "react_zh", "toolbench"] = "react_en",
    ignore_template_mismatch: bool = False,
    sft_type: Literal["lora", "full", "longlora", "adalora", "ia3", "llamapro", "adapter", "vera", "boft", "fourierft", "reft"] = "lora",
    max_new_tokens: int = 2048,
    do_sample: bool | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    num_beams: int = 1,
    stop_words: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    quantization_bit: Literal[0, 1, 2, 3, 4, 8] = 0,
    bnb_4bit_comp_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4",
    bnb_4bit_use_double_quant: bool = True,
    bnb_4bit_quant_storage: str | PathLike[str] | bool | None = True,
    hqq_axis: Literal[0, 1] = 0,
    hqq_dynamic_config_path: str | PathLike[str] | None = None,
    push_to_hub: bool = False,
    hub_model_id: str | PathLike[str] | None = None,
    hub_token: str | PathLike[str] | None = None,
    hub_private_repo: bool = False,
    gpu_memory_utilization: float = 0.9,
    tensor_parallel_size: int = 1,
    max_model_len: int | None = None,
    max_num_seqs: int = 256,
    disable_custom_all_reduce: bool = True,
    enforce_eager: bool = False,
    limit_mm_per_prompt: str | PathLike[str] | Mapping[str, Any] | None = None,
    vllm_enable_lora: bool = False,
    vllm_max_lora_rank: int = 16,
    tp: int = 1,
    cache_max_entry_count: float = 0.8,
    quant_policy: Literal[0, 4, 8] = 0,
    vision_batch_size: int = 1,
    ignore_args_error: bool = False,
) -> Path:
    """Merge, quantize, convert or push a model.

    Args:
        quant_bits: Bits of post-training quantization, 0 for none: 0, 2, 3, 4, 8.
        quant_method: Method of quantizing after training: awq, gptq, bnb.
        quant_n_samples: Calibration rows.
        quant_seqlen: Length of calibration sequences.
        quant_batch_size: Batch size of calibration.
        quant_device_map: Device map for loading the model to be quantized, e.g.
        quant_output_dir: Output directory of quantization.
        quant_max_perplexity_ratio: Largest perplexity of the quantized model on held rows, as a multiple of the original's.
        to_peft_format: Convert an adapter saved by tuner_backend swift to the PEFT format.
        commit_message: Commit message of the push.
        to_ollama: Export for ollama.
        ollama_output_dir: Output directory of the ollama export.
        to_gguf: Convert to a GGUF file of this type for llama.cpp and Ollama, and check it in llama.cpp: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0.
        gguf_min_agreement: Smallest share of llama.cpp's greedy tokens that must be the original's.
        gguf_output_dir: Output directory of the GGUF file and its report.
        gguf_file: GGUF file to load the weights from.
        to_megatron: Convert the model to megatron's format.
        to_hf: Convert a megatron checkpoint to the Hugging Face format.
        megatron_output_dir: Output folder of to_megatron.
        hf_output_dir: Output folder of to_hf.
        pp: Pipeline parallelism of the megatron conversion.
        ckpt_dir: Checkpoint folder written by training, or a merged one.
        load_args_from_ckpt_dir: Take model, template and precision from the sft_args.json of ckpt_dir.
        merge_lora: Merge the adapter into the model first and save it as CKPT_DIR-merged.
        merge_device_map: Where the model lies while it is merged.
        save_safetensors: Save merged weights as safetensors instead of bin files.
        overwrite_generation_config: Write the generation settings in use into ckpt_dir as generation_config.json.
        infer_backend: Engine that generates: vllm, pt, lmdeploy, llamacpp, AUTO.
        load_dataset_config: Take the datasets too from the sft_args.json of ckpt_dir.
        eval_human: Chat at the terminal (true) or answer dataset rows (false).
        show_dataset_sample: Rows to answer, -1 for all.
        verbose: Print prompt and answer of each row (true) or a progress bar (false).
        stream: Show answers while they are written.
        lora_modules: More adapters to choose among, written NAME=PATH.
        result_dir: Folder of the result file.
        save_result: Write each answer to the result file.
        max_logprobs: Most log probabilities a request may ask for.
        seed: Seed of everything random.
        model_type: Registered name of a model.
        model_id_or_path: Hub id or local folder of the model.
        model_revision: Branch, tag or commit on the hub.
        dtype: Precision the model is loaded in: bf16, fp16, fp32, AUTO.
        use_flash_attn: Use flash attention.
        check_model_is_latest: Ask the hub whether the model is the newest.
        rope_scaling: Stretch the positions for a max_length beyond the model's own: linear, dynamic, yarn.
        device_map_config: Which layer lies on which device: a JSON file or JSON text.
        device_max_memory: Memory each device may use, in their order, e.g.
        model_kwargs: Settings that one model family knows, as JSON text.
        rescale_image: Scale images with more pixels (width times height) down to this many.
        local_repo_path: Local clone of the GitHub repository that a few models need, so that nothing is cloned.
        custom_register_path: Python file that registers models, templates and datasets of your own.
        ignore_base_mismatch: Go on when an adapter was trained on other weights than those of this model.
        dataset: Rows to work on.
        val_dataset: Rows to validate on, written like dataset.
        dataset_test_ratio: Share of each dataset that is held back for validation.
        dataset_seed: Seed of sampling, splitting and shuffling rows.
        check_dataset_strategy: What to do about rows with wrong types: nothing, warn, discard the row, or stop: none, warning, discard, error.
        columns: What columns are called in the formats that are known, for the rows of all data sets.
        custom_dataset_info: Further datasets: a dataset_info.json file or JSON text.
        model_name: The model's new name in Chinese and English.
        model_author: Its author's name in Chinese and English.
        strict: Stop at the first row that cannot be used, instead of dropping it and going on.
        template_type: Chat template by name.
        system: System prompt.
        max_length: Most tokens a row may have.
        truncation_strategy: delete drops rows longer than max_length: delete, truncation_left.
        tools_prompt: How the tools of a row are described to the model: react_en, react_zh, toolbench.
        ignore_template_mismatch: Go on when template_type renders another prompt than the chat template of the tokenizer.
        sft_type: Tuning method: lora, full, longlora, adalora, ia3, llamapro, adapter, vera, boft, fourierft, reft.
        max_new_tokens: Most tokens an answer may have.
        do_sample: Sample instead of taking the likeliest token.
        temperature: Sampling temperature.
        top_k: Sample from the k likeliest tokens.
        top_p: Sample from the likeliest tokens that make up this probability.
        repetition_penalty: Penalty on tokens already there, 1 for none.
        num_beams: Beams of beam search.
        stop_words: Texts that end an answer, beside those of the template.
        quantization_bit: Bits the linear layers are quantized to while they load, the head left out: 0, 1, 2, 3, 4, 8.
        bnb_4bit_comp_dtype: bitsandbytes 4 bit: dtype of the dequantized computation: bf16, fp16, fp32, AUTO.
        bnb_4bit_quant_type: bitsandbytes 4 bit: quantization type: nf4, fp4.
        bnb_4bit_use_double_quant: bitsandbytes 4 bit: quantize the quantization constants too.
        bnb_4bit_quant_storage: bitsandbytes 4 bit: dtype the packed weights are stored in.
        hqq_axis: HQQ: axis along which weights are grouped: 0, 1.
        hqq_dynamic_config_path: HQQ.
        push_to_hub: Push the result to the model hub.
        hub_model_id: Repository to push to.
        hub_token: Token of the hub.
        hub_private_repo: Make the repository private.
        gpu_memory_utilization: Share of GPU memory to use.
        tensor_parallel_size: Number of GPUs for tensor parallelism.
        max_model_len: Overrides the model's maximum length.
        max_num_seqs: Most sequences at once.
        disable_custom_all_reduce: Use NCCL instead of the custom all-reduce kernel (vLLM itself has the other default).
        enforce_eager: Eager mode instead of CUDA graphs.
        limit_mm_per_prompt: Number of images/videos allowed per prompt, as JSON.
        vllm_enable_lora: Allow adapters.
        vllm_max_lora_rank: Largest adapter rank.
        tp: Tensor parallelism of the LMDeploy engine.
        cache_max_entry_count: Share of free memory for the KV cache.
        quant_policy: KV cache quantization, 0 off, 4 or 8 bits: 0, 4, 8.
        vision_batch_size: Batch size of the vision model.
        ignore_args_error: Report unknown flags in one warning instead of stopping.
    """
    ...

def evaluate(
    config: str | PathLike[str] | None = None,
    *,
    eval_dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    eval_limit: str | PathLike[str] | None = None,
    eval_backend: Literal["Native", "OpenCompass"] = "OpenCompass",
    name: str | PathLike[str] = "",
    eval_url: str | PathLike[str] | None = None,
    eval_token: str | PathLike[str] = "EMPTY",
    eval_is_chat_model: bool | None = None,
    custom_eval_config: str | PathLike[str] | None = None,
    eval_use_cache: bool = False,
    eval_output_dir: str | PathLike[str] = "eval_outputs",
    eval_batch_size: int = 8,
    eval_nproc: int = 16,
    choice_scores: Literal["letter", "text", "generated"] | Sequence[Literal["letter", "text", "generated"]] = ('letter', 'text', 'generated'),
    compare: str | PathLike[str] | None = None,
    deploy_timeout: int = 1800,
    eval_few_shot: int | None = None,
    ckpt_dir: str | PathLike[str] | None = None,
    load_args_from_ckpt_dir: bool = True,
    merge_lora: bool = False,
    merge_device_map: str | PathLike[str] | None = None,
    save_safetensors: bool = True,
    overwrite_generation_config: bool = False,
    safe_serialization: bool | None = None,
    merge_lora_and_save: bool | None = None,
    infer_backend: Literal["vllm", "pt", "lmdeploy", "llamacpp", "AUTO"] = "AUTO",
    load_dataset_config: bool = False,
    eval_human: bool | None = None,
    show_dataset_sample: int = -1,
    verbose: bool | None = None,
    stream: bool = True,
    lora_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]] = (),
    result_dir: str | PathLike[str] | None = None,
    save_result: bool = True,
    max_logprobs: int = 20,
    seed: int = 42,
    vllm_lora_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]] | None = None,
    model_type: str | PathLike[str] | None = None,
    model_id_or_path: str | PathLike[str] | None = None,
    model_revision: str | PathLike[str] | None = None,
    dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    use_flash_attn: bool | None = None,
    check_model_is_latest: bool = True,
    rope_scaling: Literal["linear", "dynamic", "yarn"] | None = None,
    device_map_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    device_max_memory: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    model_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    rescale_image: int = -1,
    local_repo_path: str | PathLike[str] | None = None,
    custom_register_path: str | PathLike[str] | None = None,
    ignore_base_mismatch: bool = False,
    model_cache_dir: str | PathLike[str] | None = None,
    device_map_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    val_dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    dataset_test_ratio: float = 0.01,
    dataset_seed: int | None = None,
    check_dataset_strategy: Literal["none", "warning", "discard", "error"] = "none",
    columns: str | PathLike[str] | Mapping[str, Any] | None = None,
    custom_dataset_info: str | PathLike[str] | Mapping[str, Any] | None = None,
    model_name: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    model_author: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    strict: bool = False,
    train_dataset_sample: int = -1,
    val_dataset_sample: int | None = None,
    custom_train_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    custom_val_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    self_cognition_sample: int = 0,
    template_type: str | PathLike[str] = "AUTO",
    system: str | PathLike[str] | None = None,
    max_length: int = -1,
    truncation_strategy: Literal["delete", "truncation_left"] = "delete",
    tools_prompt: Literal["react_en", "react_zh", "toolbench"] = "react_en",
    ignore_template_mismatch: bool = False,
    sft_type: Literal["lora", "full", "longlora", "adalora", "ia3", "llamapro", "adapter", "vera", "boft", "fourierft", "reft"] = "lora",
    max_new_tokens: int = 2048,
    do_sample: bool | None = False,
    temperature: float | None = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    num_beams: int = 1,
    stop_words: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    quant_method: Literal["bnb", "hqq", "eetq", "awq", "gptq", "aqlm"] | None = None,
    quantization_bit: Literal[0, 1, 2, 3, 4, 8] = 0,
    bnb_4bit_comp_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4",
    bnb_4bit_use_double_quant: bool = True,
    bnb_4bit_quant_storage: str | PathLike[str] | bool | None = True,
    hqq_axis: Literal[0, 1] = 0,
    hqq_dynamic_config_path: str | PathLike[str] | None = None,
    hub_token: str | PathLike[str] | None = None,
    gpu_memory_utilization: float = 0.9,
    tensor_parallel_size: int = 1,
    max_model_len: int | None = None,
    max_num_seqs: int = 256,
    disable_custom_all_reduce: bool = True,
    enforce_eager: bool = False,
    limit_mm_per_prompt: str | PathLike[str] | Mapping[str, Any] | None = None,
    vllm_enable_lora: bool = False,
    vllm_max_lora_rank: int = 16,
    tp: int = 1,
    cache_max_entry_count: float = 0.8,
    quant_policy: Literal[0, 4, 8] = 0,
    vision_batch_size: int = 1,
    ignore_args_error: bool = False,
) -> Evaluation:
    """Measure a model on benchmarks.

    Args:
        eval_dataset: Standard benchmarks.
        eval_limit: Rows per sub dataset: an integer or a slice such as [10:20].
        eval_backend: Harness that runs the benchmarks: Native, OpenCompass.
        name: Label of the run.
        eval_url: OpenAI-compatible endpoint to evaluate instead of a model of this machine.
        eval_token: Token of eval_url.
        eval_is_chat_model: With eval_url: whether the served model is a chat model (False: base model).
        custom_eval_config: JSON list of own suites of questions: {name, pattern, dataset, subset_list}.
        eval_use_cache: Take over the answers of earlier runs of this name to the same questions, and ask only the rest.
        eval_output_dir: Directory of the results.
        eval_batch_size: Questions under way at once in the engine.
        eval_nproc: Requests under way at once at eval_url.
        choice_scores: How a multiple-choice question is answered: letter, text, generated.
        compare: Folder of an earlier evaluation of the same questions, to compare with question by question.
        deploy_timeout: Seconds to wait for the server at eval_url to come up.
        ckpt_dir: Checkpoint folder written by training, or a merged one.
        load_args_from_ckpt_dir: Take model, template and precision from the sft_args.json of ckpt_dir.
        merge_lora: Merge the adapter into the model first and save it as CKPT_DIR-merged.
        merge_device_map: Where the model lies while it is merged.
        save_safetensors: Save merged weights as safetensors instead of bin files.
        overwrite_generation_config: Write the generation settings in use into ckpt_dir as generation_config.json.
        infer_backend: Engine that generates: vllm, pt, lmdeploy, llamacpp, AUTO.
        load_dataset_config: Take the datasets too from the sft_args.json of ckpt_dir.
        eval_human: Chat at the terminal (true) or answer dataset rows (false).
        show_dataset_sample: Rows to answer, -1 for all.
        verbose: Print prompt and answer of each row (true) or a progress bar (false).
        stream: Show answers while they are written.
        lora_modules: More adapters to choose among, written NAME=PATH.
        result_dir: Folder of the result file.
        save_result: Write each answer to the result file.
        max_logprobs: Most log probabilities a request may ask for.
        seed: Seed of everything random.
        model_type: Registered name of a model.
        model_id_or_path: Hub id or local folder of the model.
        model_revision: Branch, tag or commit on the hub.
        dtype: Precision the model is loaded in: bf16, fp16, fp32, AUTO.
        use_flash_attn: Use flash attention.
        check_model_is_latest: Ask the hub whether the model is the newest.
        rope_scaling: Stretch the positions for a max_length beyond the model's own: linear, dynamic, yarn.
        device_map_config: Which layer lies on which device: a JSON file or JSON text.
        device_max_memory: Memory each device may use, in their order, e.g.
        model_kwargs: Settings that one model family knows, as JSON text.
        rescale_image: Scale images with more pixels (width times height) down to this many.
        local_repo_path: Local clone of the GitHub repository that a few models need, so that nothing is cloned.
        custom_register_path: Python file that registers models, templates and datasets of your own.
        ignore_base_mismatch: Go on when an adapter was trained on other weights than those of this model.
        dataset: Rows to work on.
        val_dataset: Rows to validate on, written like dataset.
        dataset_test_ratio: Share of each dataset that is held back for validation.
        dataset_seed: Seed of sampling, splitting and shuffling rows.
        check_dataset_strategy: What to do about rows with wrong types: nothing, warn, discard the row, or stop: none, warning, discard, error.
        columns: What columns are called in the formats that are known, for the rows of all data sets.
        custom_dataset_info: Further datasets: a dataset_info.json file or JSON text.
        model_name: The model's new name in Chinese and English.
        model_author: Its author's name in Chinese and English.
        strict: Stop at the first row that cannot be used, instead of dropping it and going on.
        template_type: Chat template by name.
        system: System prompt.
        max_length: Most tokens a row may have.
        truncation_strategy: delete drops rows longer than max_length: delete, truncation_left.
        tools_prompt: How the tools of a row are described to the model: react_en, react_zh, toolbench.
        ignore_template_mismatch: Go on when template_type renders another prompt than the chat template of the tokenizer.
        sft_type: Tuning method: lora, full, longlora, adalora, ia3, llamapro, adapter, vera, boft, fourierft, reft.
        max_new_tokens: Most tokens an answer may have.
        do_sample: Sample instead of taking the likeliest token.
        temperature: Sampling temperature.
        top_k: Sample from the k likeliest tokens.
        top_p: Sample from the likeliest tokens that make up this probability.
        repetition_penalty: Penalty on tokens already there, 1 for none.
        num_beams: Beams of beam search.
        stop_words: Texts that end an answer, beside those of the template.
        quant_method: Library that quantizes the weights while they load: bnb, hqq, eetq, awq, gptq, aqlm.
        quantization_bit: Bits the linear layers are quantized to while they load, the head left out: 0, 1, 2, 3, 4, 8.
        bnb_4bit_comp_dtype: bitsandbytes 4 bit: dtype of the dequantized computation: bf16, fp16, fp32, AUTO.
        bnb_4bit_quant_type: bitsandbytes 4 bit: quantization type: nf4, fp4.
        bnb_4bit_use_double_quant: bitsandbytes 4 bit: quantize the quantization constants too.
        bnb_4bit_quant_storage: bitsandbytes 4 bit: dtype the packed weights are stored in.
        hqq_axis: HQQ: axis along which weights are grouped: 0, 1.
        hqq_dynamic_config_path: HQQ.
        hub_token: Token of the hub.
        gpu_memory_utilization: Share of GPU memory to use.
        tensor_parallel_size: Number of GPUs for tensor parallelism.
        max_model_len: Overrides the model's maximum length.
        max_num_seqs: Most sequences at once.
        disable_custom_all_reduce: Use NCCL instead of the custom all-reduce kernel (vLLM itself has the other default).
        enforce_eager: Eager mode instead of CUDA graphs.
        limit_mm_per_prompt: Number of images/videos allowed per prompt, as JSON.
        vllm_enable_lora: Allow adapters.
        vllm_max_lora_rank: Largest adapter rank.
        tp: Tensor parallelism of the LMDeploy engine.
        cache_max_entry_count: Share of free memory for the KV cache.
        quant_policy: KV cache quantization, 0 off, 4 or 8 bits: 0, 4, 8.
        vision_batch_size: Batch size of the vision model.
        ignore_args_error: Report unknown flags in one warning instead of stopping.
    """
    ...

def deploy(
    config: str | PathLike[str] | None = None,
    *,
    host: str | PathLike[str] = "0.0.0.0",
    port: int = 8000,
    api_key: str | PathLike[str] | None = None,
    ssl_keyfile: str | PathLike[str] | None = None,
    ssl_certfile: str | PathLike[str] | None = None,
    log_interval: int = 10,
    owned_by: str | PathLike[str] = "swift",
    served_model_name: str | PathLike[str] | None = None,
    allowed_origins: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    allow_private_urls: bool = False,
    allowed_media_dir: str | PathLike[str] | None = None,
    stream_usage: Literal["on_request", "every"] = "on_request",
    ckpt_dir: str | PathLike[str] | None = None,
    load_args_from_ckpt_dir: bool = True,
    merge_lora: bool = False,
    merge_device_map: str | PathLike[str] | None = None,
    save_safetensors: bool = True,
    overwrite_generation_config: bool = False,
    safe_serialization: bool | None = None,
    merge_lora_and_save: bool | None = None,
    infer_backend: Literal["vllm", "pt", "lmdeploy", "llamacpp", "AUTO"] = "AUTO",
    load_dataset_config: bool = False,
    eval_human: bool | None = None,
    show_dataset_sample: int = -1,
    verbose: bool | None = True,
    stream: bool = True,
    lora_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]] = (),
    result_dir: str | PathLike[str] | None = None,
    save_result: bool = True,
    max_logprobs: int = 20,
    seed: int = 42,
    vllm_lora_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]] | None = None,
    model_type: str | PathLike[str] | None = None,
    model_id_or_path: str | PathLike[str] | None = None,
    model_revision: str | PathLike[str] | None = None,
    dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    use_flash_attn: bool | None = None,
    check_model_is_latest: bool = True,
    rope_scaling: Literal["linear", "dynamic", "yarn"] | None = None,
    device_map_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    device_max_memory: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    model_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    rescale_image: int = -1,
    local_repo_path: str | PathLike[str] | None = None,
    custom_register_path: str | PathLike[str] | None = None,
    ignore_base_mismatch: bool = False,
    model_cache_dir: str | PathLike[str] | None = None,
    device_map_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    val_dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    dataset_test_ratio: float = 0.01,
    dataset_seed: int | None = None,
    check_dataset_strategy: Literal["none", "warning", "discard", "error"] = "none",
    columns: str | PathLike[str] | Mapping[str, Any] | None = None,
    custom_dataset_info: str | PathLike[str] | Mapping[str, Any] | None = None,
    model_name: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    model_author: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    strict: bool = False,
    train_dataset_sample: int = -1,
    val_dataset_sample: int | None = None,
    custom_train_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    custom_val_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    self_cognition_sample: int = 0,
    template_type: str | PathLike[str] = "AUTO",
    system: str | PathLike[str] | None = None,
    max_length: int = -1,
    truncation_strategy: Literal["delete", "truncation_left"] = "delete",
    tools_prompt: Literal["react_en", "react_zh", "toolbench"] = "react_en",
    ignore_template_mismatch: bool = False,
    sft_type: Literal["lora", "full", "longlora", "adalora", "ia3", "llamapro", "adapter", "vera", "boft", "fourierft", "reft"] = "lora",
    max_new_tokens: int = 2048,
    do_sample: bool | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    num_beams: int = 1,
    stop_words: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    quant_method: Literal["bnb", "hqq", "eetq", "awq", "gptq", "aqlm"] | None = None,
    quantization_bit: Literal[0, 1, 2, 3, 4, 8] = 0,
    bnb_4bit_comp_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4",
    bnb_4bit_use_double_quant: bool = True,
    bnb_4bit_quant_storage: str | PathLike[str] | bool | None = True,
    hqq_axis: Literal[0, 1] = 0,
    hqq_dynamic_config_path: str | PathLike[str] | None = None,
    hub_token: str | PathLike[str] | None = None,
    gpu_memory_utilization: float = 0.9,
    tensor_parallel_size: int = 1,
    max_model_len: int | None = None,
    max_num_seqs: int = 256,
    disable_custom_all_reduce: bool = True,
    enforce_eager: bool = False,
    limit_mm_per_prompt: str | PathLike[str] | Mapping[str, Any] | None = None,
    vllm_enable_lora: bool = False,
    vllm_max_lora_rank: int = 16,
    tp: int = 1,
    cache_max_entry_count: float = 0.8,
    quant_policy: Literal[0, 4, 8] = 0,
    vision_batch_size: int = 1,
    ignore_args_error: bool = False,
) -> AbstractContextManager[Endpoint]:
    """Serve a model over the OpenAI API.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        api_key: Key clients must send.
        ssl_keyfile: TLS key file.
        ssl_certfile: TLS certificate file.
        log_interval: Seconds between statistics lines, 0 for none.
        owned_by: Owner named by /v1/models.
        served_model_name: Name of the model for clients.
        allowed_origins: Web pages whose scripts may ask (CORS), such as https://chat.example.org.
        allow_private_urls: Let requests name media at http(s) addresses of this machine and its own network.
        allowed_media_dir: Folder whose images, videos and sounds requests may name by their path.
        stream_usage: Token counts of a stream: on_request, every.
        ckpt_dir: Checkpoint folder written by training, or a merged one.
        load_args_from_ckpt_dir: Take model, template and precision from the sft_args.json of ckpt_dir.
        merge_lora: Merge the adapter into the model first and save it as CKPT_DIR-merged.
        merge_device_map: Where the model lies while it is merged.
        save_safetensors: Save merged weights as safetensors instead of bin files.
        overwrite_generation_config: Write the generation settings in use into ckpt_dir as generation_config.json.
        infer_backend: Engine that generates: vllm, pt, lmdeploy, llamacpp, AUTO.
        load_dataset_config: Take the datasets too from the sft_args.json of ckpt_dir.
        eval_human: Chat at the terminal (true) or answer dataset rows (false).
        show_dataset_sample: Rows to answer, -1 for all.
        verbose: Print prompt and answer of each row (true) or a progress bar (false).
        stream: Show answers while they are written.
        lora_modules: More adapters to choose among, written NAME=PATH.
        result_dir: Folder of the result file.
        save_result: Write each answer to the result file.
        max_logprobs: Most log probabilities a request may ask for.
        seed: Seed of everything random.
        model_type: Registered name of a model.
        model_id_or_path: Hub id or local folder of the model.
        model_revision: Branch, tag or commit on the hub.
        dtype: Precision the model is loaded in: bf16, fp16, fp32, AUTO.
        use_flash_attn: Use flash attention.
        check_model_is_latest: Ask the hub whether the model is the newest.
        rope_scaling: Stretch the positions for a max_length beyond the model's own: linear, dynamic, yarn.
        device_map_config: Which layer lies on which device: a JSON file or JSON text.
        device_max_memory: Memory each device may use, in their order, e.g.
        model_kwargs: Settings that one model family knows, as JSON text.
        rescale_image: Scale images with more pixels (width times height) down to this many.
        local_repo_path: Local clone of the GitHub repository that a few models need, so that nothing is cloned.
        custom_register_path: Python file that registers models, templates and datasets of your own.
        ignore_base_mismatch: Go on when an adapter was trained on other weights than those of this model.
        dataset: Rows to work on.
        val_dataset: Rows to validate on, written like dataset.
        dataset_test_ratio: Share of each dataset that is held back for validation.
        dataset_seed: Seed of sampling, splitting and shuffling rows.
        check_dataset_strategy: What to do about rows with wrong types: nothing, warn, discard the row, or stop: none, warning, discard, error.
        columns: What columns are called in the formats that are known, for the rows of all data sets.
        custom_dataset_info: Further datasets: a dataset_info.json file or JSON text.
        model_name: The model's new name in Chinese and English.
        model_author: Its author's name in Chinese and English.
        strict: Stop at the first row that cannot be used, instead of dropping it and going on.
        template_type: Chat template by name.
        system: System prompt.
        max_length: Most tokens a row may have.
        truncation_strategy: delete drops rows longer than max_length: delete, truncation_left.
        tools_prompt: How the tools of a row are described to the model: react_en, react_zh, toolbench.
        ignore_template_mismatch: Go on when template_type renders another prompt than the chat template of the tokenizer.
        sft_type: Tuning method: lora, full, longlora, adalora, ia3, llamapro, adapter, vera, boft, fourierft, reft.
        max_new_tokens: Most tokens an answer may have.
        do_sample: Sample instead of taking the likeliest token.
        temperature: Sampling temperature.
        top_k: Sample from the k likeliest tokens.
        top_p: Sample from the likeliest tokens that make up this probability.
        repetition_penalty: Penalty on tokens already there, 1 for none.
        num_beams: Beams of beam search.
        stop_words: Texts that end an answer, beside those of the template.
        quant_method: Library that quantizes the weights while they load: bnb, hqq, eetq, awq, gptq, aqlm.
        quantization_bit: Bits the linear layers are quantized to while they load, the head left out: 0, 1, 2, 3, 4, 8.
        bnb_4bit_comp_dtype: bitsandbytes 4 bit: dtype of the dequantized computation: bf16, fp16, fp32, AUTO.
        bnb_4bit_quant_type: bitsandbytes 4 bit: quantization type: nf4, fp4.
        bnb_4bit_use_double_quant: bitsandbytes 4 bit: quantize the quantization constants too.
        bnb_4bit_quant_storage: bitsandbytes 4 bit: dtype the packed weights are stored in.
        hqq_axis: HQQ: axis along which weights are grouped: 0, 1.
        hqq_dynamic_config_path: HQQ.
        hub_token: Token of the hub.
        gpu_memory_utilization: Share of GPU memory to use.
        tensor_parallel_size: Number of GPUs for tensor parallelism.
        max_model_len: Overrides the model's maximum length.
        max_num_seqs: Most sequences at once.
        disable_custom_all_reduce: Use NCCL instead of the custom all-reduce kernel (vLLM itself has the other default).
        enforce_eager: Eager mode instead of CUDA graphs.
        limit_mm_per_prompt: Number of images/videos allowed per prompt, as JSON.
        vllm_enable_lora: Allow adapters.
        vllm_max_lora_rank: Largest adapter rank.
        tp: Tensor parallelism of the LMDeploy engine.
        cache_max_entry_count: Share of free memory for the KV cache.
        quant_policy: KV cache quantization, 0 off, 4 or 8 bits: 0, 4, 8.
        vision_batch_size: Batch size of the vision model.
        ignore_args_error: Report unknown flags in one warning instead of stopping.
    """
    ...

def load(
    checkpoint: str | PathLike[str],
    *,
    ckpt_dir: str | PathLike[str] | None = None,
    load_args_from_ckpt_dir: bool = True,
    merge_lora: bool = False,
    merge_device_map: str | PathLike[str] | None = None,
    save_safetensors: bool = True,
    overwrite_generation_config: bool = False,
    safe_serialization: bool | None = None,
    merge_lora_and_save: bool | None = None,
    infer_backend: Literal["vllm", "pt", "lmdeploy", "llamacpp", "AUTO"] = "AUTO",
    load_dataset_config: bool = False,
    eval_human: bool | None = None,
    show_dataset_sample: int = -1,
    verbose: bool | None = None,
    stream: bool = True,
    lora_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]] = (),
    result_dir: str | PathLike[str] | None = None,
    save_result: bool = True,
    max_logprobs: int = 20,
    seed: int = 42,
    vllm_lora_modules: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]] | None = None,
    model_type: str | PathLike[str] | None = None,
    model_id_or_path: str | PathLike[str] | None = None,
    model_revision: str | PathLike[str] | None = None,
    dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    use_flash_attn: bool | None = None,
    check_model_is_latest: bool = True,
    rope_scaling: Literal["linear", "dynamic", "yarn"] | None = None,
    device_map_config: str | PathLike[str] | Mapping[str, Any] | None = None,
    device_max_memory: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    model_kwargs: str | PathLike[str] | Mapping[str, Any] | None = None,
    rescale_image: int = -1,
    local_repo_path: str | PathLike[str] | None = None,
    custom_register_path: str | PathLike[str] | None = None,
    ignore_base_mismatch: bool = False,
    model_cache_dir: str | PathLike[str] | None = None,
    device_map_config_path: str | PathLike[str] | Mapping[str, Any] | None = None,
    dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    val_dataset: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    dataset_test_ratio: float = 0.01,
    dataset_seed: int | None = None,
    check_dataset_strategy: Literal["none", "warning", "discard", "error"] = "none",
    columns: str | PathLike[str] | Mapping[str, Any] | None = None,
    custom_dataset_info: str | PathLike[str] | Mapping[str, Any] | None = None,
    model_name: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    model_author: str | PathLike[str] | Sequence[str | PathLike[str] | None] = (None, None),
    strict: bool = False,
    train_dataset_sample: int = -1,
    val_dataset_sample: int | None = None,
    custom_train_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    custom_val_dataset_path: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    self_cognition_sample: int = 0,
    template_type: str | PathLike[str] = "AUTO",
    system: str | PathLike[str] | None = None,
    max_length: int = -1,
    truncation_strategy: Literal["delete", "truncation_left"] = "delete",
    tools_prompt: Literal["react_en", "react_zh", "toolbench"] = "react_en",
    ignore_template_mismatch: bool = False,
    sft_type: Literal["lora", "full", "longlora", "adalora", "ia3", "llamapro", "adapter", "vera", "boft", "fourierft", "reft"] = "lora",
    max_new_tokens: int = 2048,
    do_sample: bool | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    num_beams: int = 1,
    stop_words: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    quant_method: Literal["bnb", "hqq", "eetq", "awq", "gptq", "aqlm"] | None = None,
    quantization_bit: Literal[0, 1, 2, 3, 4, 8] = 0,
    bnb_4bit_comp_dtype: Literal["bf16", "fp16", "fp32", "AUTO"] = "AUTO",
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4",
    bnb_4bit_use_double_quant: bool = True,
    bnb_4bit_quant_storage: str | PathLike[str] | bool | None = True,
    hqq_axis: Literal[0, 1] = 0,
    hqq_dynamic_config_path: str | PathLike[str] | None = None,
    hub_token: str | PathLike[str] | None = None,
    gpu_memory_utilization: float = 0.9,
    tensor_parallel_size: int = 1,
    max_model_len: int | None = None,
    max_num_seqs: int = 256,
    disable_custom_all_reduce: bool = True,
    enforce_eager: bool = False,
    limit_mm_per_prompt: str | PathLike[str] | Mapping[str, Any] | None = None,
    vllm_enable_lora: bool = False,
    vllm_max_lora_rank: int = 16,
    tp: int = 1,
    cache_max_entry_count: float = 0.8,
    quant_policy: Literal[0, 4, 8] = 0,
    vision_batch_size: int = 1,
    ignore_args_error: bool = False,
) -> Model:
    """A checkpoint, a model's folder, a model_type or a hub id, ready to answer.

    Args:
        ckpt_dir: Checkpoint folder written by training, or a merged one.
        load_args_from_ckpt_dir: Take model, template and precision from the sft_args.json of ckpt_dir.
        merge_lora: Merge the adapter into the model first and save it as CKPT_DIR-merged.
        merge_device_map: Where the model lies while it is merged.
        save_safetensors: Save merged weights as safetensors instead of bin files.
        overwrite_generation_config: Write the generation settings in use into ckpt_dir as generation_config.json.
        infer_backend: Engine that generates: vllm, pt, lmdeploy, llamacpp, AUTO.
        load_dataset_config: Take the datasets too from the sft_args.json of ckpt_dir.
        eval_human: Chat at the terminal (true) or answer dataset rows (false).
        show_dataset_sample: Rows to answer, -1 for all.
        verbose: Print prompt and answer of each row (true) or a progress bar (false).
        stream: Show answers while they are written.
        lora_modules: More adapters to choose among, written NAME=PATH.
        result_dir: Folder of the result file.
        save_result: Write each answer to the result file.
        max_logprobs: Most log probabilities a request may ask for.
        seed: Seed of everything random.
        model_type: Registered name of a model.
        model_id_or_path: Hub id or local folder of the model.
        model_revision: Branch, tag or commit on the hub.
        dtype: Precision the model is loaded in: bf16, fp16, fp32, AUTO.
        use_flash_attn: Use flash attention.
        check_model_is_latest: Ask the hub whether the model is the newest.
        rope_scaling: Stretch the positions for a max_length beyond the model's own: linear, dynamic, yarn.
        device_map_config: Which layer lies on which device: a JSON file or JSON text.
        device_max_memory: Memory each device may use, in their order, e.g.
        model_kwargs: Settings that one model family knows, as JSON text.
        rescale_image: Scale images with more pixels (width times height) down to this many.
        local_repo_path: Local clone of the GitHub repository that a few models need, so that nothing is cloned.
        custom_register_path: Python file that registers models, templates and datasets of your own.
        ignore_base_mismatch: Go on when an adapter was trained on other weights than those of this model.
        dataset: Rows to work on.
        val_dataset: Rows to validate on, written like dataset.
        dataset_test_ratio: Share of each dataset that is held back for validation.
        dataset_seed: Seed of sampling, splitting and shuffling rows.
        check_dataset_strategy: What to do about rows with wrong types: nothing, warn, discard the row, or stop: none, warning, discard, error.
        columns: What columns are called in the formats that are known, for the rows of all data sets.
        custom_dataset_info: Further datasets: a dataset_info.json file or JSON text.
        model_name: The model's new name in Chinese and English.
        model_author: Its author's name in Chinese and English.
        strict: Stop at the first row that cannot be used, instead of dropping it and going on.
        template_type: Chat template by name.
        system: System prompt.
        max_length: Most tokens a row may have.
        truncation_strategy: delete drops rows longer than max_length: delete, truncation_left.
        tools_prompt: How the tools of a row are described to the model: react_en, react_zh, toolbench.
        ignore_template_mismatch: Go on when template_type renders another prompt than the chat template of the tokenizer.
        sft_type: Tuning method: lora, full, longlora, adalora, ia3, llamapro, adapter, vera, boft, fourierft, reft.
        max_new_tokens: Most tokens an answer may have.
        do_sample: Sample instead of taking the likeliest token.
        temperature: Sampling temperature.
        top_k: Sample from the k likeliest tokens.
        top_p: Sample from the likeliest tokens that make up this probability.
        repetition_penalty: Penalty on tokens already there, 1 for none.
        num_beams: Beams of beam search.
        stop_words: Texts that end an answer, beside those of the template.
        quant_method: Library that quantizes the weights while they load: bnb, hqq, eetq, awq, gptq, aqlm.
        quantization_bit: Bits the linear layers are quantized to while they load, the head left out: 0, 1, 2, 3, 4, 8.
        bnb_4bit_comp_dtype: bitsandbytes 4 bit: dtype of the dequantized computation: bf16, fp16, fp32, AUTO.
        bnb_4bit_quant_type: bitsandbytes 4 bit: quantization type: nf4, fp4.
        bnb_4bit_use_double_quant: bitsandbytes 4 bit: quantize the quantization constants too.
        bnb_4bit_quant_storage: bitsandbytes 4 bit: dtype the packed weights are stored in.
        hqq_axis: HQQ: axis along which weights are grouped: 0, 1.
        hqq_dynamic_config_path: HQQ.
        hub_token: Token of the hub.
        gpu_memory_utilization: Share of GPU memory to use.
        tensor_parallel_size: Number of GPUs for tensor parallelism.
        max_model_len: Overrides the model's maximum length.
        max_num_seqs: Most sequences at once.
        disable_custom_all_reduce: Use NCCL instead of the custom all-reduce kernel (vLLM itself has the other default).
        enforce_eager: Eager mode instead of CUDA graphs.
        limit_mm_per_prompt: Number of images/videos allowed per prompt, as JSON.
        vllm_enable_lora: Allow adapters.
        vllm_max_lora_rank: Largest adapter rank.
        tp: Tensor parallelism of the LMDeploy engine.
        cache_max_entry_count: Share of free memory for the KV cache.
        quant_policy: KV cache quantization, 0 off, 4 or 8 bits: 0, 4, 8.
        vision_batch_size: Batch size of the vision model.
        ignore_args_error: Report unknown flags in one warning instead of stopping.
    """
    ...
