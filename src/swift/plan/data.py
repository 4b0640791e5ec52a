"""Which rows a run reads, how many of each data set, and on which road they become tokens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from swift.catalog import Catalog, DatasetEntry
from swift.core.environment import cache_home
from swift.core.errors import SwiftError, raise_together
from swift.core.hubs import Source, default_hub
from swift.params.args import Args
from swift.params.groups import Data, Hub, Prompt, Rlhf
from swift.plan.json_flag import json_mapping
from swift.plan.methods import METHODS, Kind, method_name

Rounds = Literal["last", "all"]
Mode = Literal["eager", "lazy", "streaming"]
Check = Literal["none", "discard", "error", "warning"]

HUB_PREFIX: dict[str, Source] = {"hf": "huggingface", "ms": "modelscope"}
SELF_COGNITION = "self-cognition"
FILE_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
"""Files of rows, by their name; each may be compressed, with one of `COMPRESSED` behind it."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class DatasetSpec:
    """One data set as the user named it: `[HF::|MS::]name-or-id-or-path[:subset/subset][#sample]`."""

    text: str
    name: str
    hub: Source
    subsets: tuple[str, ...] | None = None
    sample: int = -1
    """Rows to use; -1 is all of them, more than there are repeats them."""
    entry: DatasetEntry | None = None
    """The registered data set behind the name, if it is one."""


@dataclass(frozen=True)
class DataPlan:
    """Everything `swift.data.build` needs to know."""

    train: tuple[DatasetSpec, ...]
    val: tuple[DatasetSpec, ...]
    kind: Kind
    rounds: Rounds
    """Which answers of a preference are trained: ORPO trains them all."""
    mode: Mode
    test_ratio: float
    seed: int
    num_proc: int
    packing: bool
    max_length: int | None
    check: Check
    strict: bool
    max_drop_ratio: float
    max_rewritten_ratio: float
    keeps_tokens: bool
    """Whether `--lazy_tokenize false` was said."""
    cache: Path | None
    """Folder of the token cache; None switches it off."""
    buffer_size: int
    """Rows in the shuffle buffer of a stream; 0 or 1 keeps the order."""
    stream_val_size: int
    train_sample: int = -1
    val_sample: int | None = None
    mix: tuple[DatasetSpec, ...] = ()
    mix_ratio: float = 0.0
    """Rows of `mix` to add, as a multiple of the training rows (the deprecated `train_dataset_mix_ratio`)."""
    self_names: tuple[str, str] | None = None
    """Chinese and English name of the model, for self-cognition rows."""
    self_authors: tuple[str, str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """What the columns of all data sets are to be called, old to new; `-` leaves one out."""
    token: str | None = None
    plain_text: bool = False
    """Rows are meant to be text without turns, as in pre-training."""
    media: Path | None = None
    """Folder for pictures, videos and sounds of the rows; None leaves them out, and nothing of them is fetched."""
    pixels: Path | None = None
    """Folder of decoded images and frames; None decodes them each time."""


def plan_data(args: Args, catalog: Catalog, *, multimodal: bool = False, media: bool = False) -> DataPlan:
    """Decide the data side of a run from what was said. Raises SwiftError for data sets that cannot be found."""
    data = args[Data]
    kind = _kind(args)
    train, val, mix, problems = _datasets(data, catalog)
    names, authors = _pair(data.model_name), _pair(data.model_author)
    if any(is_self_cognition(spec) for spec in (*train, *val)) and not (names and authors):
        problems.append(_names_missing(names, authors))
    raise_together(problems)

    max_length = args[Prompt].max_length
    seed = data.dataset_seed if data.dataset_seed is not None else args.values.get("seed", 42)
    return DataPlan(
        train=train,
        val=val,
        kind=kind,
        rounds="all" if kind == "pairs" and args[Rlhf].rlhf_type == "orpo" else "last",
        mode=_mode(data, multimodal),
        test_ratio=0.0 if val or (kind == "prompt" and args.command == "rlhf") else data.dataset_test_ratio,
        seed=seed,
        num_proc=max(1, data.preprocess_num_proc),
        packing=data.packing,
        max_length=None if max_length is None or max_length < 0 else max_length,
        check=data.check_dataset_strategy,
        strict=data.strict,
        max_drop_ratio=data.max_drop_ratio,
        max_rewritten_ratio=data.max_rewritten_ratio,
        keeps_tokens=data.lazy_tokenize is False,
        cache=None if data.no_cache else Path(data.cache_dir) if data.cache_dir else default_cache(),
        pixels=None if data.no_cache else default_pixels(Path(data.cache_dir) if data.cache_dir else default_cache()),
        buffer_size=data.streaming_buffer_size,
        stream_val_size=data.streaming_val_size,
        train_sample=data.train_dataset_sample,
        val_sample=data.val_dataset_sample,
        mix=mix,
        mix_ratio=data.train_dataset_mix_ratio or 0.0,
        self_names=names,
        self_authors=authors,
        columns=_columns(data.columns),
        token=args[Hub].hub_token,
        plain_text=args.command == "pt",
        media=default_media() if media else None,
    )


def default_cache() -> Path:
    """The token cache of this user: `$XDG_CACHE_HOME/swift/tokens`, else `~/.cache/swift/tokens`."""
    return cache_home() / "tokens"


def default_pixels(cache: Path) -> Path:
    """The pixel cache, beside a token cache."""
    return cache.with_name(f"{cache.name}-pixels") if cache != default_cache() else cache_home() / "pixels"


def default_media() -> Path:
    """Where unpacked archives and the pictures of rows are kept, beside the token cache."""
    return cache_home() / "media"


def parse_dataset(text: str, *, hf: bool | None = None, exists: Callable[[str], bool] = os.path.exists) -> DatasetSpec:
    """Read the data set syntax. A file that exists keeps `#` and `:` in its name.

    `hf` is the hub of names without a prefix (None asks `USE_HF`). Raises SwiftError for an unknown hub prefix, an
    empty name and a sample that is no number.
    """
    rest = text.strip()
    hub: Source = default_hub() if hf is None else "huggingface" if hf else "modelscope"
    prefix, mark, after = rest.partition("::")
    if mark and not exists(rest):
        if prefix.lower() not in HUB_PREFIX:
            raise SwiftError(f"{prefix + '::'!r} is not a hub", where=f"--dataset {text}", next="write HF::… or MS::…")
        hub, rest = HUB_PREFIX[prefix.lower()], after
    rest, sample = _split_sample(rest, text, exists)
    name, subsets = rest, None
    if not exists(rest) and ":" in rest:
        name, _, listed = rest.partition(":")
        subsets = tuple(part.strip() for part in listed.split("/"))
    name = name.strip()
    if not name:
        raise SwiftError("the data set has no name", where=f"--dataset {text!r}")
    return DatasetSpec(text.strip(), name, "local" if exists(name) else hub, subsets, sample)


def _split_sample(rest: str, text: str, exists: Callable[[str], bool]) -> tuple[str, int]:
    if exists(rest) or "#" not in rest:
        return rest, -1
    name, _, count = rest.rpartition("#")
    try:
        rows = int(count)
    except ValueError:
        rows = -2
    if rows < -1:  # -1 stands for all
        raise SwiftError(
            f"{count!r} after # is not a number of rows", where=f"--dataset {text}", next=f"write {name}#500"
        )
    return name, rows


def resolve(spec: DatasetSpec, catalog: Catalog) -> DatasetSpec:
    """The spec with the registered entry behind its name or hub id, if any. Raises SwiftError for a name of nothing."""
    if spec.hub == "local":
        return spec
    if spec.name in catalog.datasets:
        return replace(spec, entry=catalog.datasets.get(spec.name))
    for name in catalog.datasets:
        entry = catalog.datasets.get(name)
        if spec.name == (entry.hf if spec.hub == "huggingface" else entry.ms):
            return replace(spec, entry=entry)
    if _looks_like_path(spec.name):
        raise SwiftError(f"no such file: {spec.name}", where=f"--dataset {spec.text}", next="check the path")
    if "/" not in spec.name:
        catalog.datasets.get(spec.name)
    return spec


def is_self_cognition(spec: DatasetSpec) -> bool:
    """Whether the rows are the shipped ones that teach a model its name."""
    return spec.entry is not None and spec.entry.name == SELF_COGNITION


def without_compression(name: str) -> str:
    """The name of a file without the ending that says how it is compressed."""
    return next((name.removesuffix(ending) for ending in COMPRESSED if name.endswith(ending)), name)


def _looks_like_path(name: str) -> bool:
    ends_as_file = name.endswith((*FILE_SUFFIXES, *COMPRESSED))
    return name.startswith(("/", "./", "../", "~")) or ends_as_file or name.count("/") > 1


def _datasets(
    data: Data, catalog: Catalog
) -> tuple[tuple[DatasetSpec, ...], tuple[DatasetSpec, ...], tuple[DatasetSpec, ...], list[SwiftError]]:
    """Training, validation and mixed-in data sets, deprecated spellings included."""
    problems: list[SwiftError] = []

    def resolved(texts: Iterable[str]) -> tuple[DatasetSpec, ...]:
        specs = []
        for text in texts:
            try:
                specs.append(resolve(parse_dataset(text), catalog))
            except SwiftError as problem:
                problems.append(problem)
        return tuple(specs)

    train = [*data.dataset, *data.custom_train_dataset_path]
    if data.self_cognition_sample > 0:
        train.append(f"self-cognition#{data.self_cognition_sample}")
    mixed = data.train_dataset_mix_ds if data.train_dataset_mix_ratio else []
    return resolved(train), resolved([*data.val_dataset, *data.custom_val_dataset_path]), resolved(mixed), problems


def _kind(args: Args) -> Kind:
    name = method_name(args)
    if name in METHODS:
        return METHODS[name].kind
    return "prompt" if name in ("infer", "app-ui", "deploy", "eval") else "chat"


def _mode(data: Data, multimodal: bool) -> Mode:
    """A stream when asked for; otherwise lazy for multimodal templates unless `lazy_tokenize` says so itself."""
    if data.streaming:
        return "streaming"
    lazy = multimodal if data.lazy_tokenize is None else data.lazy_tokenize
    return "lazy" if lazy else "eager"


def _columns(value: str | Mapping[str, Any] | None) -> Mapping[str, str]:
    """The value of `--columns`. Raises SwiftError when it does not name columns, or loses one of them."""
    given = json_mapping(value, "--columns")
    if not all(isinstance(new, str) and new for new in given.values()):
        raise SwiftError(
            f"{given!r} does not say what columns are to be called",
            where="--columns",
            next="""write --columns '{"Question": "query", "Answer": "response"}'""",
        )
    names = [new for new in given.values() if new != "-"]
    twice = next((new for new in names if names.count(new) > 1), None)
    if twice is not None:
        both = " and ".join(repr(old) for old, new in given.items() if new == twice)
        raise SwiftError(f"{both} cannot both become {twice!r}", where="--columns", next="leave one out with '-'")
    return given


def _pair(values: list[str | None] | tuple[str | None, ...] | None) -> tuple[str, str] | None:
    """Chinese and English form of a name; one value serves for both, none is None."""
    given = [value for value in values or () if value]
    if not given:
        return None
    return given[0], given[-1]


def _names_missing(names: tuple[str, str] | None, authors: tuple[str, str] | None) -> SwiftError:
    missing = [flag for flag, value in (("--model_name", names), ("--model_author", authors)) if not value]
    return SwiftError(
        f"self-cognition data needs {' and '.join(missing)}",
        where="--dataset self-cognition",
        next="add e.g. --model_name 小黄 'Xiao Huang' --model_author 魔搭 ModelScope",
    )
