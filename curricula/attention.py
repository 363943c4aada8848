"""Attention inside packed documents on a CPU: blocks of queries against the keys that they may see, as matrix products.

torch's kernel for CPUs reaches a sixth of the machine's bfloat16 products in its backward pass, and makes itself anew
for every length of document. Here all shapes are multiples of one block, whatever the documents are, and scores exist
for one block at a time. Scores, softmax and its gradient are float32; what they multiply has the dtype of the
arithmetic. As in FlashAttention (Dao et al., 2022) nothing but queries, keys, values and the result is kept.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = 128
"""Queries at a time: smaller ones waste less on what nobody sees, larger ones multiply faster."""
_KEPT = 64
"""Masks, which all layers share: those of 8,192 tokens."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Queries `first` to `end`, and the keys from `begin` to `end`; `hidden` says which are not for which."""

    first: int
    begin: int
    end: int
    hidden: Tensor

    @property
    def keys(self) -> slice:
        return slice(self.begin, self.end)


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, *, scaling: float, window: int | None = None
) -> Tensor:
    """Causal attention inside each document, (tokens, heads, width) like `query`.

    Args:
        query: (tokens, heads, width).
        key: (tokens, key heads, width), of which each serves `heads / key heads` query heads.
        value: Like `key`.
        bounds: (documents + 1,) where documents begin, and the end.
        scaling: Scores are multiplied by it.
        window: A query sees so many tokens, itself included; None sees all before it.
    """
    told = tuple(bounds.tolist()), scaling, window
    attended: Tensor = _PackedAttention.apply(query, key, value, *told)  # type: ignore[no-untyped-call]
    return attended


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bounds: tuple[int, ...],
        scaling: float,
        window: int | None,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.told = bounds, scaling, window
        keys, values = key.transpose(0, 1).float(), value.transpose(0, 1).contiguous()
        blocks, out = list(_blocks(bounds, window)), query.new_empty(query.shape)
        room = _Room(blocks, query)
        for block in blocks:
            weights = _weights(block, _grouped(query, block, len(keys)), keys, scaling, room)
            _ungroup(weights.to(value.dtype) @ values[:, block.keys], out, block)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        bounds, scaling, window = ctx.told
        short, (upstream,) = query.dtype, gradients
        keys, exact = key.transpose(0, 1).contiguous(), key.transpose(0, 1).float()
        values, blocks = value.transpose(0, 1).float(), list(_blocks(bounds, window))
        d_query, d_keys, d_values = query.new_empty(query.shape), torch.zeros_like(exact), torch.zeros_like(values)
        room = _Room(blocks, query)
        for block in blocks:
            queries, above = (_grouped(flat, block, len(keys)) for flat in (query, upstream))
            weights = _weights(block, queries, exact, scaling, room)
            slopes = torch.bmm(above.float(), values[:, block.keys].transpose(1, 2), out=room(0, weights.shape))
            d_values[:, block.keys] += weights.to(short).transpose(1, 2) @ above
            slopes.sub_((slopes * weights).sum(-1, keepdim=True)).mul_(weights)
            rounded = slopes.to(short)
            d_keys[:, block.keys] += rounded.transpose(1, 2) @ queries
            _ungroup(rounded @ keys[:, block.keys], d_query, block)
        d_keys, d_query = d_keys.mul_(scaling), d_query.mul_(scaling)
        return d_query, d_keys.transpose(0, 1).to(key.dtype), d_values.transpose(0, 1).to(value.dtype), None, None, None


class _Room:
    """Memory for two matrices of scores, used again by every block: fresh memory is slower to get than to fill."""

    def __init__(self, blocks: list[_Block], query: Tensor) -> None:
        most = max((block.end - block.begin) * (block.end - block.first) for block in blocks)
        self._parts = [query.new_empty(most * query.shape[1], dtype=torch.float32) for _ in range(2)]

    def __call__(self, number: int, shape: tuple[int, ...]) -> Tensor:
        return self._parts[number][: math.prod(shape)].view(shape)


def _grouped(flat: Tensor, block: _Block, count: int) -> Tensor:
    """(key heads, query heads of each x queries, width): what shares a key head is one matrix."""
    size, width = block.end - block.first, flat.shape[-1]
    part = flat[block.first : block.end].reshape(size, count, -1, width)
    return part.permute(1, 2, 0, 3).reshape(count, -1, width)


def _ungroup(grouped: Tensor, flat: Tensor, block: _Block) -> None:
    """Write the inverse of `_grouped` to its place."""
    count, rows, width = grouped.shape
    size = block.end - block.first
    out = flat[block.first : block.end].view(size, count, rows // size, width)
    out.copy_(grouped.view(count, rows // size, size, width).permute(2, 0, 1, 3))


def _weights(block: _Block, queries: Tensor, keys: Tensor, scaling: float, room: "_Room") -> Tensor:
    """What each query makes of each key, float32, rows that add up to 1."""
    shape = (*queries.shape[:2], block.end - block.begin)
    scores = torch.bmm(queries.float() * scaling, keys[:, block.keys].transpose(1, 2), out=room(0, shape))
    scores.view(len(keys), -1, *block.hidden.shape).masked_fill_(block.hidden, -torch.inf)
    return torch.softmax(scores, -1, out=room(1, shape))


def _blocks(bounds: tuple[int, ...], window: int | None) -> Iterator[_Block]:
    """Yield the blocks of all queries; keys begin at a multiple of a block, so that shapes are few."""
    for first in range(0, bounds[-1], BLOCK):
        end = min(first + BLOCK, bounds[-1])
        begun = np.searchsorted(bounds, np.arange(first, end), side="right") - 1
        starts = np.asarray(bounds)[begun]
        if window is not None:
            starts = np.maximum(starts, np.arange(first, end) - window + 1)
        begin = int(starts.min()) // BLOCK * BLOCK
        yield _Block(first, begin, end, _hidden(tuple((starts - begin).tolist()), end - begin))


@lru_cache(maxsize=_KEPT)
def _hidden(starts: tuple[int, ...], size: int) -> Tensor:
    """(queries, keys): whether the key is before the query's document or after the query."""
    keys, first = torch.arange(size), torch.tensor(starts).unsqueeze(1)
    last = torch.arange(size - len(starts), size).unsqueeze(1)
    return (keys < first) | (keys > last)
