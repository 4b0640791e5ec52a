"""Models, templates and datasets as data, and the public functions that add to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swift.catalog.custom import additions, read_dataset_info, run_register_file
from swift.catalog.entries import JINJA, DatasetEntry, ModelEntry, TemplateEntry
from swift.catalog.read import shipped_datasets, shipped_models, shipped_templates
from swift.catalog.registry import Registry

__all__ = ["Catalog", "DatasetEntry", "ModelEntry", "Registry", "TemplateEntry", "load_catalog"]


@dataclass(frozen=True)
class Catalog:
    """Everything registered, read-only."""

    models: Registry[ModelEntry]
    templates: Registry[TemplateEntry]
    datasets: Registry[DatasetEntry]

    def family(self, model: ModelEntry) -> str | None:
        """The `model_type` of transformers of a multimodal model; None where only its repository's own code has it,
        or where its configuration will say."""
        if model.family is not None or model.template == JINJA:
            return model.family
        return self.templates.get(model.template).family


def load_catalog(
    custom_register_path: str | Path | None = None,
    custom_dataset_info: str | Path | Mapping[str, object] | None = None,
) -> Catalog:
    """The shipped entries, what `register_*` calls of this process added, and what the two arguments bring.

    `custom_register_path` is a Python file that calls `swift.register_model`, `register_template` or
    `register_dataset`; `custom_dataset_info` a JSON file, JSON text or dict in the form of dataset_info.json.
    Raises SwiftError when a file is missing or wrong, or a name is taken.
    """
    if custom_register_path is not None:
        run_register_file(Path(custom_register_path))
    info = {} if custom_dataset_info is None else read_dataset_info(custom_dataset_info)
    return Catalog(
        models=Registry("model type", "--model_type", {**shipped_models(), **additions(ModelEntry)}),
        templates=Registry("template", "--template_type", {**shipped_templates(), **additions(TemplateEntry)}),
        datasets=Registry("dataset", "--dataset", {**shipped_datasets(), **additions(DatasetEntry), **info}),
    )
