"""The score of an answer by a reward model: a value head on a language model, or a classifier with one label."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from swift import models, tuners
from swift.core.errors import SwiftError
from swift.models.load import TORCH_DTYPES, UNREADABLE
from swift.models.value_head import ValueHead, head_file, read_head
from swift.plan.model import ModelPlan
from swift.training.objectives import Setting
from swift.training.objectives.answer_log_probs import model_inputs
from swift.training.objectives.reference import same_vocabulary
from swift.training.output_head import OutputHead
from swift.training.preference_batches import answers
from swift.training.varlen_attention import keep_inside_sequences

Scorer = Callable[[Sequence[dict[str, Any]]], Tensor]
"""Scores (R), fp32 on the CPU, of items, each at its last token."""


def load_reward_model(setting: Setting, plan: ModelPlan) -> Scorer:
    """The scorer of a run. Raises SwiftError for a folder with neither a value head nor a classifier of one label."""
    base = models.fetch(plan)
    same_vocabulary(setting, plan, base, "reward")
    folder = base if plan.adapter is None else Path(plan.adapter)
    if head_file(folder) is not None:
        return HeadScorer(plan, base, folder, setting.pad_id)
    config = json.loads((folder / "config.json").read_text("utf-8")) if plan.adapter is None else {}
    classes = [name for name in config.get("architectures") or () if name.endswith("ForSequenceClassification")]
    labels = len(config["id2label"]) if "id2label" in config else config.get("num_labels", 2)
    if classes and labels == 1:
        return ClassifierScorer(plan, folder)
    raise SwiftError(
        f"{folder} is no reward model",
        where="--reward_model_id_or_path",
        why=f"{classes[0]} has {labels} labels" if classes else "there is no value_head.safetensors or value_head.bin",
        next="train one with swift rlhf --rlhf_type rm, or take a sequence classification model with one label",
    )


class HeadScorer:
    """A value head on the hidden state of the last token."""

    def __init__(self, plan: ModelPlan, base: Path, folder: Path, pad_id: int):
        model = models.load_model(plan, base)
        if plan.adapter is not None:
            models.check_base(folder, plan, base)
            tuners.load(model, folder)  # its layers stand inside of the model
        self._model = model.eval().requires_grad_(False)
        self._head = ValueHead(model.config.get_text_config().hidden_size).to(model.device)
        read_head(self._head, folder)
        self._flat, self._pad_id = keep_inside_sequences(model), pad_id
        self._output = OutputHead(model)

    @torch.no_grad()
    def __call__(self, items: Sequence[dict[str, Any]]) -> Tensor:
        """See Scorer."""
        batch: Any = send_to_device(answers(items, self._flat, self._pad_id), self._model.device)
        hidden = self._output.hidden(self._model, model_inputs(batch))
        return self._head(hidden.reshape(-1, hidden.shape[-1])[batch["last"]]).float().cpu()


class ClassifierScorer:
    """A sequence classification model with one label."""

    def __init__(self, plan: ModelPlan, folder: Path):
        try:
            model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=TORCH_DTYPES[plan.dtype], device_map=plan.device_map
            )
        except (*UNREADABLE, RuntimeError, ValueError) as error:
            raise SwiftError(
                f"the reward model in {folder} cannot be loaded", where="--reward_model_id_or_path", why=str(error)
            ) from error
        self._model = model.eval().requires_grad_(False)
        # Where the end of an answer is the padding token, the model would take the token before it for the last.
        self._model.config.get_text_config().pad_token_id = None

    @torch.no_grad()
    def __call__(self, items: Sequence[dict[str, Any]]) -> Tensor:
        """See Scorer. One by one: there is nothing to pad with."""
        device = self._model.device
        scores = [
            self._model(input_ids=torch.tensor([item["input_ids"]], device=device)).logits.reshape(()) for item in items
        ]
        return torch.stack(scores).float().cpu()
