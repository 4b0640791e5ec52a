"""The catalog as a Markdown page for people."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from swift.catalog import Catalog, load_catalog
from swift.catalog.entries import DatasetEntry, ModelEntry


def write_models(path: Path) -> None:
    """Write the list of registered models, templates and datasets to `path`."""
    catalog = load_catalog()
    sections = [
        "# Supported models, templates and datasets",
        "This page is written by `make docs` from `src/swift/catalog/`. A model, folder or dataset that is not listed"
        " works as well: the template comes from the tokenizer, the LoRA targets from the architecture, the format from"
        " the rows.",
        *_models(catalog),
        *_templates(catalog),
        *_datasets(catalog),
    ]
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _models(catalog: Catalog) -> Iterable[str]:
    models = list(catalog.models.values())
    text = [_model(model) for model in models if not model.multimodal]
    multimodal = [_multimodal(model, catalog) for model in models if model.multimodal]
    head = ("model type", "ModelScope", "Hugging Face", "template", "LoRA targets", "tags")
    yield f"## Text models ({len(text)})\n\n{_table(head, text)}"
    head_of_parts = (*head[:4], "runs as", "tags")
    yield f"## Multimodal models ({len(multimodal)})\n\n{MARKS}\n\n{_table(head_of_parts, multimodal)}"


MARKS = (
    "**trained here**: a tiny model of the family, made from its config, is trained, merged and answered with images"
    " (or sounds) by the tests, with the losses and answers of transformers alone; published weights were not run."
    " **loads by class**: the same class and family, with weights quantized by a method that the tests do not try on"
    " it. **remote code**: only its repository's own code can run it, which is not run here; the command names the"
    " model to use instead."
)


def _model(model: ModelEntry) -> tuple[str, ...]:
    targets = model.lora_targets if isinstance(model.lora_targets, str) else ", ".join(model.lora_targets)
    tags = [*model.tags, *([f"{model.quant} {model.bits or ''}".strip()] if model.quant else [])]
    return model.name, model.ms or "", model.hf or "", model.template, f"`{targets}`", ", ".join(tags)


def _multimodal(model: ModelEntry, catalog: Catalog) -> tuple[str, ...]:
    name, ms, hf, template_name, _, tags = _model(model)
    family = catalog.family(model)
    if family is None:
        return name, ms, hf, template_name, f"remote code; use {catalog.templates.get(template_name).successor}", tags
    how = "loads by class" if model.quant else "trained here"
    return name, ms, hf, template_name, f"{how}: {family}", tags


def _templates(catalog: Catalog) -> Iterable[str]:
    users: dict[str, int] = {}
    for model in catalog.models.values():
        users[model.template] = users.get(model.template, 0) + 1
    rows = []
    for template in catalog.templates.values():
        system = template.system is not None or template.system_in_prompt is not None
        marks = (template.generation, "no turns"), (template.multimodal, "multimodal")
        rows.append(
            (
                template.name,
                "yes" if system else "no",
                "yes" if template.separator is not None else "no",
                template.tools_format,
                str(users.get(template.name, 0)),
                ", ".join(word for holds, word in marks if holds),
            )
        )
    head = ("template", "system text", "several turns", "tools", "models", "")
    yield f"## Templates ({len(rows)})\n\n{_table(head, rows)}"


def _datasets(catalog: Catalog) -> Iterable[str]:
    rows = [_dataset(dataset) for dataset in catalog.datasets.values()]
    head = ("dataset", "ModelScope", "Hugging Face", "subsets", "tags")
    yield f"## Datasets ({len(rows)})\n\n{_table(head, rows)}"


def _dataset(dataset: DatasetEntry) -> tuple[str, ...]:
    return dataset.name, dataset.ms or "", dataset.hf or "", ", ".join(dataset.subsets), ", ".join(dataset.tags)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
