"""Cross-entropy of the next token without ever holding all logits, and exact over micro-batches.

The output layer and the loss are one autograd function: a chunk of hidden states becomes logits, then losses, then the
gradient of the logits, in place and while it is in the processor's cache; only that gradient is kept, rounded to the
dtype of the arithmetic, until a block of chunks is turned into the gradients of hidden states and output layer. The
latter is summed over blocks in float32: in bfloat16, sums over chunks have been seen to stall training (axolotl#1601).
Alternative: checkpointing each chunk, which computes all logits twice and was 7 times as slow on a CPU; fused kernels
(Liger, CCE) bind to one device and some model families.

Price: the gradient is computed even where nobody calls backward, so evaluation has a function of its own.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

CHUNK_LOGITS = {"cpu": 2**23, "cuda": 2**27}
"""Logits that are worked on at a time, in numbers: 32 MB and 512 MB in float32."""
BLOCK_LOGITS = {"cpu": 2**25, "cuda": 2**29}
"""Gradients of logits that are kept at a time, in numbers: 64 MB and 1 GB in bfloat16."""


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        rounded: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        rows: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        chunk, block = rows
        shift = None if bias is None else bias.to(hidden.dtype)
        nats = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and ctx.needs_input_grad[3] else None
        slopes = hidden.new_empty(min(block, len(targets)), len(head))
        for begin in range(0, len(targets), block):
            end = min(begin + block, len(targets))
            for first in range(begin, end, chunk):
                part = slice(first, min(first + chunk, end))
                logits = linear(hidden[part], rounded, shift).float()
                nats[part] = _to_slope(logits, targets[part], weights[part])
                slopes[first - begin : part.stop - begin] = logits
            slope, part = slopes[: end - begin], slice(begin, end)
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
        # In place: these are ours alone, and the gradient of the output layer is the largest tensor of all.
        d_hidden, d_head, d_bias = (
            None if saved is None else saved.mul_(gradients[0].to(saved.dtype)) for saved in ctx.saved_tensors
        )
        return d_hidden, d_head, None, d_bias, None, None, None


def _to_slope(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The loss of each row in nats; the logits become the gradient of the weighted sum by them."""
    column = targets.unsqueeze(1)
    picked = logits.gather(1, column)
    most = logits.amax(1, keepdim=True)
    total = logits.sub_(most).exp_().sum(1, keepdim=True)
    logits.mul_(weights.unsqueeze(1) / total)
    logits.scatter_add_(1, column, -weights.unsqueeze(1))
    return (most + total.log() - picked).squeeze(1)


def head_loss(
    hidden: Tensor,
    head: Tensor | tuple[Tensor, Tensor],
    bias: Tensor | None,
    targets: Tensor,
    weights: Tensor,
    *,
    chunk_logits: int,
    block_logits: int,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of next-token losses, and the loss of each token; gradients flow to hidden states and head.

    Args:
        hidden: (tokens, width), those that predict something; the dtype of the arithmetic.
        head: (vocabulary, width), of any dtype; where it is the embedding too, gradients of both uses add up. Or that,
            and a copy of it in the dtype of the arithmetic where there is one already.
        bias: (vocabulary,) or None.
        targets: (tokens,) ids of the next tokens.
        weights: (tokens,) float32, of each token in the sum, such as 1 / tokens of the whole step.
        chunk_logits: Logits to work on at a time, in numbers.
        block_logits: Gradients of logits to keep at a time, in numbers.

    Returns:
        The sum, float32, and (tokens,) nats, float32, without gradient.
    """
    whole, rounded = head if isinstance(head, tuple) else (head, head.detach().to(hidden.dtype))
    rows = max(1, chunk_logits // len(whole)), max(1, block_logits // len(whole))
    total, nats = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden, whole, rounded, bias, targets, weights, rows
    )
    return total, nats


@torch.no_grad()
def head_nats(hidden: Tensor, head: Tensor, bias: Tensor | None, targets: Tensor, *, chunk_logits: int) -> Tensor:
    """The loss of each token in nats, (tokens,) float32; no gradients."""
    rows = max(1, chunk_logits // len(head))
    rounded, shift = head.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
    parts = [
        cross_entropy(linear(hidden[i : i + rows], rounded, shift).float(), targets[i : i + rows], reduction="none")
        for i in range(0, len(targets), rows)
    ]
    return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)
