"""The engine on a GPU gives the answers that it gives on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from swift.engines.base import Engine, Request, SamplingParams
from swift.engines.sync_engine import SyncEngine
from swift.engines.torch import TorchEngine
from training.test_varlen_attention import models

PROMPTS = [[(7 * i + j * (i + 3)) % 490 + 3 for j in range(size)] for i, size in enumerate((5, 25, 60, 2))]


class Numbers:
    """A tokenizer of numbers."""

    eos_token_id = None

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def answers(model: PreTrainedModel, at_once: int) -> list[list[int]]:
    async def start() -> Engine:
        return TorchEngine(lambda: model, Numbers(), chunk=24)

    sampling = SamplingParams(max_tokens=20, ignore_eos=True)
    with SyncEngine(start) as sync:
        requests = [Request(id="r", prompt_ids=tuple(prompt), sampling=sampling) for prompt in PROMPTS]
        return [reply.token_ids for reply in sync.replies(iter(requests), at_once)]


@pytest.mark.parametrize("name", models())
def test_answers_are_those_of_a_cpu(name: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    expected = answers(models()[name].float(), 4)
    for at_once in (1, 4):
        assert answers(models()[name].float().cuda(), at_once) == expected
