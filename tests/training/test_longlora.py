"""Shifted sparse attention: what each half of the heads sees, and that only training sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.training.kit import tiny_model
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from swift.training.longlora import group_lengths, shift_attention
from swift.training.varlen_attention import keep_inside_sequences

LENGTHS = (11, 5, 16)
GROUP = 4


Stretches = list[tuple[int, int]]


def seen(length: int, first: int, stretches: Stretches) -> Tensor:
    """(length, length): which tokens a token of one half of the heads sees, written down token by token."""
    group = [0 if token < first else 1 + (token - first) // GROUP for token in range(length)]
    image = [next((at for at, (a, b) in enumerate(stretches) if a <= token < b), -1 - token) for token in range(length)]
    return torch.tensor(
        [[group[k] == group[q] and (k <= q or image[k] == image[q]) for k in range(length)] for q in range(length)]
    )


def test_groups_of_a_sequence_add_up_to_it() -> None:
    assert group_lengths(11, 4, 4) == [4, 4, 3]
    assert group_lengths(11, 4, 2) == [2, 4, 4, 1]
    assert group_lengths(3, 8, 4) == [3]
    assert group_lengths(16, 4, 2) == [2, 4, 4, 4, 2]


@pytest.mark.parametrize("stretches", [None, ([(2, 7)], [], [(0, 3), (5, 15)])], ids=["text", "images"])
def test_each_half_of_the_heads_attends_inside_its_own_groups(stretches: tuple[Stretches, ...] | None) -> None:
    """Tokens of an image that see each other both ways do so where they are of one group."""
    model = tiny_model()
    assert keep_inside_sequences(model)
    shift_attention(model, 16)  # a quarter is a group of four
    layer = model.model.layers[0].self_attn
    torch.manual_seed(0)
    states = torch.randn(1, sum(LENGTHS), 64)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    rope = model.model.rotary_emb(states, positions)
    layer.train()
    outputs: list[Tensor] = []
    layer.o_proj.register_forward_pre_hook(lambda module, inputs: outputs.append(inputs[0].detach()))
    rows = {"sequence_lengths": LENGTHS} if stretches is None else {"sequence_lengths": LENGTHS, "both_ways": stretches}
    layer(states, position_embeddings=rope, attention_mask=None, **rows)
    layer.eval()
    layer(states, position_embeddings=rope, attention_mask=None, **rows)
    shifted, whole = (output.view(1, -1, 4, 16).transpose(1, 2) for output in outputs)

    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    q, k, v = (
        proj(states).view(1, -1, heads, 16).transpose(1, 2)
        for proj, heads in ((layer.q_proj, 4), (layer.k_proj, 2), (layer.v_proj, 2))
    )
    q, k = apply_rotary_pos_emb(q, k, *rope)
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    each = list(zip(LENGTHS, stretches or [[]] * 3, strict=True))
    for half, first in ((slice(0, 2), GROUP), (slice(2, 4), GROUP // 2)):
        mask = torch.block_diag(*[seen(length, first, images).float() for length, images in each]).bool()
        expected = scaled_dot_product_attention(q[:, half], k[:, half], v[:, half], attn_mask=mask)
        torch.testing.assert_close(shifted[:, half], expected, atol=1e-5, rtol=0)
    full = [torch.ones(length, length).tril() for length in LENGTHS]
    for mask, (_, images) in zip(full, each, strict=True):
        for begin, end in images:
            mask[begin:end, begin:end] = 1
    full = torch.block_diag(*full).bool()
    torch.testing.assert_close(whole, scaled_dot_product_attention(q, k, v, attn_mask=full), atol=1e-5, rtol=0)


def test_padded_rows_give_what_they_give_alone(tmp_path: Path) -> None:
    model = tiny_model()
    shift_attention(model, 16)
    model.train()
    short, long = torch.arange(3, 12)[None], torch.arange(20, 36)[None]
    padded = torch.cat([torch.nn.functional.pad(short, (0, 7)), long])
    mask = torch.ones_like(padded)
    mask[0, 9:] = 0
    with torch.no_grad():
        together = model(input_ids=padded, attention_mask=mask, use_cache=False).logits
        torch.testing.assert_close(together[:1, :9], model(input_ids=short, use_cache=False).logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(together[1:], model(input_ids=long, use_cache=False).logits, atol=1e-5, rtol=0)
