"""What a checkpoint holds beside the Trainer's own state: weights, tokenizer, how rows were rendered, the arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from swift import tuners
from swift.hub.model_card import card_of_training, origin_of
from swift.models.families import MediaProcessor
from swift.params.checkpoint_args import SFT_ARGS
from swift.prompts.encode import Encoder
from swift.prompts.parity import write_certificate
from swift.training.artifacts import write_json
from swift.training.objectives import Objective
from swift.tuners.adapter_saving import Card


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is written; the weights are those the model has when it is."""

    model: nn.Module
    card: Card
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    arguments: Mapping[str, Any]
    """The run's `sft_args.json`."""
    objective: Objective
    source: Path
    """The folder of the base."""
    images: MediaProcessor | None = None


def write_contents(contents: Contents, folder: Path, state: Mapping[str, Tensor] | None) -> None:
    """Write everything into a checkpoint's folder, which is still under another name.

    `state` replaces the model's own where weights are shared out.
    """
    added, shared_out = contents.objective.added, state
    if added is not None:  # the objective has a file of its own for it
        weights = contents.model.state_dict() if state is None else state
        state = {name: tensor for name, tensor in weights.items() if not name.startswith(f"{added}.")}
    tuners.save(contents.model, folder, contents.card, state_dict=state)
    contents.tokenizer.save_pretrained(folder)
    if contents.images is not None:
        contents.images.save(folder)
    write_certificate(contents.encoder, folder)
    write_json(folder / SFT_ARGS, contents.arguments)
    model = contents.card.model
    card_of_training(folder, origin_of(contents.source, model.source, model.hub), model.model_type)
    contents.objective.save(folder, shared_out)
