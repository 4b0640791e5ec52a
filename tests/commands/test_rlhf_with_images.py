"""`swift rlhf` on rows with images, on tiny LLaVA and Qwen2-VL models, against log-probabilities by transformers."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.commands.test_multimodal import FAMILIES, noise
from tests.fixtures.tiny_multimodal import write_tiny

from swift.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
BOTH = pytest.mark.parametrize(
    "model_type",
    ["qwen2-vl-2b-instruct", pytest.param("llava1_5-7b-instruct", marks=pytest.mark.slow)],
)
BETA = 0.3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, smollm2_tokenizer_dir: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write(folder / name, smollm2_tokenizer_dir) for name, (write, _, _) in FAMILIES.items()}


@pytest.fixture(scope="module")
def other(tiny: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same models with other weights, to be references."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    folders = {}
    for name, folder in tiny.items():
        model: Any = AutoModelForImageTextToText.from_pretrained(folder)
        torch.manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        folders[name] = tmp_path_factory.mktemp("others") / name
        for part in (model, AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)):
            part.save_pretrained(folders[name])
    return folders


def write_rows(folder: Path, *, labels: bool = False) -> Path:
    """Four good rows: with a tag, without one, with two images, with none."""
    noise(folder / "one.png", 60, 100)
    noise(folder / "two.png", 112, 56)
    rows: list[dict[str, Any]] = [
        {"query": "See <image> there and say", "response": "a red one", "images": ["one.png"]},
        {"query": "What is shown to you here?", "response": "blue", "images": ["two.png"]},
        {"query": "<image>or<image>, which is it?", "response": "both", "images": ["one.png", "two.png"]},
        {"query": "Just text", "response": "fine and dandy"},
    ]
    worse = ["a red ball of wool", "nothing", "none of them is", "fine"]
    for number, row in enumerate(rows):
        row |= {"label": number % 2 == 0} if labels else {"rejected_response": worse[number]}
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Oracle:
    """Log-probabilities of answers, one row at a time, by transformers alone."""

    def __init__(self, model_type: str, folder: Path, adapter: Path | None = None):
        from peft import PeftModel
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        self.qwen = "qwen" in model_type
        _, self.prompt, self.end = FAMILIES[model_type]
        model: Any = AutoModelForImageTextToText.from_pretrained(folder)
        self.image_token = model.config.image_token_id
        self.model = (model if adapter is None else PeftModel.from_pretrained(model, str(adapter))).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.processor = AutoImageProcessor.from_pretrained(folder)

    def __call__(self, row: dict[str, Any], answer: str, root: Path) -> tuple[float, int]:
        """Sum over the tokens of the answer, and how many they are."""
        images, inputs = row.get("images", []), self._inputs(row, root)
        if self.qwen:
            sizes = [int(grid.prod()) // 4 for grid in inputs.get("image_grid_thw", [])]
            texts = [f"<|vision_start|>{'<|image_pad|>' * size}<|vision_end|>" for size in sizes]
        else:
            texts = ["<image>" * 4 + "\n"] * len(images)
        query = row["query"] if "<image>" in row["query"] else "<image>" * len(images) + row["query"]
        query = "".join(a + b for a, b in zip(query.split("<image>"), [*texts, ""], strict=True))
        before = self.tokenizer(self.prompt.format(query), add_special_tokens=False)["input_ids"]
        after = self.tokenizer(answer + self.end, add_special_tokens=False)["input_ids"]
        return sum(self.of_ids(row, root, before, after)), len(after)

    def of_ids(self, row: dict[str, Any], root: Path, before: list[int], after: list[int]) -> list[float]:
        """Of each token `after` a prompt."""
        logits = self._run(row, root, before + after).logits[0, len(before) - 1 : -1].float()
        return logits.log_softmax(-1).gather(1, torch.tensor(after)[:, None])[:, 0].tolist()

    def hidden(self, row: dict[str, Any], root: Path, ids: list[int]) -> torch.Tensor:
        """(T, H) the last hidden states of a row's tokens."""
        return self._run(row, root, ids, output_hidden_states=True).hidden_states[-1][0].float()

    @torch.no_grad()
    def _run(self, row: dict[str, Any], root: Path, given: list[int], **how: bool) -> Any:
        ids, inputs = torch.tensor([given]), self._inputs(row, root)
        if self.qwen and inputs:
            inputs["mm_token_type_ids"] = (ids == self.image_token).long()
        return self.model(input_ids=ids, **inputs, **how)

    def _inputs(self, row: dict[str, Any], root: Path) -> dict[str, Any]:
        images = [Image.open(root / name) for name in row.get("images", [])]
        return dict(self.processor(images, return_tensors="pt")) if images else {}


def train(kind: str, model_type: str, model: Path, rows: Path, output: Path, *more: str) -> list[dict[str, Any]]:
    words = ["--rlhf_type", kind, "--model_type", model_type, "--model_id_or_path", str(model)]
    words += ["--dataset", str(rows), "--output_dir", str(output), "--add_output_dir_suffix", "false"]
    words += ["--dataset_test_ratio", "0", "--batch_size", "4", "--gradient_accumulation_steps", "1"]
    words += ["--warmup_ratio", "0", "--max_steps", "2", "--logging_steps", "1", "--lora_dropout", "0"]
    words += ["--learning_rate", "0.003", "--save_steps", "1"]
    assert main(["rlhf", *words, *more]) == 0
    lines = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def mean(values: Any) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def expected(kind: str, rows: Path, policy: Oracle, reference: Oracle | None) -> dict[str, float]:
    """Loss of the first step by the formulas of the papers, and the log-probabilities that are logged."""
    read = [json.loads(line) for line in rows.read_text().splitlines()]
    ends = [[policy(row, row[name], rows.parent) for name in ("response", "rejected_response")] for row in read]
    nll = -sum(chosen[0] for chosen, _ in ends) / sum(chosen[1] for chosen, _ in ends)
    sums = [(chosen[0], rejected[0]) for chosen, rejected in ends]
    means = [(chosen[0] / chosen[1], rejected[0] / rejected[1]) for chosen, rejected in ends]
    if kind == "dpo":
        assert reference is not None
        of = [[reference(row, row[name], rows.parent)[0] for name in ("response", "rejected_response")] for row in read]
        ratios = [(w - rw) - (x - rx) for (w, x), (rw, rx) in zip(sums, of, strict=True)]
        loss = mean(softplus(-BETA * ratio) for ratio in ratios) + nll
    elif kind == "cpo":
        loss = mean(softplus(-BETA * (w - x)) for w, x in sums) + nll
    elif kind == "simpo":
        loss = mean(softplus(-(BETA * (w - x) - 1)) for w, x in means) + nll
    else:
        odds = [w - x - (math.log1p(-math.exp(w)) - math.log1p(-math.exp(x))) for w, x in means]
        loss = mean(BETA * softplus(-each) for each in odds) + nll
    shown = means if kind in ("orpo", "simpo") else sums
    return {"loss": loss, "logps/chosen": mean(w for w, _ in shown), "logps/rejected": mean(x for _, x in shown)}


@pytest.mark.parametrize(
    "kind", ["dpo", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("orpo", "simpo", "cpo"))]
)
@BOTH
def test_the_first_step_is_that_of_the_formula(
    kind: str, model_type: str, tiny: dict[str, Path], other: dict[str, Path], tmp_path: Path
) -> None:
    rows, model = write_rows(tmp_path), tiny[model_type]
    more = ["--beta", str(BETA), "--max_steps", "1"]
    if kind == "dpo":
        more += ["--ref_model_type", model_type, "--ref_model_id_or_path", str(other[model_type])]
        more += ["--precompute_ref_log_probs", "false"]
    first, *_ = train(kind, model_type, model, rows, tmp_path / "output", *more)
    reference = Oracle(model_type, other[model_type]) if kind == "dpo" else None
    wanted = expected(kind, rows, Oracle(model_type, model), reference)
    assert {name: first[name] for name in wanted} == pytest.approx(wanted, abs=1e-4)


@pytest.mark.slow
@BOTH
def test_however_rows_are_laid_the_run_is_the_same(
    model_type: str,
    tiny: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = write_rows(tmp_path)
    numbers = ("loss", "grad_norm", "logps/chosen", "rewards/margins", "eval_loss")

    def logged(name: str, *more: str) -> list[dict[str, float]]:
        given = ("--rpo_alpha", "0", "--val_dataset", str(rows), "--eval_steps", "1", *more)
        train("dpo", model_type, tiny[model_type], rows, tmp_path / name, *given)
        lines = [json.loads(line) for line in (tmp_path / name / "logging.jsonl").read_text().splitlines()]
        return [kept for line in lines if (kept := {key: line[key] for key in numbers if key in line})]

    shared = logged("shared", "--share_prompts", "true")
    assert "prompts are shared by both answers" in capsys.readouterr().err
    assert len(shared) == 4 and shared[2]["rewards/margins"] != 0
    runs = [
        logged("apart", "--share_prompts", "false"),
        logged("split", "--batch_size", "1", "--gradient_accumulation_steps", "4", "--micro_batching", "said"),
        logged("asked", "--precompute_ref_log_probs", "true"),
    ]
    monkeypatch.setattr("swift.training.train.keep_apart", lambda *_: False)
    runs.append(logged("padded"))
    assert "batches are padded" in capsys.readouterr().err
    for run in runs:
        for mine, theirs in zip(shared, run, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-4)


@pytest.mark.slow
@BOTH
def test_resumed_is_uninterrupted_and_merged_is_the_adapter(
    model_type: str, tiny: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    rows, model = write_rows(tmp_path), tiny[model_type]
    train("dpo", model_type, model, rows, tmp_path / "whole")
    first, last = (tmp_path / "whole" / f"checkpoint-{step}" for step in (1, 2))
    train("dpo", model_type, model, rows, tmp_path / "again", "--resume_from_checkpoint", str(first))
    weights = load_file(last / "adapter_model.safetensors")
    resumed = load_file(tmp_path / "again" / "checkpoint-2" / "adapter_model.safetensors")
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)

    assert main(["merge-lora", "--ckpt_dir", str(last)]) == 0
    merged, adapted = Oracle(model_type, Path(f"{last}-merged")), Oracle(model_type, model, last)
    row = json.loads(rows.read_text().splitlines()[2])
    assert merged(row, "both", tmp_path) == pytest.approx(adapted(row, "both", tmp_path), abs=1e-4)
    assert adapted(row, "both", tmp_path)[0] > Oracle(model_type, model)(row, "both", tmp_path)[0] + 0.1


@BOTH
def test_kto_compares_with_the_next_answer_to_the_own_image(
    model_type: str, tiny: dict[str, Path], other: dict[str, Path], tmp_path: Path
) -> None:
    rows = write_rows(tmp_path, labels=True)
    more = ("--beta", str(BETA), "--max_steps", "1", "--ref_model_id_or_path", str(other[model_type]))
    first, *_ = train("kto", model_type, tiny[model_type], rows, tmp_path / "output", *more)
    policy, reference = Oracle(model_type, tiny[model_type]), Oracle(model_type, other[model_type])
    read = [json.loads(line) for line in rows.read_text().splitlines()]

    def ratio(row: dict[str, Any], answer: str) -> float:
        return policy(row, answer, tmp_path)[0] - reference(row, answer, tmp_path)[0]

    crossed = {(i, j): ratio(read[i], read[j]["response"]) for i, j in itertools.product(range(4), repeat=2)}
    # The rows come in an order of the seed: each of the others may be the next one.
    orders = ((0, *rest) for rest in itertools.permutations(range(1, 4)))
    divergences = [max(0.0, mean(crossed[a, b] for a, b in zip(o, [*o[1:], 0], strict=True))) for o in orders]
    assert any(first["kl"] == pytest.approx(each, abs=1e-4) for each in divergences)
    signed = [(1 if row["label"] else -1, crossed[i, i]) for i, row in enumerate(read)]
    loss = mean(1 / (1 + math.exp(BETA * sign * (own - first["kl"]))) for sign, own in signed)
    assert first["loss"] == pytest.approx(loss, abs=1e-4)


@pytest.mark.slow
@BOTH
def test_grpo_answers_what_it_is_shown_and_trains_on_that(
    model_type: str, tiny: dict[str, Path], tmp_path: Path
) -> None:
    rows = write_rows(tmp_path)
    (tmp_path / "rewards.py").write_text("def short(completions, **rest):\n    return [-len(c) for c in completions]\n")
    words = ["--rlhf_type", "grpo", "--model_type", model_type, "--model_id_or_path", str(tiny[model_type])]
    words += ["--dataset", str(rows), "--output_dir", str(tmp_path / "output"), "--add_output_dir_suffix", "false"]
    words += ["--external_plugins", str(tmp_path / "rewards.py"), "--reward_funcs", "short", "--max_steps", "2"]
    words += [
        "--num_generations",
        "4",
        "--batch_size",
        "8",
        "--gradient_accumulation_steps",
        "1",
        "--logging_steps",
        "1",
    ]
    words += ["--max_completion_length", "8", "--learning_rate", "0.003", "--warmup_ratio", "0"]
    assert main(["rlhf", *words]) == 0
    answers = [json.loads(line) for line in (tmp_path / "output" / "rollouts.jsonl").read_text().splitlines()]
    policy, read = Oracle(model_type, tiny[model_type]), [json.loads(line) for line in rows.read_text().splitlines()]
    first = [answer for answer in answers if answer["roll_out"] == 0]
    assert len(first) == 8 and any(read[answer["row"]].get("images") for answer in first)
    for answer in first:
        wanted = policy.of_ids(read[answer["row"]], tmp_path, answer["prompt_ids"], answer["answer_ids"])
        assert answer["engine_log_probs"] == pytest.approx(wanted, abs=1e-4)
        # That of training is at the temperature of the run.
        assert answer["log_probs"] == pytest.approx(answer["ref_log_probs"], abs=1e-4)
    later = [answer for answer in answers if answer["roll_out"] == 1]
    assert any(a["log_probs"] != pytest.approx(a["ref_log_probs"], abs=1e-4) for a in later)


def test_rows_that_cannot_be_used_are_named(
    tiny: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path)
    noise(tmp_path / "whole.jpg", 200, 200)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    (tmp_path / "none.png").write_bytes(b"")
    bad: list[dict[str, Any]] = [
        {"query": "What?", "images": ["cut.jpg"]},
        {"query": "What?", "images": ["none.png"]},
        {"query": "What?", "images": ["missing.png"]},
        {"query": "<image>What<image>?", "images": ["one.png"]},
        {"query": "What <|image_pad|>?", "images": ["one.png"]},
        {"query": "long " * 400, "images": ["one.png"]},
    ]
    with rows.open("a") as file:
        for row in bad:
            file.write(json.dumps({**row, "response": "yes", "rejected_response": "no"}) + "\n")
    more = (
        "--truncation_strategy",
        "truncation_left",
        "--max_length",
        "300",
        "--max_drop_ratio",
        "1",
        "--max_steps",
        "1",
    )
    train("dpo", "qwen2-vl-2b-instruct", tiny["qwen2-vl-2b-instruct"], rows, tmp_path / "output", *more)
    assert "10 rows: 4 kept, 0 truncated, 6 dropped" in capsys.readouterr().err
    entries = [json.loads(line) for line in (tmp_path / "output" / "data_ledger.jsonl").read_text().splitlines()]
    dropped = {entry["line"] for entry in entries if "reason" in entry}
    assert dropped == {5, 6, 7, 8, 9, 10}


def test_a_reference_of_another_family_is_refused(
    tiny: dict[str, Path], tmp_path: Path, smollm2_tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = write_tiny("qwen2_5_vl", tmp_path / "reference", smollm2_tokenizer_dir)
    words = ["--model_type", "qwen2-vl-2b-instruct", "--model_id_or_path", str(tiny["qwen2-vl-2b-instruct"])]
    words += ["--dataset", str(write_rows(tmp_path)), "--output_dir", str(tmp_path / "output")]
    assert main(["dpo", *words, "--ref_model_id_or_path", str(reference)]) == 2
    assert "is of the kind qwen2_5_vl, and the trained one is not" in capsys.readouterr().err
