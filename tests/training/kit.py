"""A training run in a few lines: a tiny model with a small vocabulary, rows of random tokens."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from swift import tuners
from swift.params.frozen import Frozen
from swift.params.groups import Distributed, Optim, Train
from swift.plan.train import TrainPlan
from swift.plan.tuner import TunerPlan
from swift.prompts.types import IGNORED
from swift.training.artifacts import model_info
from swift.training.batches import Collate
from swift.training.loop import Run
from swift.training.objectives.sft import SftObjective
from swift.training.varlen_attention import keep_inside_sequences

VOCABULARY = 500
LORA = TunerPlan(sft_type="lora", settings={"r": 4, "lora_alpha": 8, "lora_dropout": 0.0})
FULL = TunerPlan(sft_type="full")


class Rows(Dataset[dict[str, Any]]):
    """Rows of random tokens, the second half of each trained."""

    def __init__(self, count: int, *, seed: int = 0, weighted: bool = False):
        rng = random.Random(seed)
        self.items: list[dict[str, Any]] = []
        for row in range(count):
            ids = [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(6, 30))]
            half = len(ids) // 2
            item: dict[str, Any] = {"input_ids": ids, "labels": [IGNORED] * half + ids[half:], "row": row}
            if weighted:
                item["loss_scale"] = [0.0] * half + [rng.choice([0.5, 1.0, 2.0]) for _ in ids[half:]]
            self.items.append(item)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]


def tiny_model(**changes: Any) -> PreTrainedModel:
    """A random 2-layer Llama of 100,000 parameters, the same every time."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_key_value_heads": 2, **changes}
    config = LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=4, attn_implementation="sdpa", **sizes)
    model = AutoModelForCausalLM.from_config(config)
    model.name_or_path = "tiny"
    return model


def tiny_plan(folder: Path, **changes: Any) -> TrainPlan:
    """A plan of 4 steps with plain gradient descent, so that weights show the gradients they got.

    `changes` are fields of TrainPlan, or flags of its groups.
    """
    group = Train(
        max_steps=4,
        evaluation_strategy="no",
        save_strategy="no",
        logging_steps=1,
        report_to=(),
        disable_tqdm=True,
    )
    optim = Optim(optim="sgd", weight_decay=0.0, warmup_ratio=0.0, max_grad_norm=1000.0)
    plan = TrainPlan(
        group=group.replace(**_flags_of(Train, changes)),
        optim=optim.replace(**_flags_of(Optim, changes)),
        distributed=Distributed(),
        output_dir=folder,
        model_type="tiny",
        batch_size=2,
        accumulation=2,
        recompute=False,
        eval_batch_size=2,
        data_seed=42,
        resume=None,
        best_metric="loss",
        eval_steps=2,
        generation=None,
        save_steps=2,
        save_total_limit=2,
        workers=0,
        pin_memory=False,
        learning_rate=0.5,
        scheduler="constant",
        push=None,
        dtype="fp32",
        device="cpu",
        world_size=1,
    )
    decided = {field.name for field in fields(TrainPlan)} - {"optim"}
    return replace(plan, **{name: value for name, value in changes.items() if name in decided})


def _flags_of(group: type[Frozen], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name in group.__annotations__}


def tiny_run(
    folder: Path,
    *,
    tuner: TunerPlan = FULL,
    train: Rows | None = None,
    val: Rows | None = None,
    model: PreTrainedModel | None = None,
    objective: Callable[[PreTrainedModel], Any] = SftObjective,
    flat: bool = True,
    resume: Path | None = None,
    evaluator: Callable[[Any, int], dict[str, float]] | None = None,
    **changes: Any,
) -> Run:
    """A run that writes to `folder`; `changes` are fields of its TrainPlan or flags of its groups."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(1)
    base = model if model is not None else tiny_model()
    adapter = tuner.sft_type != "full" and resume is not None
    if tuner.sft_type == "full" and resume is not None:
        base = AutoModelForCausalLM.from_pretrained(resume)
    tuned = tuners.load(base, resume, trainable=True) if adapter and resume else tuners.attach(base, tuner)
    base = tuners.base_model(tuned)
    rows = train if train is not None else Rows(32)
    return Run(
        plan=tiny_plan(folder, **changes),
        tuner=tuner,
        folder=folder,
        model=tuned,
        collate=Collate(flat and keep_inside_sequences(base), 0),
        objective=objective(base),
        train=rows,
        val=val,
        save_into=lambda target, weights: tuners.save(tuned, target, state_dict=weights),
        info=model_info(tuned),
        resume=resume,
        evaluator=evaluator,
        lengths=[len(item["input_ids"]) for item in rows.items],
    )


def losses(trainer: Any) -> list[float]:
    """The training losses a run has logged."""
    return [event["loss"] for event in trainer.state.log_history if "loss" in event]


def weights(model: torch.nn.Module) -> torch.Tensor:
    """All trained weights in one vector."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad])
