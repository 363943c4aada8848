"""Cross-entropy in chunks, with its gradient made in the forward pass, against torch's own in float32."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curricula.loss import head_loss, head_nats


def sample(tokens, width=16, vocabulary=37, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=draw).to(dtype)
    head = torch.randn(vocabulary, width, generator=draw)
    bias = torch.randn(vocabulary, generator=draw)
    targets = torch.randint(0, vocabulary, (tokens,), generator=draw)
    weights = torch.rand(tokens, generator=draw)
    return hidden, head, bias, targets, weights


def plain(hidden, head, bias, targets, weights):
    """The same in float32, all logits at once, by autograd."""
    leaves = [part.detach().float().clone().requires_grad_() for part in (hidden, head, bias)]
    nats = torch.nn.functional.cross_entropy(torch.nn.functional.linear(*leaves), targets, reduction="none")
    (nats * weights).sum().backward()
    return nats.detach(), [leaf.grad for leaf in leaves]


def chunked(hidden, head, bias, targets, weights, chunk):
    leaves = [part.detach().clone().requires_grad_() for part in (hidden, head, bias)]
    total, nats = head_loss(*leaves, targets, weights, chunk_logits=chunk, block_logits=3 * chunk)
    total.backward()
    return total, nats, [leaf.grad for leaf in leaves]


def test_the_loss_of_a_model_that_knows_nothing_is_the_logarithm_of_the_vocabulary():
    hidden = torch.zeros(5, 8)
    total, nats = head_loss(
        hidden, torch.ones(50, 8), None, torch.arange(5), torch.full((5,), 0.2), chunk_logits=100, block_logits=150
    )
    assert nats.tolist() == pytest.approx([math.log(50)] * 5)
    assert float(total) == pytest.approx(math.log(50))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(1, 2000), st.integers(0, 99))
def test_loss_and_gradients_are_those_of_torch_for_any_chunk(tokens, chunk, seed):
    parts = sample(tokens, seed=seed)
    expected, gradients = plain(*parts)
    total, nats, found = chunked(*parts, chunk)
    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(total, (expected * parts[-1]).sum(), rtol=1e-5, atol=1e-5)
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_in_bfloat16_the_heads_gradient_is_summed_in_float32():
    """Summed in bfloat16, thousands of chunks would each be lost against the sum: the error would be tens of percent."""
    hidden, head, bias, targets, _ = sample(4096, dtype=torch.bfloat16)
    weights = torch.full((4096,), 1 / 4096)
    _, gradients = plain(hidden, head.to(torch.bfloat16), bias.to(torch.bfloat16), targets, weights)
    _, _, found = chunked(hidden, head, bias, targets, weights, chunk=37)
    assert found[1].dtype == torch.float32
    assert float((found[1] - gradients[1]).norm() / gradients[1].norm()) < 0.01


def test_a_head_that_is_the_embedding_too_gets_both_gradients():
    _, table, _, targets, weights = sample(10)
    tied = table.clone().requires_grad_()
    total, _ = head_loss(tied[targets], tied, None, targets.flip(0), weights, chunk_logits=80, block_logits=200)
    total.backward()
    other = table.clone().requires_grad_()
    logits = torch.nn.functional.linear(other[targets], other)
    (torch.nn.functional.cross_entropy(logits, targets.flip(0), reduction="none") * weights).sum().backward()
    torch.testing.assert_close(tied.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_hidden_states_the_same_one():
    hidden, head, _, targets, weights = sample(12)
    free, frozen = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    head_loss(free, head.clone().requires_grad_(), None, targets, weights, chunk_logits=64, block_logits=99)[
        0
    ].backward()
    head_loss(frozen, head, None, targets, weights, chunk_logits=64, block_logits=99)[0].backward()
    assert torch.equal(free.grad, frozen.grad)
    assert head.grad is None


def test_evaluation_tells_the_same_losses():
    hidden, head, bias, targets, weights = sample(30)
    _, nats = head_loss(hidden, head, bias, targets, weights, chunk_logits=111, block_logits=300)
    torch.testing.assert_close(head_nats(hidden, head, bias, targets, chunk_logits=222), nats)
    assert head_nats(hidden[:0], head, bias, targets[:0], chunk_logits=222).shape == (0,)
