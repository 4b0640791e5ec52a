"""Which rows, how many of them, and what may go wrong with them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from swift.params.flag import Basic, Deprecated, Json, OneOf, Ours, Range, Saved, Text
from swift.params.frozen import Frozen


class Data(Frozen):
    """The rows."""

    dataset: Annotated[tuple[str, ...], Basic(), OneOf("datasets"), Saved("data")] = ()
    """Rows to work on: names, hub ids or files, written [HF::|MS::]NAME[:SUBSET/SUBSET][#ROWS]."""
    val_dataset: Annotated[tuple[str, ...], Basic(), OneOf("datasets"), Saved("data")] = ()
    """Rows to validate on, written like dataset; nothing is then split off from dataset."""
    dataset_test_ratio: Annotated[float, Range(0, 1), Saved("data")] = 0.01
    """Share of each dataset that is held back for validation; without effect when val_dataset is given."""
    dataset_seed: Annotated[int | None, Range(0, 2**32 - 1), Saved("data")] = None
    """Seed of sampling, splitting and shuffling rows; None takes seed."""
    check_dataset_strategy: Annotated[Literal["none", "warning", "discard", "error"], Saved("data")] = "none"
    """What to do about rows with wrong types: nothing, warn, discard the row, or stop."""
    columns: Annotated[str | dict[str, Any] | None, Ours(), Json(), Saved("data")] = None
    """What columns are called in the formats that are known, for the rows of all data sets: {"Question": "query",
    "Answer": "response"}; `-` leaves a column out."""
    custom_dataset_info: Annotated[str | dict[str, Any] | None, Json(), Saved("model")] = None
    """Further datasets: a dataset_info.json file or JSON text."""
    model_name: Annotated[tuple[str | None, ...], Basic(), Text(), Saved("data")] = (None, None)
    """The model's new name in Chinese and English; self-cognition rows teach it."""
    model_author: Annotated[tuple[str | None, ...], Basic(), Text(), Saved("data")] = (None, None)
    """Its author's name in Chinese and English; self-cognition rows teach it."""
    lazy_tokenize: Annotated[bool | None, Basic()] = None
    """Keep no tokens in memory or on disk: rows are measured before training and encoded again when needed (true), or
    encoded once and kept (false). None means kept, except for multimodal models."""
    preprocess_num_proc: Annotated[int, Basic(), Range(1)] = 1
    """Processes that read and encode rows."""
    packing: bool = False
    """Fill each sequence of max_length with several rows; they do not see each other."""
    streaming: bool = False
    """Read rows as they are needed instead of all at first; needs max_steps."""
    streaming_val_size: Annotated[int, Range(0)] = 0
    """Rows of a stream that are held back for validation."""
    streaming_buffer_size: Annotated[int, Range(1)] = 16384
    """Rows a stream shuffles at a time."""
    max_drop_ratio: Annotated[float, Ours(), Range(0, 1)] = 0.5
    """Stop before training when more than this share of the rows was dropped."""
    max_rewritten_ratio: Annotated[float, Ours(), Range(0, 1)] = 0.05
    """Stop before training when the chat template loses text of the answers of more than this share of the rows."""
    strict: Annotated[bool, Ours()] = False
    """Stop at the first row that cannot be used, instead of dropping it and going on."""
    no_cache: Annotated[bool, Ours()] = False
    """Encode every row anew instead of reusing what an earlier run encoded."""
    cache_dir: Annotated[str | None, Ours()] = None
    """Where encoded rows are kept between runs; None means the user cache folder."""
    train_dataset_sample: Annotated[int, Deprecated("dataset NAME#N"), Range(1, also=(-1,)), Saved("data")] = -1
    """Rows to train on, -1 for all."""
    val_dataset_sample: Annotated[int | None, Deprecated("val_dataset NAME#N"), Range(1, also=(-1,)), Saved("data")] = (
        None
    )
    """Rows to validate on, -1 for all."""
    custom_train_dataset_path: Annotated[tuple[str, ...], Deprecated("dataset")] = ()
    """Files to train on."""
    custom_val_dataset_path: Annotated[tuple[str, ...], Deprecated("val_dataset")] = ()
    """Files to validate on."""
    self_cognition_sample: Annotated[int, Deprecated("dataset self-cognition#N"), Range(0), Saved("data")] = 0
    """Rows of the self-cognition dataset to add."""
    train_dataset_mix_ratio: Annotated[float, Deprecated("dataset"), Range(0)] = 0.0
    """Rows of train_dataset_mix_ds to add, as a multiple of the rows of dataset."""
    train_dataset_mix_ds: Annotated[tuple[str, ...], Deprecated("dataset")] = ("ms-bench",)
    """Datasets to mix in."""
