"""The README.md of a model's folder: what a hub shows of it, and what whoever gets the folder has to know.

Its front matter is what Hugging Face and ModelScope read. A result that was made of another one carries on what is
said there of its training.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from swift.core.hubs import Source
from swift.params.checkpoint_args import ADAPTER_CONFIG, adapter_folder, read_saved
from swift.plan.model import HUB_ID

README = "README.md"
TRAINING = "Training"
LICENCE = ("license", "license_name", "license_link")
"""The fields of the front matter that say it."""
LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
FRONT = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
SHOWN = (
    *("dataset", "custom_train_dataset_path", "val_dataset", "train_dataset_sample", "max_length", "template_type"),
    *("lora_rank", "lora_alpha", "target_modules", "quantization_bit", "beta", "loss_type"),
    *("num_train_epochs", "max_steps", "learning_rate", "batch_size", "gradient_accumulation_steps", "seed", "dtype"),
)
"""Arguments of a training that its card names, where they say something."""
NOTHING = (None, "", [], 0, -1)
METRIC = re.compile(r"loss|eval_(?!.*(?:runtime|per_second)).*")
"""Of the log, what tells how good the model is."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a result is made of, as far as others may know it."""

    base: str | None
    """Its id on a hub; None where only this machine has it."""
    licence: Mapping[str, str]
    """What the base's files say of it; empty where they say nothing."""
    training: str | None
    """What was trained before, in Markdown."""
    folder: Path
    """Where the texts of the licence lie."""


def origin_of(folder: Path, source: str, hub: Source) -> Origin:
    """Of a model's folder that was asked for as `source`.

    A folder that a training, a merge or a quantization left is a step on the way: its base is what it was made of.
    """
    base = source if hub != "local" else str(read_saved(folder).get("model_id_or_path") or "")
    front = front_matter(folder) or (front_matter(Path(base)) if Path(base).is_dir() else {})
    return Origin(
        base=_id(base),
        licence={name: str(front[name]) for name in LICENCE if front.get(name)},
        training=training_of(folder),
        folder=folder,
    )


def front_matter(folder: Path) -> dict[str, Any]:
    """What the folder's README.md says to hubs; nothing where there is none, or none that can be read."""
    path = folder / README
    match = FRONT.match(path.read_text("utf-8", errors="replace")) if path.is_file() else None
    try:
        front = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    return front if isinstance(front, dict) else {}


def training_of(folder: Path) -> str | None:
    """What the card of a trained folder says of its training, or else what its arguments and its log tell."""
    saved, path = read_saved(folder), folder / README
    if not saved:
        return None
    if path.is_file():
        parts = re.split(r"^## (.+)\n", path.read_text("utf-8", errors="replace"), flags=re.MULTILINE)
        sections = dict(zip(parts[1::2], parts[2::2], strict=True))
        if TRAINING in sections:
            return sections[TRAINING].strip()
    state = folder / "trainer_state.json"
    history = json.loads(state.read_text("utf-8"))["log_history"] if state.is_file() else []
    method = " ".join(str(saved[name]) for name in ("train_type", "rlhf_type", "sft_type") if saved.get(name))
    arguments = {"method": method} | {name: saved.get(name) for name in SHOWN}
    text = _table("argument | value", ((name, v) for name, v in arguments.items() if v not in NOTHING))
    measured = [(name, f"{value:.6g}", step) for name, (value, step) in sorted(_last(history).items())]
    if measured:
        text += "\n\n" + _table("metric | last value | step", measured)
    line = saved.get("command_line")
    return text + (f"\n\n```\n{line}\n```" if line else "")


def card_of_training(folder: Path, origin: Origin, name: str) -> None:
    """Write the card of a checkpoint whose other files are there; `name` is the base's."""
    kind = read_saved(folder).get("sft_type")
    adapter = adapter_folder(folder) is not None
    training = training_of(folder)
    if origin.training:
        training = f"{training}\n\n### Before that\n\n{origin.training}"
    write_card(
        folder,
        origin,
        title=f"An adapter for {name}" if adapter else f"{name}, trained",
        relation="adapter" if adapter else "finetune",
        library="peft" if adapter else "transformers",
        tags=[str(kind)],
        sections={TRAINING: training or "", "Use": "`swift infer --ckpt_dir THIS-FOLDER`"},
    )


def complete_card(folder: Path) -> None:
    """Write the card of a folder that has none, by its other files; none where they do not tell what it is made of."""
    saved, inside = read_saved(folder), adapter_folder(folder)
    origin = replace(origin_of(folder, "", "local"), training=None)
    if saved:
        card_of_training(folder, origin, str(saved.get("model_type")))
    elif inside is not None:
        base = str(json.loads((inside / ADAPTER_CONFIG).read_text("utf-8")).get("base_model_name_or_path"))
        origin = replace(origin, base=_id(base))
        write_card(folder, origin, title="An adapter", relation="adapter", library="peft", sections={})


def write_card(
    folder: Path,
    origin: Origin,
    *,
    title: str,
    relation: Literal["adapter", "finetune", "quantized"],
    library: str,
    sections: Mapping[str, str],
    tags: Sequence[str] = (),
) -> None:
    """Write README.md into a folder, and the texts of the base's licence beside it."""
    for path in _licence_files(origin.folder):
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    front = {
        **({"base_model": origin.base, "base_model_relation": relation} if origin.base else {}),
        "library_name": library,
        **origin.licence,
        "pipeline_tag": "text-generation",
        "tags": ["swift", *tags],
    }
    name = origin.licence.get("license_name") or origin.licence.get("license")
    base = f"Made from {origin.base or 'a model that is on no hub'}"
    terms = f"whose licence is {name}" if name else "whose files name no licence: ask its makers"
    parts = {"Base": f"{base}, {terms}.", TRAINING: origin.training, **sections}
    text = f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n# {title}\n"
    text += "".join(f"\n## {heading}\n\n{body}\n" for heading, body in parts.items() if body)
    (folder / README).write_text(text, encoding="utf-8")


def is_shown(folder: Path) -> bool:
    """Whether the folder has a README.md that hubs take: they refuse a base that is a path of somebody's machine."""
    bases = front_matter(folder).get("base_model") or ()
    bases = [bases] if isinstance(bases, str) else bases
    return (folder / README).is_file() and all(HUB_ID.fullmatch(str(base)) for base in bases)


def _id(base: str) -> str | None:
    return base if HUB_ID.fullmatch(base) and not Path(base).exists() else None


def _licence_files(folder: Path) -> Iterator[Path]:
    for pattern in LICENCE_FILES:
        yield from (path for path in sorted(folder.glob(pattern)) if path.is_file())


def _last(history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, Any]]:
    """The last value of each metric, and its step."""
    return {
        name: (float(value), event.get("step", "?"))
        for event in history
        for name, value in event.items()
        if METRIC.fullmatch(name) and isinstance(value, int | float)
    }


def _table(head: str, rows: Any) -> str:
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)])


def _cell(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
