"""What a cell left behind, where nobody named a fault: did the harm that users reported come about?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from prepare import newest_checkpoint
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

LEARNED = 0.2
"""A last loss above this means that the rows were not learned, so that answers prove nothing."""
CLOSE = 1e-3
"""Relative difference of first losses and gradient norms that is rounding of the log or of another order of adding."""


def harmed(
    harm: dict[str, Any], cell: Path, step: dict[str, Any], before: dict[str, str], model: Path
) -> tuple[bool | None, str]:
    """Whether the harm came about, and what shows it; None: this cell proves nothing. `model` has the tokenizer."""
    out = cell / step.get("out", "out")
    if "kept" in harm:
        now = fingerprints(cell / harm["kept"])
        lost = sorted(name for name, value in before.items() if now.get(name) != value)
        return bool(
            lost
        ), f"changed or gone: {', '.join(lost[:3])}" if lost else "the first run's checkpoints are whole"
    if "same_as" in harm:
        return _other_numbers(_first_log(cell / harm["same_as"]), _first_log(out))
    if "loss" in harm:
        loss = _first_log(out)["loss"]
        return loss == harm["loss"] or loss != loss, f"the loss of the first step is {loss:.4g}"
    if "weight" in harm:
        return _without(harm["weight"], newest_checkpoint(out))
    return _answers(harm, out, model)


def fingerprints(out: Path) -> dict[str, str]:
    """Hashes of all files in checkpoints below `out`."""
    files = (file for file in sorted(out.rglob("*")) if file.is_file() and "checkpoint-" in str(file.relative_to(out)))
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _log(out: Path) -> list[dict[str, Any]]:
    state = json.loads((newest_checkpoint(out) / "trainer_state.json").read_text())
    return [line for line in state["log_history"] if "loss" in line]


def _first_log(out: Path) -> dict[str, float]:
    first = _log(out)[0]
    return {name: float(first[name]) for name in ("loss", "grad_norm")}


def _other_numbers(one: dict[str, float], other: dict[str, float]) -> tuple[bool, str]:
    said = ", ".join(f"{name} {one[name]:.4f} and {other[name]:.4f}" for name in one)
    return any(abs(one[name] - other[name]) > CLOSE * abs(one[name]) for name in one), f"first step: {said}"


def _without(word: str, checkpoint: Path) -> tuple[bool, str]:
    (weights,) = checkpoint.glob("*model.safetensors")
    with safe_open(weights, "pt") as opened:
        found = [name for name in opened.keys() if word in name]  # noqa: SIM118
    return not found, f"the checkpoint has {', '.join(found) or f'no weight with `{word}` in its name'}"


def _answers(harm: dict[str, Any], out: Path, model: Path) -> tuple[bool | None, str]:
    last = float(_log(out)[-1]["loss"])
    if last > LEARNED:
        return None, f"the rows were not learned: the last loss is {last:.2f}"
    found = _ask(newest_checkpoint(out), model, harm["answers"])
    wrong = [one for one in found if one["answer"] != one["wanted"] or (harm.get("ends") and not one["ends"])]
    said = "; ".join(f"{one['answer'] or 'nothing'!r}{'' if one['ends'] else ' without an end'}" for one in found)
    return bool(wrong), f"asked after training it answers {said}"


def _ask(checkpoint: Path, model_dir: Path, asked: list[list[str]]) -> list[dict[str, Any]]:
    """Greedy answers, through the model's own chat template, as any server of the Hugging Face world asks."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    answers = []
    for question, wanted, *system in asked:
        talk = [*({"role": "system", "content": text} for text in system), {"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        made = model.generate(**prompt, do_sample=False, max_new_tokens=12, eos_token_id=2, pad_token_id=2)
        ids = made[0, prompt["input_ids"].shape[1] :].tolist()
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        answers.append({"question": question, "wanted": wanted, "answer": text, "ends": 2 in ids})
    return answers
