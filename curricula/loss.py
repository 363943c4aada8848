"""Cross-entropy of the next token without ever holding all logits, and exact over micro-batches.

The output layer and the loss are one autograd function: it turns some rows of hidden states into logits, takes their
loss, and turns them at once into gradients, in the forward pass, so that only one chunk of logits exists at a time.
Gradients of the output layer are summed over the chunks in float32: in bfloat16, sums over chunks have been seen to
stall training (axolotl#1601). Alternative: checkpointing each chunk, which computes all logits twice and was 7 times as
slow on a CPU; fused kernels (Liger, CCE) bind to one device and one model family.

Price: the gradient is computed even where nobody calls backward, so evaluation has a function of its own.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK_LOGITS = {"cpu": 2**23, "cuda": 2**28}
"""Logits held at a time, in numbers: 32 MB and 1 GB in float32."""


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        head_gradient_is_wanted, bias_gradient_is_wanted = ctx.needs_input_grad[1:3]
        rounded, shift = head.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        nats = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros_like(head, dtype=torch.float32) if head_gradient_is_wanted else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and bias_gradient_is_wanted else None
        for first in range(0, len(targets), rows):
            part = slice(first, first + rows)
            logits = torch.nn.functional.linear(hidden[part], rounded, shift).float()
            nats[part], slope = _loss_and_slope(logits, targets[part], weights[part])
            slope = slope.to(hidden.dtype)
            torch.mm(slope, rounded, out=d_hidden[part])
            if d_head is not None:
                d_head += slope.T @ hidden[part]
            if d_bias is not None:
                d_bias += slope.sum(0, dtype=torch.float32)
        ctx.save_for_backward(d_hidden, d_head, d_bias)
        ctx.mark_non_differentiable(nats)
        return (nats * weights).sum(), nats

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0]
        d_hidden, d_head, d_bias = (
            # In place: these are ours alone, and the gradient of the output layer is the largest tensor of all.
            None if gradient is None else gradient.mul_(scale)
            for gradient in ctx.saved_tensors
        )
        return d_hidden, d_head, d_bias, None, None, None


def _loss_and_slope(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each row in nats, and the gradient of the weighted sum by the logits, which it overwrites."""
    total = logits.logsumexp(-1)
    column = targets.unsqueeze(1)
    nats = total - logits.gather(1, column).squeeze(1)
    slope = logits.sub_(total.unsqueeze(1)).exp_()
    slope.scatter_add_(1, column, slope.new_full((len(targets), 1), -1.0))
    return nats, slope.mul_(weights.unsqueeze(1))


def head_loss(
    hidden: Tensor,
    head: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weights: Tensor,
    *,
    chunk_logits: int,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of next-token losses, and the loss of each token; gradients flow to hidden states and head.

    Args:
        hidden: (tokens, width), those that predict something; the dtype of the arithmetic.
        head: (vocabulary, width), of any dtype; where it is the embedding too, gradients of both uses add up.
        bias: (vocabulary,) or None.
        targets: (tokens,) ids of the next tokens.
        weights: (tokens,) float32, of each token in the sum, such as 1 / tokens of the whole step.
        chunk_logits: Logits to hold at a time, in numbers.

    Returns:
        The sum, float32, and (tokens,) nats, float32, without gradient.
    """
    rows = max(1, chunk_logits // head.shape[0])
    total, nats = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden, head, bias, targets, weights, rows
    )
    return total, nats


@torch.no_grad()
def head_nats(hidden: Tensor, head: Tensor, bias: Tensor | None, targets: Tensor, *, chunk_logits: int) -> Tensor:
    """The loss of each token in nats, (tokens,) float32; no gradients."""
    rows = max(1, chunk_logits // head.shape[0])
    rounded, shift = head.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
    parts = [
        torch.nn.functional.cross_entropy(
            torch.nn.functional.linear(hidden[i : i + rows], rounded, shift).float(),
            targets[i : i + rows],
            reduction="none",
        )
        for i in range(0, len(targets), rows)
    ]
    return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)
