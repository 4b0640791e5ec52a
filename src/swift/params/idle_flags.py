"""Flags that were given where they count for nothing: named in one line, as scripts pass them on.

What a wrong result would come of is refused (`swift.params.rules`); what an engine or a machine does not read is known
with the plan (`swift.plan.unread`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from swift.params import leftovers
from swift.params.alignment import ALGORITHMS, SAMPLES
from swift.params.args import Args
from swift.params.commands import COMMANDS, TRAINING
from swift.params.flag import Alias, Deprecated
from swift.params.optimizers import OF_EVALUATIONS
from swift.params.takes_effect import condition
from swift.params.values import shown

ADAM = ("adam_beta1", "adam_beta2", "adam_epsilon")
NOT_ADAM = ("sgd", "adafactor", "adagrad", "rmsprop")
"""Beginnings of the names of optimizers that have other settings than Adam's."""
WITHOUT_WARMUP = ("constant", *OF_EVALUATIONS)
"""Schedules that take no warm-up."""
SHORT = 20
"""Optimizer steps below which no answers are shown unless asked for; see `swift.plan.samples`."""
ANSWERS = ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "num_beams")
_CHAT = ("show_dataset_sample", "load_dataset_config")
_SCREEN = ("eval_human", "stream", "verbose")
_FILES = ("result_dir", "save_result", "overwrite_generation_config")
_ROWS = (
    *("dataset", "val_dataset", "dataset_test_ratio", "dataset_seed", "check_dataset_strategy", "columns", "strict"),
    *("model_name", "model_author", "train_dataset_sample", "val_dataset_sample", "custom_train_dataset_path"),
    *("custom_val_dataset_path", "self_cognition_sample"),
)
_LENGTH = ("max_length", "truncation_strategy")
_ENGINE = ("infer_backend", "lora_modules", "max_logprobs", "seed")
_BNB = ("bnb_4bit_comp_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_quant_storage")
_QUANT = (*_BNB, "hqq_axis", "hqq_dynamic_config_path")
_PROMPT = ("template_type", "system", "tools_prompt", "ignore_template_mismatch")
_VLLM = (
    *("gpu_memory_utilization", "tensor_parallel_size", "max_num_seqs", "disable_custom_all_reduce", "enforce_eager"),
    *("limit_mm_per_prompt", "vllm_enable_lora", "vllm_max_lora_rank"),
)
_LMDEPLOY = ("tp", "cache_max_entry_count", "quant_policy")
_SURFACE = ("sft_type", *_CHAT, *_ROWS, *_FILES, "eval_human", "stream")
UNREAD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "infer": ("sft_type",),
        "deploy": _SURFACE,
        "app-ui": (*_SURFACE, "verbose", "max_logprobs"),
        "eval": (*_SURFACE, "verbose", "max_logprobs"),
        "export": (
            *leftovers.IDLE_FLAGS,
            *(
                "sft_type",
                "show_dataset_sample",
                "rescale_image",
                *_SCREEN,
                *_FILES,
                *_ENGINE,
                *_QUANT,
                *_VLLM,
                *_LMDEPLOY,
            ),
        ),
        "merge-lora": (
            *(
                "sft_type",
                "merge_lora",
                "rescale_image",
                *_CHAT,
                *_ROWS,
                *_SCREEN,
                *_FILES,
                *_LENGTH,
                *_ENGINE,
                *_VLLM,
                *_LMDEPLOY,
                *ANSWERS,
            ),
            *("stop_words", "max_model_len", "quant_method", *_QUANT, *_PROMPT),
        ),
    }
)
"""Flags of a command that nothing in it reads: the contract gives all that answer the same."""


def notes(args: Args) -> list[str]:
    """One line for each reason that flags which were given do not count."""
    found: dict[str, list[str]] = {}
    for name, flag in COMMANDS[args.command].flags.items():
        if not _is_said(args, name) or flag.marker(Alias) is not None:
            continue
        why = next(_reasons(args, name), None)
        if why is not None and not _has_no_effect(args, name):
            found.setdefault(why, []).append(name)
    return [f"{why} does not read {', '.join(f'--{name}' for name in names)}" for why, names in found.items()]


def _is_said(args: Args, name: str) -> bool:
    return args.is_explicit(name) and args.changed(name)


def _has_no_effect(args: Args, name: str) -> bool:
    """Whether `swift.params.deprecated` says already that the flag does nothing."""
    old = COMMANDS[args.command].flags[name].marker(Deprecated)
    return old is not None and not old.use and not old.works


def _reasons(args: Args, name: str) -> Iterator[str]:
    stretched = name == "max_length" and args.values.get("rope_scaling")  # to that length
    if name in UNREAD.get(args.command, ()) and not stretched:
        yield f"swift {args.command}"
    when = condition(COMMANDS[args.command].flags[name])
    if when is not None and when.name in args.values and when.name not in ("infer_backend", "rlhf_type"):
        value = args.values[when.name]
        if shown(value) not in when.values:
            yield f"--{when.name} {shown(value)}"
    for case in _TRAINING_CASES if args.command in TRAINING else _OTHER_CASES.get(args.command, ()):
        why, names = case(args)
        if name in names and not stretched:
            yield why


Case = tuple[str, tuple[str, ...]]
"""Why, and the flags that do not count for it."""
_NOTHING: Case = ("", ())


def _stream(args: Args) -> Case:
    """Validation rows that are no part of the stream are read as those of other runs."""
    if not args.values["streaming"]:
        return _NOTHING
    names = () if args.values["val_dataset"] else ("preprocess_num_proc", "no_cache", "cache_dir")
    return "--streaming true", ("lazy_tokenize", "dataset_test_ratio", *names)


def _validation(args: Args) -> Case:
    given = any(args.values[name] for name in ("val_dataset", "custom_val_dataset_path"))
    return ("a run with --val_dataset", ("dataset_test_ratio", "streaming_val_size")) if given else _NOTHING


def _evaluation(args: Args) -> Case:
    when, values = args.values["evaluation_strategy"], args.values
    if when == "steps":
        return _NOTHING
    saves_by_it = values["save_strategy"] == "steps" and values["save_steps"] is None
    names = () if saves_by_it else ("eval_steps",)
    return f"--evaluation_strategy {when}", (
        *names,
        *(("eval_batch_size", "metric_for_best_model") if when == "no" else ()),
    )


def _saving(args: Args) -> Case:
    when = args.values["save_strategy"]
    if when == "steps":
        return _NOTHING
    names = ("save_total_limit", "save_only_model", "save_on_each_node", "save_safetensors") if when == "no" else ()
    return f"--save_strategy {when}", ("save_steps", *names)


def _pushing(args: Args) -> Case:
    nothing = args.values["save_strategy"] == "no"
    return ("--save_strategy no", ("push_to_hub",)) if nothing else _NOTHING


def _curves(args: Args) -> Case:
    trackers = args.values["report_to"]
    if {"tensorboard", "all"} & set(trackers):
        return _NOTHING
    return f"--report_to {' '.join(trackers) or 'none'}", ("logging_dir",)


def _start(args: Args) -> Case:
    if args.values["resume_only_model"]:
        return "--resume_only_model true", ("ignore_data_skip",)
    return _NOTHING if args.values["resume_from_checkpoint"] else ("a run from its start", ("ignore_data_skip",))


def _names(args: Args) -> Case:
    named = (*args.values["dataset"], *args.values["val_dataset"])
    taught = args.values["self_cognition_sample"] or any("self-cognition" in str(name) for name in named)
    return _NOTHING if taught else ("a run without self-cognition rows", ("model_name", "model_author"))


def _length(args: Args) -> Case:
    return ("a run with --max_steps", ("num_train_epochs",)) if args.values["max_steps"] > 0 else _NOTHING


def _warmup(args: Args) -> Case:
    schedule = args.values["lr_scheduler_type"]
    if schedule in WITHOUT_WARMUP:
        return f"--lr_scheduler_type {schedule}", ("warmup_ratio", "warmup_steps")
    return ("a run with --warmup_steps", ("warmup_ratio",)) if args.values["warmup_steps"] else _NOTHING


def _optimizer(args: Args) -> Case:
    name = str(args.values["optim"])
    if "lion" in name:
        return f"--optim {name}", ADAM[2:]
    return (f"--optim {name}", ADAM) if name.startswith(NOT_ADAM) else _NOTHING


def _mixing(args: Args) -> Case:
    ratio = args.values["train_dataset_mix_ratio"]
    return _NOTHING if ratio else ("--train_dataset_mix_ratio 0", ("train_dataset_mix_ds",))


def _targets(args: Args) -> Case:
    return ("a run with --target_regex", ("target_modules",)) if args.values["target_regex"] else _NOTHING


def _backend(args: Args) -> Case:
    idle = args.values["sft_type"] == "full" and args.values["tuner_backend"] != "unsloth"
    return ("--sft_type full", ("tuner_backend",)) if idle else _NOTHING


def _answering(args: Args) -> Case:
    """A run answers in its evaluation, for people to read, or to learn from it."""
    values = args.values
    samples = values.get(SAMPLES, 0)
    if args.command == "rlhf":
        algorithm = ALGORITHMS[values["rlhf_type"]]
        samples = samples if SAMPLES in algorithm.flags else int("local_rollout_forward_batch_size" in algorithm.flags)
    shows = samples or (samples is None and not 0 < values["max_steps"] < SHORT)
    return _NOTHING if shows or values["predict_with_generate"] else ("a run that answers nothing", ANSWERS)


def _loading(args: Args) -> Case:
    """Flags of one library beside another, and a library beside no bits at all."""
    method, bits = args.values["quant_method"], args.values["quantization_bit"]
    if bits == 0 and args.is_explicit("quantization_bit"):
        return "--quantization_bit 0", ("quant_method",)
    return f"--quant_method {method or 'bnb'}", _QUANT[len(_BNB) :] if method in (None, "bnb") else _BNB


def _limit(args: Args) -> Case:
    limit = args.values["max_length"]
    return _NOTHING if limit is not None and limit > 0 else ("a command without --max_length", ("truncation_strategy",))


def _folder(args: Args) -> Case:
    names = ("load_args_from_ckpt_dir", "merge_device_map", "save_safetensors")
    return _NOTHING if args.values["ckpt_dir"] else ("a run without --ckpt_dir", names)


def _reward_model(args: Args) -> Case:
    named = args.command != "rlhf" or args.values["reward_model_id_or_path"]
    return _NOTHING if named else ("a run without --reward_model_id_or_path", ("reward_model_revision",))


def _merging(args: Args) -> Case:
    wanted = args.values["merge_lora"] or (args.values.get("to_ollama") or args.values.get("to_gguf"))
    return _NOTHING if wanted else ("--merge_lora false", ("merge_device_map", "save_safetensors"))


def _talking(args: Args) -> Case:
    named = ("dataset", "val_dataset", "custom_train_dataset_path", "custom_val_dataset_path", "self_cognition_sample")
    rows, human = any(args.values[name] for name in named), args.values["eval_human"]
    if human or (human is None and not rows):
        return "a chat", ("verbose", *_CHAT, *_ROWS)
    if not args.values["val_dataset"]:
        return _NOTHING
    sampled = any("#" in str(name) for name in args.values["val_dataset"]) or args.values["val_dataset_sample"]
    seed = () if sampled else ("dataset_seed",)
    return "a run with --val_dataset", ("dataset", "dataset_test_ratio", *seed)


def _handing_over(args: Args) -> Case:
    """Only a Modelfile says how answers are sampled."""
    names = (*ANSWERS, "stop_words", "max_model_len")
    return _NOTHING if args.values["to_ollama"] else ("--to_ollama false", names)


def _converting(args: Args) -> Case:
    if args.values["to_gguf"]:
        return _NOTHING
    names = ("gguf_output_dir",) if args.values["to_ollama"] else ("gguf_output_dir", "gguf_min_agreement")
    return "an export without --to_gguf", names


def _calibrating(args: Args) -> Case:
    if not args.values["quant_bits"]:
        return "--quant_bits 0", ("quant_method", *_CHAT, *_ROWS, *_LENGTH)
    bnb = args.values["quant_method"] == "bnb"
    return ("--quant_method bnb", ("quant_n_samples", "quant_batch_size")) if bnb else _NOTHING


def _cutting(args: Args) -> Case:
    """Rows that quantization calibrates on have a length of their own, and so has the part of them it holds back."""
    return ("--quant_bits", ("dataset_test_ratio", *_LENGTH)) if args.values["quant_bits"] else _NOTHING


def _moving(args: Args) -> Case:
    """An adapter that is converted and a folder that is pushed stay what they are."""
    if args.values["merge_lora"] or args.values["quant_bits"] or args.values["to_ollama"] or args.values["to_gguf"]:
        return _NOTHING
    placing = ("use_flash_attn", "device_map_config", "device_max_memory")
    loading = () if args.values["to_peft_format"] else ("dtype", "rope_scaling", "model_kwargs", *placing)
    return "an export that makes no other weights", (*_PROMPT, *loading)


def _asking(args: Args) -> Case:
    if args.values["eval_url"]:
        names = ("ckpt_dir", "load_args_from_ckpt_dir", "merge_lora", "merge_device_map", "model_id_or_path", "dtype")
        model = ("use_flash_attn", "rope_scaling", "device_map_config", "device_max_memory", "quantization_bit")
        rest = (*_ENGINE, "quant_method", *_QUANT, *_VLLM, *_LMDEPLOY, *_LENGTH, *_PROMPT, "eval_batch_size")
        return "--eval_url", (*names, *model, *rest)
    return "an evaluation without --eval_url", ("eval_token", "eval_is_chat_model", "deploy_timeout", "eval_nproc")


_TRAINING_CASES: tuple[Callable[[Args], Case], ...] = (
    *(_stream, _validation, _evaluation, _saving, _pushing, _curves, _start, _names, _length, _warmup, _optimizer),
    *(_mixing, _targets, _backend, _answering, _loading, _reward_model),
)
_OTHER_CASES: Mapping[str, tuple[Callable[[Args], Case], ...]] = MappingProxyType(
    {
        "infer": (_talking, _names, _limit, _folder, _merging, _loading),
        "deploy": (_limit, _folder, _merging, _loading),
        "app-ui": (_limit, _folder, _merging, _loading),
        "eval": (_asking, _limit, _folder, _merging, _loading),
        "export": (_handing_over, _converting, _calibrating, _cutting, _moving, _folder, _merging),
    }
)
