"""What a surface that answers loads and how it answers: model, prompt, engine, sampling, rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, repeat
from pathlib import Path
from typing import Any, Literal

from swift.catalog import Catalog
from swift.core.errors import SwiftError, raise_together
from swift.core.log import log
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.checkpoint_args import adapter_kind, read_saved
from swift.params.groups import Checkpoint, Data, Generate, Infer, Lmdeploy, Vllm
from swift.plan.answer_dtype import Speedup, in_faster_dtype
from swift.plan.data import DataPlan, plan_data
from swift.plan.gguf import CONVERTED, GgufType, answering_type
from swift.plan.model import ModelPlan, is_adapter, newest_checkpoint, plan_model, read_config
from swift.plan.prompt import PromptPlan, plan_prompt
from swift.plan.quantization import check_stored
from swift.plan.reward_model import local_reward_model
from swift.plan.unread import check_configuration, say_unread_by_engine, stretches

Backend = Literal["pt", "vllm", "lmdeploy", "llamacpp"]
DEFAULT_LORA = "default-lora"
"""The name under which the adapter of `--ckpt_dir` is served."""
NOT_LORA = ("adapter", "reft")
"""Kinds of adapters that only our own engine knows."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids"), (None, [])),
    **dict.fromkeys(("sequence_bias", "exponential_decay_length_penalty", "watermarking_config"), (None, {}, [])),
    **dict.fromkeys(("stop_strings", "penalty_alpha"), (None, "", [], 0)),
    **dict.fromkeys(("min_length", "min_new_tokens", "no_repeat_ngram_size"), (None, 0)),
    **dict.fromkeys(("min_p", "top_h", "epsilon_cutoff", "eta_cutoff"), (None, 0)),
    **dict.fromkeys(("typical_p", "guidance_scale"), (None, 1)),
}
"""What transformers' `generate` follows in generation_config.json and no engine here does -> values without effect."""
BAR_FROM = 100
"""Rows from which on a progress bar replaces the printed answers, unless `--verbose` says otherwise."""


@dataclass(frozen=True, kw_only=True)
class EnginePlan:
    """Which engine answers, with which adapters."""

    backend: Backend
    adapters: tuple[tuple[str, Path], ...] = ()
    """Name and folder of each; the first is that of `--ckpt_dir` when it has one."""
    systems: Mapping[str, str | None] = field(default_factory=dict)
    """The system texts that adapters of `--lora_modules` were trained with, where the command line gives none."""
    layers: Path | None = None
    """Folder with layers of LLaMA-Pro, without those of the base, that go into the model for good."""
    merged: Path | None = None
    """The adapter of `--ckpt_dir` where the engine takes it merged only, so that it is none of `adapters`."""
    gguf_type: GgufType | None = "f16"
    """Of the file that llama.cpp answers from; None where the model came as one."""
    faster: str | None = None
    """An engine that is installed and faster here, where none was named."""
    vllm: Vllm
    memory_given: bool = False
    """Whether `--gpu_memory_utilization` was given."""
    lmdeploy: Lmdeploy
    max_logprobs: int = 20
    seed: int = 42

    def summary(self) -> str:
        """The engine, and a better one if there is one."""
        if self.backend == "llamacpp":
            file = f"GGUF {self.gguf_type}" if self.gguf_type else "the file as it is"
            return f"llamacpp, {file}" + (f", {self.merged} merged" if self.merged else "")
        hint = f" (--infer_backend {self.faster} is installed and faster on a CPU)" if self.faster else ""
        return self.backend + hint

    @property
    def default_adapter(self) -> str | None:
        """The adapter that answers when none is named: that of `--ckpt_dir`."""
        return DEFAULT_LORA if any(name == DEFAULT_LORA for name, _ in self.adapters) else None


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """How tokens are picked, decided from the flags and the model's generation_config.json. Temperature 0 is greedy."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    num_beams: int
    length_penalty: float
    stop_words: tuple[str, ...]

    def generation_config(self) -> dict[str, Any]:
        """The same as transformers writes it into generation_config.json."""
        sampled = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        return {
            "do_sample": self.temperature > 0,
            **(sampled if self.temperature > 0 else {}),
            "max_new_tokens": self.max_new_tokens,
            "repetition_penalty": self.repetition_penalty,
            "num_beams": self.num_beams,
        }


@dataclass(frozen=True, kw_only=True)
class RowsPlan:
    """The rows to answer and where the answers go."""

    data: DataPlan
    as_trained: bool
    """Choose among the rows that training could use, so that the validation rows are the ones it held back."""
    sample: int
    """Rows to answer, -1 for all."""
    verbose: bool | None


@dataclass(frozen=True, kw_only=True)
class InferPlan:
    """Everything `swift infer` does, decided before anything heavy is imported."""

    model: ModelPlan
    prompt: PromptPlan
    engine: EnginePlan
    generate: Generate
    rows: RowsPlan | None
    """None is a chat at the terminal."""
    stream: bool
    results: Path | None
    """Folder of the result file, None to keep none; the model's own folder is only known once it is fetched."""
    save: bool
    checkpoint: Path | None
    """The folder `--ckpt_dir` names, an adapter's or a whole model's."""
    overwrite_generation_config: bool
    seed: int
    first_seed: int | None
    """`--seed` where it was given: of the first answer to somebody who asks; each later one has the next."""

    def summary(self) -> str:
        """The plan in a few lines."""
        adapters = ", ".join(f"{name} ({folder})" for name, folder in self.engine.adapters)
        lines = [
            f"model:   {self.model.summary()}",
            f"prompt:  template {self.prompt.template_type}",
            f"engine:  {self.engine.summary()}" + (f", adapters: {adapters}" if adapters else ""),
            f"answers: at most {self.generate.max_new_tokens} tokens",
        ]
        if self.rows:
            specs = self.rows.data.val or self.rows.data.train
            lines.append("rows:    " + " ".join(spec.text for spec in specs))
        return "\n".join(lines)


def plan_infer(
    args: Args,
    catalog: Catalog,
    machine: Machine,
    *,
    answers_rows: bool = True,
    bf16_speedup: Speedup | None = None,
) -> InferPlan:
    """Decide everything that flags, checkpoint and machine settle; `--merge_lora` has been seen to before.

    A server and a page have no rows to answer (`answers_rows` False), whatever data sets their checkpoint carries.
    `bf16_speedup` measures, and is called only where its answer decides; without it a CPU answers in fp32, and a reward
    model always, as scores are compared with those of its evaluation.
    Raises SwiftError for what does not go together.
    """
    model = plan_model(_unquantized(args), catalog, machine)
    engine = plan_engine(args, model, machine)
    if engine.backend == "pt" and bf16_speedup is not None and not local_reward_model(model):
        model = in_faster_dtype(args, model, machine, bf16_speedup)
    settings, infer = args[Checkpoint], args[Infer]
    checkpoint = Path(settings.ckpt_dir).expanduser() if settings.ckpt_dir else None
    return InferPlan(
        model=model,
        prompt=plan_prompt(args, catalog, model.entry.template if model.entry else None),
        engine=engine,
        generate=args[Generate],
        rows=_rows(args, infer, catalog, model) if answers_rows else None,
        stream=infer.stream,
        results=_results(infer, checkpoint),
        save=infer.save_result,
        checkpoint=checkpoint,
        overwrite_generation_config=settings.overwrite_generation_config,
        seed=infer.seed,
        first_seed=infer.seed if args.is_explicit("seed") else None,
    )


def seeds(first: int | None) -> Iterator[int | None]:
    """The seed of each answer to somebody who asks; without a `first` one each draws by itself."""
    return repeat(None) if first is None else count(first)


def _unquantized(args: Args) -> Args:
    """llama.cpp quantizes the file, and not what it is made from."""
    if args[Infer].infer_backend != "llamacpp":
        return args
    return args.with_values(quantization_bit=0, quant_method=None)


def plan_engine(args: Args, model: ModelPlan, machine: Machine) -> EnginePlan:
    """The engine and its adapters. Raises SwiftError for an engine that cannot serve this model here."""
    infer = args[Infer]
    own = [] if model.adapter is None else [(DEFAULT_LORA, Path(model.adapter))]
    layers = next((folder for _, folder in own if adapter_kind(folder) == "llamapro"), None)
    adapters = (*(own if layers is None else []), *_lora_modules(infer.lora_modules))
    backend = _backend(args, model, machine, unmerged=bool(adapters) or layers is not None)
    merges = backend == "llamacpp"
    plan = EnginePlan(
        backend=backend,
        adapters=adapters[len(own) :] if merges and layers is None else adapters,
        systems={} if args.is_explicit("system") else _systems(adapters[len(own) :]),
        layers=layers,
        merged=own[0][1] if own and merges and layers is None else None,
        gguf_type=answering_type(args, model) if merges else "f16",
        faster=_faster(args, backend, model, machine),
        vllm=args[Vllm],
        memory_given=args.is_explicit("gpu_memory_utilization"),
        lmdeploy=args[Lmdeploy],
        max_logprobs=infer.max_logprobs,
        seed=infer.seed,
    )
    say_unread_by_engine(args, backend)
    check_configuration(model, backend)
    if plan.backend == "pt":
        check_stored(model.stored_quant, model.source, machine)
    ours = next((str(folder) for _, folder in adapters if adapter_kind(folder) in NOT_LORA), layers)
    if merges and plan.adapters:
        raise SwiftError(
            "llama.cpp serves one merged model here", where="--lora_modules", next="use --infer_backend pt"
        )
    if plan.backend != "pt" and ours is not None and not (merges and ours == layers):
        raise SwiftError(
            f"{plan.backend} cannot put {ours} on a model",
            where="--infer_backend",
            why=f"an adapter of the kind {adapter_kind(ours)} is no LoRA",
            next="use --infer_backend pt",
        )
    if plan.backend == "vllm" and adapters and not plan.vllm.vllm_enable_lora:
        raise SwiftError(
            "vLLM serves an unmerged adapter only when it is told to",
            where="--infer_backend vllm",
            next="add --vllm_enable_lora true, or --merge_lora true, or use --infer_backend pt",
        )
    return plan


def _backend(args: Args, model: ModelPlan, machine: Machine, *, unmerged: bool) -> Backend:
    """AUTO takes vLLM where it is installed and serves the model: no adapter, head, quantization, beam search or
    stretched positions."""
    backend = args[Infer].infer_backend
    if backend == "AUTO":
        served = model.entry is not None and model.entry.vllm
        plain = not (unmerged or local_reward_model(model)) and model.quant is None and args[Generate].num_beams == 1
        plain = plain and not stretches(model)
        return "vllm" if "vllm" in machine.packages and served and plain else "pt"
    if backend == "pt":
        return "pt"
    if backend == "llamacpp" and model.stored_quant is not None:
        raise SwiftError(
            f"{model.source} is quantized already ({model.stored_quant}), and makes no GGUF file",
            where="--infer_backend llamacpp",
            next="give the model in full precision, or use --infer_backend pt",
        )
    if model.quant is not None:
        raise SwiftError(
            f"{backend} does not quantize while it loads", where="--quantization_bit", next="use --infer_backend pt"
        )
    if args[Generate].num_beams > 1:
        raise SwiftError(f"{backend} does no beam search", where="--num_beams", next="use --infer_backend pt")
    return backend


def _faster(args: Args, backend: Backend, model: ModelPlan, machine: Machine) -> str | None:
    """llama.cpp where it is installed, a CPU answers, and the model's files say that it converts."""
    open_choice = args[Infer].infer_backend == "AUTO" and backend == "pt" and machine.device == "cpu"
    if not open_choice or "xllamacpp" not in machine.packages or model.hub != "local" or local_reward_model(model):
        return None
    converts = (read_config(Path(model.source)).get("architectures") or [""])[0] in CONVERTED
    return "llamacpp" if converts and not args[Infer].lora_modules and args[Generate].num_beams == 1 else None


def _systems(adapters: Sequence[tuple[str, Path]]) -> dict[str, str | None]:
    """The system text of each that says how it was trained."""
    saved = {name: read_saved(folder) for name, folder in adapters}
    return {name: values["system"] for name, values in saved.items() if "system" in values}


def _lora_modules(modules: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Name and folder of each NAME=FOLDER."""
    adapters: dict[str, Path] = {}
    errors: list[SwiftError] = []
    for text in modules:
        name, _, path = text.partition("=")
        folder = Path(path).expanduser()
        if not is_adapter(folder):
            inside = newest_checkpoint(folder) if path else None
            errors.append(
                SwiftError(
                    f"{folder} holds no adapter",
                    where=f"--lora_modules {text}",
                    next=f"--lora_modules {name}={inside}"
                    if inside
                    else "name a folder with adapter_config.json, such as OUTPUT/checkpoint-100",
                )
            )
        elif adapter_kind(folder) == "llamapro":
            errors.append(
                SwiftError(
                    f"{folder} holds layers that make the model deeper for all requests",
                    where=f"--lora_modules {text}",
                    next=f"--ckpt_dir {folder}, or swift merge-lora --ckpt_dir {folder} first",
                )
            )
        elif name == DEFAULT_LORA or name in adapters:
            taken = f"the adapter name {name} is taken"
            errors.append(SwiftError(taken, where=f"--lora_modules {text}", next="give each a name of its own"))
        adapters[name] = folder
    raise_together(errors)
    return list(adapters.items())


def _rows(args: Args, infer: Infer, catalog: Catalog, model: ModelPlan) -> RowsPlan | None:
    data = args[Data]
    named = (data.dataset, data.val_dataset, data.custom_train_dataset_path, data.custom_val_dataset_path)
    has_rows = any(named) or data.self_cognition_sample > 0
    human = not has_rows if infer.eval_human is None else infer.eval_human
    if human:
        return None
    if not has_rows:
        raise SwiftError(
            "--eval_human false has no rows to answer",
            where="--val_dataset",
            next="add --val_dataset FILE, or --load_dataset_config true for the rows training held back",
        )
    return RowsPlan(
        data=plan_data(args, catalog, media=_may_take_media(model)),
        as_trained=infer.load_dataset_config,
        sample=infer.show_dataset_sample,
        verbose=infer.verbose,
    )


def _may_take_media(model: ModelPlan) -> bool:
    """Whether rows may show the model something: True where only its hub knows."""
    if model.entry is not None:
        return model.entry.multimodal
    config = read_config(Path(model.source)) if model.hub == "local" else None
    return config is None or "vision_config" in config or "audio_config" in config


def _results(infer: Infer, checkpoint: Path | None) -> Path | None:
    if not infer.save_result:
        return None
    if infer.result_dir:
        return Path(infer.result_dir).expanduser()
    return checkpoint / "infer_result" if checkpoint else None


def plan_sampling(flags: Generate, own: Mapping[str, Any]) -> SamplingPlan:
    """Flags over the model's own generation_config.json (`own`), flag by flag.

    `--do_sample false` or temperature 0 is greedy; so is a model whose file does not ask for sampling, unless
    `--do_sample true` is given. A temperature given alone does not switch sampling on, as in the 2.5 release.
    """
    sample = own.get("do_sample", False) if flags.do_sample is None else flags.do_sample

    def value(flag: Any, name: str, default: Any) -> Any:
        return next((given for given in (flag, own.get(name)) if given is not None), default)

    temperature = float(value(flags.temperature, "temperature", 1.0))
    return SamplingPlan(
        max_new_tokens=flags.max_new_tokens,
        temperature=temperature if sample else 0.0,
        # transformers samples from the 50 likeliest where neither says a number.
        top_k=int(value(flags.top_k, "top_k", 50)),
        top_p=float(value(flags.top_p, "top_p", 1.0)),
        repetition_penalty=float(value(flags.repetition_penalty, "repetition_penalty", 1.0)),
        num_beams=flags.num_beams,
        length_penalty=float(own.get("length_penalty") or 1.0),
        stop_words=flags.stop_words,
    )


def say_greedy(flags: Generate, sampling: SamplingPlan, what: str = "answers") -> None:
    """Log the flags of sampling that were given values where the likeliest token is taken in any case."""
    given = {"temperature": flags.temperature, "top_k": flags.top_k, "top_p": flags.top_p}
    idle = [] if sampling.temperature > 0 else [f"--{name}" for name, value in given.items() if value]
    if idle:
        log.warning("%s take the likeliest token, whatever %s: --do_sample true samples", what, ", ".join(idle))


def not_followed(own: Mapping[str, Any]) -> list[str]:
    """What the model's generation_config.json (`own`) asks for beside the sampling, and nothing here does."""
    return [name for name, neutral in NEUTRAL.items() if own.get(name) not in neutral]
