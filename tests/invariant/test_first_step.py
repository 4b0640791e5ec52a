"""Every loss of `swift rlhf` from the command line: what the first step logs, against the papers in float64.

Nothing of the package is used for the expected values: prompts are written by hand, models are run by transformers one
sequence at a time, and the losses are written from their papers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from swift.cli import main

pytestmark = pytest.mark.slow
ROWS = 6
SYSTEM = "Judge."
WORDS = ("sea", "ship", "sail", "storm", "port", "wind", "wave", "gull", "sand", "tide")


@dataclass(frozen=True)
class Case:
    """A command line: `--rlhf_type kind` and flags; `splits` of the six rows that give one and the same step."""

    kind: str
    flags: dict[str, Any] = field(default_factory=dict)
    splits: tuple[tuple[int, int], ...] = ((6, 1), (3, 2), (1, 6))

    def __str__(self) -> str:
        return "-".join([self.kind, *(f"{name}={value}" for name, value in self.flags.items())])


WHOLE = ((6, 1),)
CASES = [
    *(
        Case("dpo", {"loss_type": loss, "beta": 0.5, "rpo_alpha": 0.0})
        for loss in ("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down")
    ),
    *(
        Case("dpo", {"loss_type": loss, "beta": 0.5, "rpo_alpha": 0.0, "label_smoothing": 0.2})
        for loss in ("sigmoid", "exo_pair", "robust")
    ),
    *(Case("dpo", {"loss_type": loss, "beta": 0.5, "rpo_alpha": 0.0}, WHOLE) for loss in ("aot", "aot_pair")),
    *(
        Case("dpo", {"loss_type": loss, "beta": 0.5, "rpo_alpha": 0.0, "label_smoothing": 0.2}, WHOLE)
        for loss in ("aot", "aot_pair")
    ),
    Case("dpo"),
    Case("dpo", {"loss_type": "ipo", "rpo_alpha": 0.3}),
    *(Case("cpo", {"loss_type": loss}) for loss in ("sigmoid", "hinge", "ipo", "simpo")),
    Case("cpo", {"label_smoothing": 0.2, "cpo_alpha": 0.4}),
    Case("cpo", {"loss_type": "simpo", "label_smoothing": 0.2, "cpo_alpha": 0.0, "simpo_gamma": 0.6}),
    Case("simpo"),
    Case("simpo", {"beta": 1.5, "label_smoothing": 0.1, "cpo_alpha": 0.0}),
    Case("orpo"),
    Case("orpo", {"beta": 0.7}),
    Case("kto", {}, WHOLE),
    Case("kto", {"beta": 0.4, "desirable_weight": 1.3, "undesirable_weight": 0.6}, WHOLE),
    Case("kto", {"loss_type": "apo_zero_unpaired", "desirable_weight": 1.3}),
    Case("rm"),
]


# Rows, and the text that a Llama with the template smollm2 is to see of them.


def text(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


def rows(kind: str) -> list[dict[str, Any]]:
    rng = random.Random(5)
    written = []
    for number in range(ROWS):
        row: dict[str, Any] = {"query": text(rng, 8, 16), "response": text(rng, 2, 9)}
        if number % 3 == 0:
            row["history"] = [[text(rng, 2, 5), text(rng, 2, 5)]]
        if kind == "kto":
            row["label"] = [True, False, 1, 0, "true", "false"][number]
        else:
            row["rejected_response"] = text(rng, 2, 9)
        written.append(row)
    return written


def pieces(row: dict[str, Any], answer: str) -> list[tuple[str, bool]]:
    """The text of a row and whether it is an answer, each answer with its end."""
    parts = [(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n", False)]
    for query, reply in [*row.get("history", []), [row["query"], answer]]:
        parts.append((f"<|im_start|>user\n{query}<|im_end|>\n<|im_start|>assistant\n", False))
        parts += [(f"{reply}<|im_end|>", True), ("\n", False)]
    return parts[:-1]


@dataclass(frozen=True)
class Tokens:
    """Token ids, and which of them are trained."""

    ids: list[int]
    trained: list[bool]

    def answer_start(self) -> int:
        return self.trained.index(True)


def encoded(tokenizer: Any, row: dict[str, Any], answer: str, *, all_rounds: bool) -> Tokens:
    parts = pieces(row, answer)
    ids: list[int] = []
    trained: list[bool] = []
    for number, (part, is_answer) in enumerate(parts):
        # Words follow a line break or a mark: no token spans two pieces.
        some = tokenizer(part)["input_ids"]
        ids += some
        trained += [is_answer and (all_rounds or number == len(parts) - 1)] * len(some)
    assert ids == tokenizer("".join(part for part, _ in parts))["input_ids"]
    return Tokens(ids, trained)


# The models in float64.


def float64(folder: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    return model.eval()


def summed(model: PreTrainedModel, sequence: Tokens) -> Tensor:
    """The sum of the log-probabilities of the trained tokens."""
    logits = model(input_ids=torch.tensor([sequence.ids])).logits[0].double()
    log_probs = torch.log_softmax(logits[:-1], -1)
    at = [place for place in range(1, len(sequence.ids)) if sequence.trained[place]]
    return torch.stack([log_probs[place - 1, sequence.ids[place]] for place in at]).sum()


@dataclass(frozen=True)
class Sums:
    """Of the chosen (w) and rejected (l) answers: log-probabilities (6), those of the reference, and token counts."""

    w: Tensor
    l: Tensor  # noqa: E741
    ref_w: Tensor
    ref_l: Tensor
    count_w: Tensor
    count_l: Tensor

    @property
    def nll(self) -> float:
        return (-self.w.sum() / self.count_w.sum()).item()


# The losses, from the papers.


def loss_of_pairs(case: Case, s: Sums) -> Tensor:
    given = {"label_smoothing": 0.0, "rpo_alpha": 1.0, "cpo_alpha": 1.0, "simpo_gamma": 1.0, **case.flags}
    beta = given.get("beta", 2.0 if case.kind == "simpo" else 0.1)
    kind = given.get("loss_type", {"dpo": "sigmoid", "cpo": "sigmoid", "simpo": "simpo"}.get(case.kind))
    e = given["label_smoothing"]
    nll = -s.w.sum() / s.count_w.sum()

    def bce(x: Tensor) -> Tensor:
        return (1 - e) * softplus(-x) + e * softplus(x)

    if case.kind == "orpo":
        mean_w, mean_l = s.w / s.count_w, s.l / s.count_l
        odds = mean_w - mean_l - (torch.log(1 - mean_w.exp()) - torch.log(1 - mean_l.exp()))
        return nll + beta * softplus(-odds).mean()
    if case.kind in ("cpo", "simpo"):
        w, l = s.w, s.l  # noqa: E741
        if kind in ("ipo", "simpo"):
            w, l = w / s.count_w, l / s.count_l  # noqa: E741
        losses = {
            "sigmoid": lambda: bce(beta * (w - l)),
            "hinge": lambda: (1 - beta * (w - l)).clamp(min=0),
            "ipo": lambda: (w - l - 1 / (2 * beta)) ** 2,
            "simpo": lambda: bce(beta * (w - l) - given["simpo_gamma"]),
        }
        return losses[kind]().mean() + given["cpo_alpha"] * nll
    r, q = s.w - s.ref_w, s.l - s.ref_l
    x = beta * (r - q)
    if kind == "exo_pair":
        e = e or 1e-3
    delta = (beta * (r + q).sum() / (2 * len(r))).detach()
    losses = {
        "sigmoid": lambda: bce(x),
        "hinge": lambda: (1 - x).clamp(min=0),
        "ipo": lambda: (r / s.count_w - q / s.count_l - 1 / (2 * beta)) ** 2,
        "exo_pair": lambda: (
            torch.sigmoid(x) * (logsigmoid(x) - torch.tensor(1 - e).double().log())
            + torch.sigmoid(-x) * (logsigmoid(-x) - torch.tensor(e).double().log())
        ),
        "nca_pair": lambda: softplus(-beta * r) + 0.5 * softplus(beta * r) + 0.5 * softplus(beta * q),
        "robust": lambda: ((1 - e) * softplus(-x) - e * softplus(x)) / (1 - 2 * e),
        "bco_pair": lambda: softplus(-(beta * r - delta)) + softplus(beta * q - delta),
        "sppo_hard": lambda: (r - 1 / (2 * beta)) ** 2 + (q + 1 / (2 * beta)) ** 2,
        "aot": lambda: bce(beta * ((s.w - s.l).sort()[0] - (s.ref_w - s.ref_l).sort()[0])),
        "aot_pair": lambda: bce(beta * (r.sort()[0] - q.sort()[0])),
        "apo_zero": lambda: 1 - torch.sigmoid(beta * r) + torch.sigmoid(beta * q),
        "apo_down": lambda: torch.sigmoid(beta * r) + 1 - torch.sigmoid(x),
    }
    return losses[kind]().mean() + given["rpo_alpha"] * nll


def loss_of_labelled(case: Case, ratios: Tensor, labels: Sequence[bool], kl: float) -> Tensor:
    beta = case.flags.get("beta", 0.1)
    shift = 0.0 if case.flags.get("loss_type") == "apo_zero_unpaired" else kl
    good, bad = case.flags.get("desirable_weight", 1.0), case.flags.get("undesirable_weight", 1.0)
    losses = [
        (good if label else bad) * (1 - torch.sigmoid(beta * (ratio - shift) * (1 if label else -1)))
        for ratio, label in zip(ratios, labels, strict=True)
    ]
    return torch.stack(losses).mean()


@dataclass(frozen=True)
class World:
    """Two models in float64 as folders and in memory, the first with a value head beside it."""

    policy_folder: Path
    reference_folder: Path
    policy: PreTrainedModel
    reference: PreTrainedModel
    head: dict[str, Tensor]
    tokenizer: Any

    def sequences(self, kind: str) -> list[tuple[Tokens, ...]]:
        ends = ("response",) if kind == "kto" else ("response", "rejected_response")
        return [
            tuple(encoded(self.tokenizer, row, row[end], all_rounds=kind == "orpo") for end in ends)
            for row in rows(kind)
        ]

    def gradient_norm(self, loss: Tensor, extra: Sequence[Tensor] = ()) -> float:
        inputs = [*self.policy.parameters(), *extra]
        gradients = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
        return float(torch.stack([g.norm() for g in gradients if g is not None]).norm())


@pytest.fixture(scope="module")
def world(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folders, models = [], []
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    for number, name in enumerate(("policy", "reference")):
        torch.manual_seed(number)
        model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        folder = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders.append(folder)
        models.append(float64(folder))
    head = {"v_head.summary.weight": torch.randn(1, 64) * 0.3, "v_head.summary.bias": torch.randn(1)}
    return World(*folders, *models, head, tokenizer)


def logged(world: World, case: Case, folder: Path, split: tuple[int, int], **more: Any) -> dict[str, Any]:
    """What the first step of the command logs."""
    folder.mkdir()
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(case.kind)))
    flags = {
        "rlhf_type": case.kind,
        "model_id_or_path": world.policy_folder,
        "template_type": "smollm2",
        "system": SYSTEM,
        "dataset": data,
        "sft_type": "full",
        "output_dir": folder / "run",
        "add_output_dir_suffix": "false",
        "dataset_test_ratio": 0,
        "max_steps": 1,
        "batch_size": split[0],
        "gradient_accumulation_steps": split[1],
        "logging_steps": 1,
        "report_to": "none",
        "no_cache": "true",
        **({"ref_model_id_or_path": world.reference_folder} if case.kind in ("dpo", "kto") else {}),
        **case.flags,
        **more,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    assert main(["rlhf", *(str(word) for name, value in given.items() for word in (f"--{name}", value))]) == 0
    events = [json.loads(line) for line in (folder / "run" / "logging.jsonl").read_text().splitlines()]
    return next(event for event in events if "grad_norm" in event)


@pytest.fixture(scope="module")
def sums(world: World) -> Callable[[str], Sums]:
    """The sums of the pairs of a kind, computed once."""
    known: dict[bool, Sums] = {}

    def of(kind: str) -> Sums:
        if (kind == "orpo") not in known:
            pairs = world.sequences(kind)
            policy = [torch.stack([summed(world.policy, pair[end]) for pair in pairs]) for end in (0, 1)]
            with torch.no_grad():
                reference = [torch.stack([summed(world.reference, pair[end]) for pair in pairs]) for end in (0, 1)]
            counts = [torch.tensor([sum(pair[end].trained) for pair in pairs]).double() for end in (0, 1)]
            known[kind == "orpo"] = Sums(*policy, *reference, *counts)
        return known[kind == "orpo"]

    return of


def expected_of_kto(world: World, case: Case, event: dict[str, Any]) -> Tensor:
    """The loss; the logged KL must be that of one order of the rows, each prompt with the answer of its neighbour."""
    sequences = [one for (one,) in world.sequences("kto")]
    with torch.no_grad():
        reference = torch.stack([summed(world.reference, one) for one in sequences])
    ratios = torch.stack([summed(world.policy, one) for one in sequences]) - reference
    kl = 0.0
    if "loss_type" not in case.flags:
        mixed = torch.zeros(ROWS, ROWS, dtype=torch.float64)
        for row, one in enumerate(sequences):
            for other, two in enumerate(sequences):
                ids = one.ids[: one.answer_start()] + two.ids[two.answer_start() :]
                trained = [False] * one.answer_start() + two.trained[two.answer_start() :]
                with torch.no_grad():
                    both = [summed(model, Tokens(ids, trained)) for model in (world.policy, world.reference)]
                mixed[row, other] = both[0] - both[1]
        cycles = [(0, *rest) for rest in permutations(range(1, ROWS))]
        kls = [max(0.0, float(sum(mixed[a, b] for a, b in zip(c, (*c[1:], 0), strict=True)) / ROWS)) for c in cycles]
        assert min(abs(value - event["kl"]) for value in kls) < 1e-4
        kl = event["kl"]
    return loss_of_labelled(case, ratios, [True, False] * 3, kl)


def expected_of_rm(world: World) -> tuple[Tensor, list[Tensor]]:
    weight, bias = (tensor.double().requires_grad_() for tensor in world.head.values())
    scores = []
    for pair in world.sequences("rm"):
        states = [world.policy.model(input_ids=torch.tensor([one.ids])).last_hidden_state[0, -1] for one in pair]
        scores.append([state @ weight[0] + bias[0] for state in states])
    return torch.stack([softplus(rejected - chosen) for chosen, rejected in scores]).mean(), [weight, bias]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_first_step(case: Case, world: World, sums: Callable[[str], Sums], tmp_path: Path) -> None:
    if case.kind == "rm":
        save_file(world.head, world.policy_folder / "value_head.safetensors")
    try:
        events = [logged(world, case, tmp_path / str(batch), (batch, count)) for batch, count in case.splits]
    finally:
        (world.policy_folder / "value_head.safetensors").unlink(missing_ok=True)
    extra: list[Tensor] = []
    for_all = None if case.kind in ("kto", "rm") else sums(case.kind)
    for event in events:
        if case.kind == "kto":
            loss = expected_of_kto(world, case, event)
        elif case.kind == "rm":
            loss, extra = expected_of_rm(world)
        else:
            assert for_all is not None
            loss = loss_of_pairs(case, for_all)
            assert event["nll_loss"] == pytest.approx(for_all.nll, abs=1e-4)
        assert event["loss"] == pytest.approx(loss.item(), abs=1e-4, rel=1e-5)
        assert event["grad_norm"] == pytest.approx(world.gradient_norm(loss, extra), rel=1e-3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
