"""Attention of packed documents on a CPU, against each document alone in torch's own attention."""

from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from curricula.attention import BLOCK, packed_attention

HEADS, KEY_HEADS, WIDTH = 6, 2, 8


def drawn(tokens: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Queries, keys, values and a gradient from above."""
    torch.manual_seed(tokens)
    shapes = [(tokens, heads, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    parts = [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]
    return *parts, torch.randn(tokens, HEADS, WIDTH).to(dtype)


def by_document(query: Tensor, key: Tensor, value: Tensor, bounds: list[int], window: int | None) -> Tensor:
    found = []
    for begin, end in pairwise(bounds):
        alone = [part[begin:end].float().transpose(0, 1).unsqueeze(0) for part in (query, key, value)]
        places = torch.arange(end - begin)
        seen = places <= places.unsqueeze(1)
        if window:
            seen &= places > places.unsqueeze(1) - window
        found.append(
            scaled_dot_product_attention(*alone, attn_mask=seen, scale=0.3, enable_gqa=True)[0].transpose(0, 1)
        )
    return torch.cat(found)


def both(lengths: list[int], *, window: int | None = None, dtype: torch.dtype = torch.float32) -> list[list[Tensor]]:
    """The result and three gradients, ours and the documents' alone."""
    bounds = [0, *accumulate(lengths)]
    found = []
    for attend in (
        lambda *parts: packed_attention(*parts, torch.tensor(bounds), scaling=0.3, window=window),
        lambda *parts: by_document(*parts, bounds, window).to(dtype),
    ):
        *parts, upstream = drawn(sum(lengths), dtype)
        out = attend(*parts)
        out.backward(upstream)
        found.append([out.detach(), *(part.grad for part in parts)])
    return found


def test_two_documents_of_one_token_each_are_their_own_values():
    value = torch.tensor([[[3.0]], [[5.0]]])
    out = packed_attention(torch.ones(2, 1, 1), torch.ones(2, 1, 1), value, torch.tensor([0, 1, 2]), scaling=1.0)
    assert out.flatten().tolist() == [3.0, 5.0]


def test_equal_keys_average_what_has_been_read_so_far():
    value = torch.tensor([2.0, 4.0, 9.0]).reshape(3, 1, 1)
    out = packed_attention(torch.ones(3, 1, 1), torch.ones(3, 1, 1), value, torch.tensor([0, 3]), scaling=1.0)
    assert out.flatten().tolist() == [2.0, 3.0, 5.0]


def test_a_window_of_two_sees_a_token_and_the_one_before():
    value = torch.tensor([2.0, 4.0, 9.0]).reshape(3, 1, 1)
    ones = torch.ones(3, 1, 1)
    out = packed_attention(ones, ones, value, torch.tensor([0, 3]), scaling=1.0, window=2)
    assert out.flatten().tolist() == [2.0, 3.0, 6.5]


@given(st.lists(st.integers(1, 2 * BLOCK + 3), min_size=1, max_size=6), st.sampled_from([None, 1, 5, BLOCK, BLOCK + 1]))
@settings(max_examples=25, deadline=None)
def test_result_and_gradients_are_those_of_each_document_alone(lengths, window):
    for ours, alone in zip(*both(lengths, window=window), strict=True):
        torch.testing.assert_close(ours, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", [[1], [BLOCK], [BLOCK - 1, 1, BLOCK + 1], [3 * BLOCK], [7] * 60])
def test_bfloat16_is_off_by_its_own_rounding_alone(lengths):
    for ours, alone in zip(*both(lengths, dtype=torch.bfloat16), strict=True):
        assert (ours.float() - alone.float()).abs().max() <= 0.02 * alone.float().abs().max()


def test_what_follows_in_another_document_changes_not_one_bit():
    query, key, value, _ = drawn(BLOCK + 40)
    bounds = torch.tensor([0, BLOCK + 10, BLOCK + 40])
    before = packed_attention(query, key, value, bounds, scaling=0.3)
    with torch.no_grad():
        key[BLOCK + 10 :] += 1.0
        value[BLOCK + 10 :] = float("nan")
    after = packed_attention(query, key, value, bounds, scaling=0.3)
    assert torch.equal(before[:BLOCK], after[:BLOCK])
