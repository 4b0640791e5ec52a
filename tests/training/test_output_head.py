"""What is made of hidden states needs the head's weights in its forward only, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Gemma2Config, PreTrainedModel

from swift.training.objectives import Batch
from swift.training.objectives.answer_log_probs import AnswerLogProbs
from swift.training.objectives.sft import SftObjective
from swift.training.output_head import OutputHead
from training.kit import tiny_model

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
AT = torch.tensor([2, 3, 4])
ROWS: Batch = {"input_ids": IDS, "labels": IDS, "predicted_at": AT}
ANSWERS: Batch = {"input_ids": IDS, "targets": IDS[0, AT + 1], "predicted_at": AT}


def lend_weights_in_forward_only(head: nn.Module) -> None:
    """Take the weights of `head` away but for its own forward, as an engine does that shares them out."""
    weight = head.get_parameter("weight")
    whole, nothing = weight.data, weight.data.new_empty(0)

    def lend(*_: object) -> None:
        weight.data = whole

    def take_back(*_: object) -> None:
        weight.data = nothing

    head.register_forward_pre_hook(lend)
    head.register_forward_hook(take_back)
    take_back()


@pytest.mark.parametrize(
    "score",
    [
        lambda model: (objective := SftObjective(model), lambda: objective.sums(model, ROWS).loss)[1],
        lambda model: (answers := AnswerLogProbs(model), lambda: answers(model, ANSWERS).log_probs)[1],
        lambda model: (answers := AnswerLogProbs(model, 0.7), lambda: answers(model, ANSWERS).mean_logits)[1],
        lambda model: (cool := AnswerLogProbs(model, 0.7), lambda: cool(model, ANSWERS, untempered=True).untempered)[1],
    ],
)
def test_the_weights_of_the_head_are_only_used_in_its_forward(
    score: Callable[[PreTrainedModel], Callable[[], Tensor]],
) -> None:
    model = tiny_model(tie_word_embeddings=False)
    measure = score(model)
    with torch.no_grad():
        before = measure()
        lend_weights_in_forward_only(model.get_output_embeddings())
        assert torch.equal(measure(), before)


def test_a_head_whose_logits_are_capped_is_left_to_the_model() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    config = Gemma2Config(vocab_size=64, num_attention_heads=4, num_key_value_heads=2, **sizes)
    assert not OutputHead(AutoModelForCausalLM.from_config(config)).plain
    config.final_logit_softcapping = None
    assert OutputHead(AutoModelForCausalLM.from_config(config)).plain
