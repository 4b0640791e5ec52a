"""What flags say together: small functions, each finds one mistake. `--print_config` skips them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

from swift.core.did_you_mean import nearby
from swift.core.errors import SwiftError
from swift.params.alignment import RULES as ALIGNMENT
from swift.params.args import Args
from swift.params.commands import COMMANDS
from swift.params.flag import Exists, Json
from swift.params.optimizers import OF_EVALUATIONS
from swift.params.optimizers import RULES as OPTIMIZERS

TRAINING = ("sft", "pt", "rlhf")
Mistakes = Iterator[SwiftError]


def check(args: Args, *, unsure: bool = False) -> list[SwiftError]:
    """Every mistake found; with `unsure` (other words could not be read) nothing is said to be missing."""
    rules = _RULES if unsure else (*_MISSING, *_RULES)
    return [mistake for rule in rules for mistake in rule(args)]


def a_model_is_given(args: Args) -> Mistakes:
    if args.command == "web-ui" or args.values.get("eval_url"):
        return
    known = (
        ("model_type", "model_id_or_path")
        if args.command in TRAINING
        else ("model_type", "model_id_or_path", "ckpt_dir", "gguf_file")
    )
    if any(args.values.get(name) for name in known):
        return
    add = "--model_id_or_path ID-OR-FOLDER" + ("" if args.command in TRAINING else " or --ckpt_dir CHECKPOINT")
    yield SwiftError("no model is given", next=f"add {add}")


def training_has_rows(args: Args) -> Mistakes:
    sources = ("dataset", "custom_train_dataset_path", "self_cognition_sample")
    if args.command in TRAINING and not any(args.values[name] for name in sources):
        yield SwiftError("no rows to train on", next="add --dataset NAME-OR-FILE")


def merging_has_a_checkpoint(args: Args) -> Mistakes:
    if (args.command == "merge-lora" or args.values.get("merge_lora")) and not args.values["ckpt_dir"]:
        yield SwiftError("there is no adapter to merge", next="add --ckpt_dir CHECKPOINT")


def checkpoints_exist(args: Args) -> Mistakes:
    for name in ("ckpt_dir", "resume_from_checkpoint"):
        folder = os.path.expanduser(args.values.get(name) or "")
        if folder and not (name == "resume_from_checkpoint" and folder == "auto") and not os.path.isdir(folder):
            yield SwiftError(f"--{name} {folder} is not a folder", next=nearby(folder))


def files_exist(args: Args) -> Mistakes:
    for name, flag in COMMANDS[args.command].flags.items():
        value, wanted = args.values[name], flag.marker(Exists)
        if not args.is_explicit(name):
            continue
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, str) and wanted is not None and not _is_there(path, wanted.kind):
                yield SwiftError(f"--{name} {path} is not a {wanted.kind}", next=nearby(path))
        if not isinstance(value, str):
            continue
        as_json = flag.marker(Json)
        if as_json is not None and value not in as_json.names and value.lstrip()[:1] not in ("{", "[", ""):
            yield from _json_file(name, value, as_json.names)


def _is_there(value: str, kind: str) -> bool:
    tests = {"file": os.path.isfile, "folder": os.path.isdir, "path": os.path.exists}
    return tests[kind](os.path.expanduser(value) if kind == "folder" else value)


def _json_file(name: str, value: str, names: tuple[str, ...]) -> Mistakes:
    from swift.core.strict_json import read_json

    if not os.path.isfile(value):
        known = f"a JSON file, JSON text or {', '.join(names)}" if names else "a JSON file or JSON text"
        yield SwiftError(f"--{name} {value} is not a file", next=f"give {known}")
        return
    try:
        with open(value, encoding="utf-8") as file:
            read_json(file.read())
    except OSError as error:
        yield SwiftError(f"--{name} {value} cannot be read: {error.strerror}")
    except ValueError as error:
        yield SwiftError(f"--{name} {value} is not valid JSON: {error}")


def adapters_do_not_freeze(args: Args) -> Mistakes:
    sft_type = args.values.get("sft_type")
    if args.command not in TRAINING or sft_type == "full":
        return
    for name in ("freeze_parameters", "freeze_parameters_ratio", "additional_trainable_parameters"):
        if args.changed(name):
            yield SwiftError(f"--{name} works with full tuning only, not with {sft_type}", next="add --sft_type full")


def lora_variants_need_lora(args: Args) -> Mistakes:
    sft_type = args.values.get("sft_type")
    if args.command not in TRAINING or sft_type in ("lora", "longlora"):
        return
    for name in ("use_dora", "use_rslora", "lora_lr_ratio"):
        if args.changed(name):
            yield SwiftError(f"--{name} works with LoRA only, not with {sft_type}", next="add --sft_type lora")


def longlora_learns_from_texts(args: Args) -> Mistakes:
    if args.command == "rlhf" and args.values["sft_type"] == "longlora":
        yield SwiftError(
            "--sft_type longlora works with swift sft and swift pt",
            why="the reference of swift rlhf would attend to more than the model that is compared with it",
            next="use --sft_type lora",
        )


def streaming_has_an_end(args: Args) -> Mistakes:
    if args.values.get("streaming") and args.values["max_steps"] < 1:
        yield SwiftError("a stream has no length, so the run has no end", next="add --max_steps N")


def streams_are_read_in_order(args: Args) -> Mistakes:
    if not args.values.get("streaming"):
        return
    if args.values.get("rehearse"):
        yield SwiftError("--rehearse looks for the longest rows, which a stream cannot", next="drop one of the two")
    if args.values.get("test_oom_error"):
        yield SwiftError("--test_oom_error sorts the rows, which a stream cannot", next="drop one of the two")
    if args.values.get("dataloader_num_workers"):
        yield SwiftError(
            "--streaming true works with --dataloader_num_workers 0 only",
            why="a resumed run has to know how far the stream was read",
        )


def micro_batching_is_a_way_or_a_size(args: Args) -> Mistakes:
    value = str(args.values.get("micro_batching", "auto"))
    if value not in ("auto", "said") and not re.fullmatch(r"[1-9]\d*", value):
        yield SwiftError(
            f"--micro_batching takes auto, said or a number of tokens, not {value}",
            next="leave it out for --batch_size rows each",
        )


def rehearsals_know_the_rows(args: Args) -> Mistakes:
    if args.values.get("rehearse") and args.values.get("lazy_tokenize"):
        yield SwiftError("--rehearse needs the lengths of all rows", next="drop --lazy_tokenize true")


def weights_alone_come_from_a_checkpoint(args: Args) -> Mistakes:
    if args.values.get("resume_only_model") and not args.values["resume_from_checkpoint"]:
        yield SwiftError(
            "--resume_only_model has nothing to take the weights from",
            next="add --resume_from_checkpoint with a checkpoint folder",
        )


def the_lowest_rate_is_that_of_a_cosine(args: Args) -> Mistakes:
    schedule = args.values.get("lr_scheduler_type")
    if args.values.get("min_lr") is not None and schedule != "cosine":
        yield SwiftError(f"--min_lr goes with --lr_scheduler_type cosine, not {schedule}", next="drop one of the two")


def answers_are_generated_in_evaluation(args: Args) -> Mistakes:
    if args.values.get("evaluation_strategy") != "no":
        return
    flags = {"--predict_with_generate": args.values["predict_with_generate"]}
    schedule = args.values["lr_scheduler_type"]
    flags[f"--lr_scheduler_type {schedule}"] = schedule in OF_EVALUATIONS
    for flag, given in flags.items():
        if given:
            yield SwiftError(f"{flag} evaluates, but --evaluation_strategy is no", next="drop one of the two")


def self_cognition_has_names(args: Args) -> Mistakes:
    if args.command not in TRAINING:
        return
    names = [re.split("[#:]", str(name).rpartition("::")[2])[0] for name in args.values["dataset"]]
    if "self-cognition" not in names and not args.values["self_cognition_sample"]:
        return
    for flag, example in (("model_name", "小柏 Juniper"), ("model_author", "艾克米实验室 'Acme Lab'")):
        if not any(args.values[flag]):
            yield SwiftError(f"self-cognition rows need --{flag}", next=f"e.g. --{flag} {example}")


def names_are_two_at_most(args: Args) -> Mistakes:
    for flag in ("model_name", "model_author"):
        if len(args.values.get(flag, ())) > 2:
            yield SwiftError(
                f"--{flag} takes a Chinese and an English name, not {len(args.values[flag])}",
                next="quote a name that holds blanks",
            )


def lora_starts_in_a_known_way(args: Args) -> Mistakes:
    start = str(args.values.get("init_lora_weights", "true")).lower()
    words = ("true", "false", "gaussian", "pissa", "olora", "loftq")
    # The 2.5 release spelled gaussian wrong.
    if start not in (*words, "guassian") and not re.fullmatch(r"pissa_niter_[1-9]\d*", start):
        yield SwiftError(f"--init_lora_weights does not take `{start}`, but {', '.join(words)} or pissa_niter_N")


def boft_counts_blocks_or_their_size(args: Args) -> Mistakes:
    if args.values.get("boft_block_num") and args.changed("boft_block_size") and args.values["boft_block_size"]:
        yield SwiftError("--boft_block_num and --boft_block_size exclude each other", next="give one of them")


def lora_modules_have_names(args: Args) -> Mistakes:
    for item in args.values.get("lora_modules", ()):
        name, equals, path = str(item).partition("=")
        if not (name and equals and path):
            yield SwiftError(
                f"--lora_modules {item} is not NAME=FOLDER", next="e.g. --lora_modules math=output/checkpoint-9"
            )


def one_model_answers(args: Args) -> Mistakes:
    named = args.values.get("lora_modules", ())
    if args.command in ("infer", "eval") and named:
        folder = str(named[0]).partition("=")[2] or "FOLDER"
        yield SwiftError(
            f"swift {args.command} asks one model, and --lora_modules names adapters to choose among",
            next=f"--ckpt_dir {folder} asks that one; swift deploy and swift app-ui switch",
        )


def frozen_parameters_are_names(args: Args) -> Mistakes:
    for item in args.values.get("freeze_parameters", ()):
        if re.fullmatch(r"[01]?\.?\d*", item):
            yield SwiftError(
                f"--freeze_parameters takes beginnings of names, not {item}",
                next=f"--freeze_parameters_ratio {item} freezes that share",
            )


def tls_has_both_files(args: Args) -> Mistakes:
    pair = ("ssl_keyfile", "ssl_certfile")
    given = [name for name in pair if args.values.get(name)]
    if len(given) == 1:
        other = pair[1 - pair.index(given[0])]
        yield SwiftError(f"--{given[0]} needs --{other} too")


def a_public_address_is_whole(args: Args) -> Mistakes:
    given = args.values.get("public_url")
    if given and not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", given):
        yield SwiftError(f"--public_url {given} is no address", next="--public_url https://HOST/PATH")


def hub_pushes_have_a_name(args: Args) -> Mistakes:
    if args.command == "export" and args.values["push_to_hub"] and not args.values["hub_model_id"]:
        yield SwiftError("--push_to_hub needs a repository", next="add --hub_model_id USER/NAME")


def exports_quantize_by_flags_of_their_own(args: Args) -> Mistakes:
    bits = args.values.get("quantization_bit")
    if args.command == "export" and bits and args.is_explicit("quantization_bit"):
        yield SwiftError(
            f"--quantization_bit {bits} quantizes a model while it loads, and writes nothing",
            next="--quant_bits 4 or 8 writes a quantized model, --to_gguf q4_0 or q8_0 a GGUF file",
        )


def dataset_config_comes_from_a_checkpoint(args: Args) -> Mistakes:
    if not args.values.get("load_dataset_config"):
        return
    what = "--load_dataset_config reads the arguments of a checkpoint"
    if not args.values["ckpt_dir"]:
        yield SwiftError(what, next="add --ckpt_dir CHECKPOINT")
    elif not args.values["load_args_from_ckpt_dir"]:
        yield SwiftError(what, next="drop --load_args_from_ckpt_dir false")


_MISSING: tuple[Callable[[Args], Mistakes], ...] = (a_model_is_given, training_has_rows, merging_has_a_checkpoint)
_RULES: tuple[Callable[[Args], Mistakes], ...] = (
    checkpoints_exist,
    files_exist,
    adapters_do_not_freeze,
    lora_variants_need_lora,
    longlora_learns_from_texts,
    streaming_has_an_end,
    streams_are_read_in_order,
    micro_batching_is_a_way_or_a_size,
    rehearsals_know_the_rows,
    weights_alone_come_from_a_checkpoint,
    the_lowest_rate_is_that_of_a_cosine,
    answers_are_generated_in_evaluation,
    self_cognition_has_names,
    names_are_two_at_most,
    lora_starts_in_a_known_way,
    boft_counts_blocks_or_their_size,
    lora_modules_have_names,
    one_model_answers,
    frozen_parameters_are_names,
    tls_has_both_files,
    a_public_address_is_whole,
    hub_pushes_have_a_name,
    exports_quantize_by_flags_of_their_own,
    dataset_config_comes_from_a_checkpoint,
    *ALIGNMENT,
    *OPTIMIZERS,
)
