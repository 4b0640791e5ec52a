"""The formulas of PPO against fixed numbers, and what lies behind the end of an answer."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch
from torch import Tensor

from conftest import FIXTURES
from swift.training.policy_gradient import algebra
from swift.training.policy_gradient.rollouts import Rollout, forget_from, read, write
from swift.training.policy_gradient.schedule import Schedule

FIXED = json.loads((FIXTURES / "ppo_functions.json").read_text())


def fixed(name: str) -> Tensor:
    return torch.tensor(FIXED["in"][name], dtype=torch.float64)


def expected(name: str) -> Tensor:
    return torch.tensor(FIXED["out"][name], dtype=torch.float64)


def test_the_formulas_give_the_fixed_numbers() -> None:
    given, mask = FIXED["in"], fixed("mask")
    rewards = algebra.shaped_rewards(fixed("logprobs"), fixed("ref_logprobs"), fixed("score"), mask, given["kl_coef"])
    torch.testing.assert_close(rewards, expected("rewards"))
    white = algebra.whiten(rewards, mask, keep_mean=True)
    torch.testing.assert_close(white, expected("rewards whitened (mean kept)"))
    decay = {"gamma": given["gamma"], "lam": given["lam"]}
    advantages, returns = algebra.advantages(rewards, fixed("values"), mask, **decay)
    torch.testing.assert_close(advantages, expected("advantages"))
    torch.testing.assert_close(returns, expected("returns"))
    of_white, _ = algebra.advantages(white, fixed("values"), mask, **decay)
    torch.testing.assert_close(of_white, expected("advantages of whitened rewards"))
    advantages = algebra.whiten(advantages, mask)
    torch.testing.assert_close(advantages, expected("advantages whitened"))
    policy, _ = algebra.policy_losses(fixed("new_logprobs"), fixed("logprobs"), advantages, given["clip"])
    value, _ = algebra.value_losses(fixed("new_values"), fixed("values"), returns, given["vclip"])
    policy, value = algebra.masked_mean(policy, mask), algebra.masked_mean(value, mask)
    torch.testing.assert_close(policy, expected("policy loss"))
    torch.testing.assert_close(value, expected("value loss"))
    torch.testing.assert_close(policy + given["vf"] * value, expected("loss"))


def test_nothing_behind_the_end_of_an_answer_counts() -> None:
    mask = fixed("mask")
    names = ("logprobs", "ref_logprobs", "values")
    results = []
    for fill in (0.0, 1e6, float("nan")):
        log_probs, ref, values = (torch.where(mask.bool(), fixed(name), torch.tensor(fill).double()) for name in names)
        rewards = algebra.shaped_rewards(log_probs, ref, fixed("score"), mask, 0.1)
        white = algebra.whiten(rewards, mask, keep_mean=True)
        results.append(torch.stack(algebra.advantages(white, values, mask, gamma=0.9, lam=0.9)))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    assert not results[0][:, mask == 0].any()


def test_answers_of_one_token_and_of_none() -> None:
    one = torch.ones(1, 1)
    assert algebra.whiten(3 * one, one) == 3
    rewards = algebra.shaped_rewards(one, one, torch.tensor([2.0]), one, 0.1)
    advantage, returns = algebra.advantages(rewards, 0.5 * one, one, gamma=1.0, lam=0.95)
    assert (advantage, returns) == (1.5, 2.0)
    assert not algebra.shaped_rewards(one, one, torch.tensor([2.0]), 0 * one, 0.1).any()


def test_clipping_holds_the_loss_and_its_gradient() -> None:
    new = torch.tensor([0.5, -0.5, 0.5, -0.5], requires_grad=True)
    losses, clipped = algebra.policy_losses(new, torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2)
    losses.sum().backward()
    assert clipped.tolist() == [True, False, False, True]
    assert new.grad is not None and (new.grad != 0).tolist() == [False, True, True, False]


def test_answers_keep_characters_that_end_a_line(tmp_path: Path) -> None:
    texts = ["one\u2028line", "a\x0bb\x85c", "d\r\ne\x1cf"]
    answers = [
        Rollout(
            roll_out=number,
            place=0,
            row=0,
            origin="rows:1",
            prompt_ids=[1],
            answer_ids=[2],
            text=text,
            ended=True,
            engine_log_probs=[0.0],
        )
        for number, text in enumerate(texts)
    ]
    write(tmp_path / "rollouts.jsonl", answers)
    forget_from(tmp_path / "rollouts.jsonl", 2)
    assert read(tmp_path / "rollouts.jsonl") == answers[:2]


def test_workers_can_be_sent_the_schedule() -> None:
    """Where processes are not forked, as on macOS, what a DataLoader reads is pickled."""
    schedule = Schedule(range(10), size=8, epochs=2, rows=32, seed=0, generations=2)
    items = [schedule[number] for number in range(32)]
    assert [pickle.loads(pickle.dumps(schedule))[number] for number in range(32)] == items
    assert sorted(item["place"] for item in items[:8]) == list(range(8))
