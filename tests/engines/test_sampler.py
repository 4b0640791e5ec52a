"""Choosing tokens: distributions against their definition, and rows that do not disturb each other."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from swift.engines.base import SamplingParams
from swift.engines.sampler import NoToken, Pick, Picker, pick_all

SIZE = 700
DRAWS = 4000


def picker(index: int = 0, prompt: tuple[int, ...] = (), ends: tuple[int, ...] = (), **settings: Any) -> Picker:
    return Picker(SamplingParams(max_tokens=9, **settings), index, prompt, ends, None)


def expected(logits: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    """The distribution, by the definition: scale, keep top_k, renormalise, keep the nucleus, renormalise."""
    scores = logits / temperature
    order = scores.argsort(descending=True)
    if top_k:
        order = order[:top_k]
    p = torch.softmax(scores[order], -1)
    kept = p.cumsum(-1) - p < top_p
    whole = torch.zeros(SIZE)
    whole[order[kept]] = p[kept] / p[kept].sum()
    return whole


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1, 0, 1), (0.7, 0, 0.8), (2.0, 5, 1), (1.3, 20, 0.6), (1, 650, 0.99), (1, 3, 0.01)],
)
def test_the_draws_follow_the_distribution(temperature: float, top_k: int, top_p: float, flat: bool) -> None:
    """A flat one, whose nucleus is wider than the candidates looked at first, and a peaked one."""
    logits = torch.randn(SIZE, generator=torch.Generator().manual_seed(1)) * (0.1 if flat else 3)
    p = expected(logits, temperature, top_k, top_p)
    pickers = [picker(i, seed=1, temperature=temperature, top_k=top_k, top_p=top_p) for i in range(DRAWS)]
    seen = Counter(pick.token_id for pick in pick_all(pickers, logits.expand(DRAWS, -1)))
    assert all(p[token] > 0 for token in seen), "nothing is drawn that was cut off"
    drawn = torch.zeros(SIZE)
    for token, count in seen.items():
        drawn[token] = count / DRAWS
    spread = (p * (1 - p) / DRAWS).sqrt()
    assert ((drawn - p).abs() <= 5 * spread + 2 / DRAWS).all()


def test_min_p_leaves_out_what_is_far_below_the_likeliest() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    wide = [picker(i, seed=1, temperature=1.0) for i in range(400)]
    narrow = [picker(i, seed=1, temperature=1.0, min_p=0.4) for i in range(400)]
    together = pick_all([*wide, *narrow], logits.expand(800, -1))
    assert {pick.token_id for pick in together[:400]} == {0, 1, 2, 3}
    assert {pick.token_id for pick in together[400:]} == {0, 1}
    hot = [picker(i, seed=1, temperature=3.0, min_p=0.4, top_p=0.9) for i in range(400)]
    assert {pick.token_id for pick in pick_all(hot, logits.expand(400, -1))} == {0, 1, 2, 3}, "after the temperature"


@pytest.mark.parametrize("flat", [False, True])
def test_a_row_gives_the_same_in_any_company(flat: bool) -> None:
    kinds: list[dict[str, Any]] = [
        {"temperature": 0},
        {"seed": 3, "temperature": 1, "top_p": 1, "top_k": 0},
        {"seed": 4, "temperature": 0.8, "top_k": 40, "top_p": 0.9},
        {"seed": 5, "temperature": 1.5, "top_k": 0, "top_p": 0.9},
        {"seed": 6, "temperature": 1, "top_k": 5, "top_p": 1, "repetition_penalty": 1.4},
        {"seed": 7, "temperature": 1, "top_k": 600, "top_p": 0.5, "logprobs": 3},
        {"seed": 8, "temperature": 1, "top_k": 690, "top_p": 1},
        {"temperature": 0, "presence_penalty": 1.0, "frequency_penalty": 0.3, "logprobs": 2},
    ]
    together = [picker(prompt=(1, 2, 3), ends=(7,), min_tokens=2, **kind) for kind in kinds]
    alone = [picker(prompt=(1, 2, 3), ends=(7,), min_tokens=2, **kind) for kind in kinds]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        logits = torch.randn((len(kinds), SIZE), generator=generator) * (0.05 if flat else 2)
        kept = logits.clone()
        company = pick_all(together, logits)
        assert torch.equal(logits, kept)
        assert company == [pick_all([each], row[None])[0] for each, row in zip(alone, logits, strict=True)]
        for pickers in (together, alone):
            for each, pick in zip(pickers, company, strict=True):
                each.took(pick.token_id)


def test_penalties_and_the_least_length() -> None:
    logits = torch.zeros((1, SIZE))
    logits[0, :4] = torch.tensor([2.0, 1.9, 1.8, -0.1])
    end_first = picker(ends=(0,), min_tokens=1, temperature=0)
    assert pick_all([end_first], logits)[0].token_id == 1
    end_first.took(1)
    assert pick_all([end_first], logits)[0].token_id == 0
    assert pick_all([picker(prompt=(0, 1), temperature=0, repetition_penalty=1.5)], logits)[0].token_id == 2
    present = picker(temperature=0, presence_penalty=0.15)
    for token in (0, 1, 0):
        pick = pick_all([present], logits)[0]
        assert pick.token_id == token
        present.took(pick.token_id)


def test_penalties_are_about_what_biases_made_of_the_logits() -> None:
    """As in vLLM, llama.cpp and transformers."""
    logits = torch.zeros((1, SIZE))
    logits[0, :3] = torch.tensor([-3.0, 3.0, 2.8])
    raised = picker(prompt=(0, 1), temperature=0, logit_bias=((1, 2.0),), repetition_penalty=2.0)
    assert pick_all([raised], logits)[0].token_id == 2  # (3 + 2) / 2, and not 3 / 2 + 2
    logits[0, :3] = torch.tensor([-3.0, 0.0, 1.0])
    turned = picker(prompt=(0,), temperature=0, logit_bias=((0, 6.0),), repetition_penalty=2.0)
    assert pick_all([turned], logits)[0].token_id == 0  # (-3 + 6) / 2, and not -3 * 2 + 6


def test_rows_without_a_largest_number_give_no_token_and_leave_the_others_theirs() -> None:
    logits = torch.zeros(5, SIZE)
    logits[:, 3] = 1.0
    logits[1, 9] = torch.nan
    logits[2] = -torch.inf
    logits[3, 9] = torch.inf
    hot = {"temperature": 1.0, "top_k": 1}
    for settings in ({}, hot, {**hot, "top_p": 0.5, "repetition_penalty": 1.1}):
        picks = pick_all([picker(prompt=(0,), min_tokens=1, **settings) for _ in range(5)], logits)
        assert [isinstance(pick, NoToken) for pick in picks] == [False, True, True, True, False]
        assert picks[0] == picks[4] == Pick(3)
