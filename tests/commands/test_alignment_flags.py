"""No flag of `swift rlhf` is idle: for each algorithm it changes what a run logs, or it is refused."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from swift.cli import main
from swift.params.alignment import ALGORITHMS, ON_OWN_ANSWERS
from swift.params.flag import flags_of
from swift.params.groups import Rlhf

pytestmark = pytest.mark.slow
OTHER: Mapping[str, Any] = {
    "beta": 0.37,
    "label_smoothing": 0.2,
    "rpo_alpha": 0.4,
    "cpo_alpha": 0.4,
    "simpo_gamma": 0.4,
    "desirable_weight": 1.7,
    "undesirable_weight": 1.7,
    "answer_samples": 1,
    "share_prompts": "false",
    "precompute_ref_log_probs": "false",
    "num_ppo_epochs": 1,
    "num_mini_batches": 2,
    "missing_eos_penalty": 2.0,
    "local_rollout_forward_batch_size": 1,
    "whiten_rewards": "true",
    "kl_coef": 5.0,
    "cliprange": 0.001,
    "vf_coef": 3.0,
    "cliprange_value": 0.001,
    "gamma": 0.5,
    "lam": 0.1,
    "reward_funcs": "soft_overlong",
    "reward_weights": 5,
    "external_plugins": "plugin.py",
    "num_generations": 4,
    "epsilon": 0.001,
    "epsilon_high": 0.001,
    "num_iterations": 3,
    "scale_rewards": "none",
    "overlong_filter": "true",
    "dynamic_sample": "true",
    "max_resample_times": 1,
    "soft_cache_length": 2,
    "log_completions": "true",
    "ref_model_revision": "main",
    "reward_model_revision": "main",
    "ref_model_type": "smollm2-135m",
    "reward_model_type": "smollm2-135m",
}
"""A value that is not the default, for every flag that has one of its own; what is missing fails the test."""
BESIDE: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("cpo", "simpo_gamma"): {"loss_type": "simpo"},
    ("kto", "precompute_ref_log_probs"): {"loss_type": "apo_zero_unpaired"},
    ("grpo", "dynamic_sample"): {"reward_funcs": "soft_overlong", "reward_model_id_or_path": None},
}
"""Flags without which one has no meaning, or (None) beside which it has none: they are so in both runs."""
ONLY_SAID: Mapping[str, str] = {
    "share_prompts": "prompts are shared",
    "precompute_ref_log_probs": "reference log-probabilities of",
    "log_completions": ", reward ",
}
"""Flags that change no number, by what one of the two runs says and the other does not."""
TIMES = ("memory", "speed", "time", "per_second", "tokens/s", "checkpoint", "elapsed", "remaining", "runtime")


class World:
    """Models and rows for every algorithm."""

    def __init__(self, folder: Path, model: Path):
        self.folder, self.model = folder, model
        rng = random.Random(0)

        def text(low: int, high: int) -> str:
            return " ".join(rng.choice(("sea", "ship", "sail", "storm", "port")) for _ in range(rng.randint(low, high)))

        rows = [
            {"query": text(17, 25), "response": text(2, 6), "rejected_response": text(2, 6), "label": number % 2 == 0}
            for number in range(8)
        ]
        self.pairs, self.labelled = folder / "pairs.jsonl", folder / "labelled.jsonl"
        for path, leave_out in ((self.pairs, "label"), (self.labelled, "rejected_response")):
            kept = [{key: value for key, value in row.items() if key != leave_out} for row in rows]
            path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self.reward, self.reference = folder / "reward", folder / "reference"
        for copy in (self.reward, self.reference):
            shutil.copytree(model, copy)
        generator = torch.Generator().manual_seed(1)
        head = {
            "v_head.summary.weight": torch.randn(1, 64, generator=generator),
            "v_head.summary.bias": torch.zeros(1),
        }
        save_file(head, self.reward / "value_head.safetensors")
        weights = {name: tensor * 1.1 for name, tensor in load_file(self.reference / "model.safetensors").items()}
        save_file(weights, self.reference / "model.safetensors", {"format": "pt"})
        self.known: dict[str, tuple[list[Any], str]] = {}

    def flags(self, kind: str) -> dict[str, Any]:
        """A run of a few steps in which every number can be seen."""
        flags: dict[str, Any] = {
            "rlhf_type": kind,
            "model_id_or_path": self.model,
            "dataset": self.labelled if kind == "kto" else self.pairs,
            "add_output_dir_suffix": "false",
            "max_steps": 3,
            "batch_size": 4,
            "gradient_accumulation_steps": 1,
            "learning_rate": 0.05,
            "warmup_ratio": 0,
            "logging_steps": 1,
            "max_new_tokens": 3,
            "report_to": "none",
            "no_cache": "true",
        }
        if kind in ON_OWN_ANSWERS:
            own = {"num_ppo_epochs": 2} if kind == "ppo" else {"num_iterations": 2, "num_generations": 2}
            flags |= {"reward_model_id_or_path": self.reward, **own}
        else:
            flags["dataset_test_ratio"] = 0
        return flags

    def run(self, flags: Mapping[str, Any], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[Any], str]:
        """Exit code, every number of the log and of the answers, and what was said."""
        out = self.folder / "run"
        shutil.rmtree(out, ignore_errors=True)
        given = {name: value for name, value in {**flags, "output_dir": out}.items() if value is not None}
        words = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
        capsys.readouterr()
        code = main(["rlhf", *words])
        said = capsys.readouterr().err
        return code, numbers(out) if code == 0 else [], said

    def usual(self, kind: str, beside: Mapping[str, Any], capsys: pytest.CaptureFixture[str]) -> tuple[list[Any], str]:
        """The run without the flag, made once."""
        key = json.dumps([kind, dict(beside)])
        if key not in self.known:
            code, logged, said = self.run({**self.flags(kind), **beside}, capsys)
            assert code == 0, said
            self.known[key] = logged, said
        return self.known[key]


def numbers(run: Path) -> list[Any]:
    """What a run logged, and the answers it gave, without times."""
    found: list[Any] = []
    for name in ("logging.jsonl", "samples.jsonl", "rollouts.jsonl"):
        lines = (run / name).read_text().splitlines() if (run / name).is_file() else []
        for line in map(json.loads, lines):
            found.append({key: line[key] for key in line if not any(time in key for time in TIMES)})
    return [event for event in found if "log_history" not in event]


@pytest.fixture(scope="module")
def world(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), tiny_llama_dir)


def other_value(kind: str, name: str, world: World) -> Any:
    """A value of the flag that is not its default."""
    if name == "loss_type":
        losses = ALGORITHMS[kind].losses
        return losses[1] if len(losses) > 1 else "hinge"
    if name == "precompute_ref_log_probs" and kind in ON_OWN_ANSWERS:
        return "true"
    if name == "ref_model_id_or_path":
        return world.reference
    if name == "reward_model_id_or_path":
        return world.model  # it has no head
    return OTHER[name]


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_every_flag_counts_or_is_refused(kind: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    idle = []
    for name in alignment_flags():
        value, beside = other_value(kind, name, world), BESIDE.get((kind, name), {})
        code, logged, said = world.run({**world.flags(kind), **beside, name: value}, capsys)
        if code == 2:
            assert f"--{name}" in said, said
            continue
        assert code == 0, said
        usual, said_usually = world.usual(kind, beside, capsys)
        if name in ONLY_SAID:
            counts = (ONLY_SAID[name] in said) != (ONLY_SAID[name] in said_usually)
        else:
            counts = logged != usual
        if not counts:
            idle.append(name)
    assert idle == []


def alignment_flags() -> list[str]:
    """The flags of alignment, other spellings left out."""
    return [flag.name for flag in flags_of(Rlhf) if flag.alias_of is None and flag.name != "rlhf_type"]


def test_every_flag_belongs_to_an_algorithm() -> None:
    owned = {name for algorithm in ALGORITHMS.values() for name in algorithm.flags}
    assert set(alignment_flags()) <= owned <= set(Rlhf.__annotations__)
