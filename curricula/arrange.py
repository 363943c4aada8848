"""A stage's sequences of one pool, in the order that the recipe asks for: easy to hard, bucketed, paced, in cycles.

What is drawn stays what it is, the next sequences of the pool's endless shuffle, so nothing repeats before all of it
was seen, whatever the order. Each pass over the pool is arranged on its own. Every rule is a way of drawing at random,
without replacement, from the first so many of the pool's sorted sequences: as many as have come already (sorted), up
to the end of a bucket (bucketed), or what pacing admits.
"""

from typing import Any

import numba
import numpy as np

from curricula.order import Shuffles, _mix, _shuffled, seed_of
from mixer.recipe.stage import Order
from mixer.types import Draw

_SHAPES = {"buckets": 0, "linear": 1, "root": 2, "geometric": 3}


def arrange(draw: Draw, rule: Order, ranks: np.ndarray | None, *, seed: int) -> np.ndarray:
    """(count,) int32: the sequences of the pool that a stage draws, in the order to train on them.

    Args:
        draw: What the stage draws.
        rule: How to order it.
        ranks: (available,) the pool's sequences from the lowest score to the highest; None where they lie so.
        seed: The recipe's.

    Example:
        >>> arrange(Draw("web", 5, 0, 5), Order(by="perplexity"), None, seed=7).tolist()
        [0, 1, 2, 3, 4]
    """
    parts = []
    position, end = draw.start, draw.start + draw.count
    while position < end:
        epoch = position // draw.available
        stop = min(end, (epoch + 1) * draw.available)
        ordered = _sorted(draw, position, stop, ranks, seed)
        if rule.direction == "descending":
            ordered = ordered[::-1]
        for cycle in range(rule.cycles):
            key = seed_of(seed, "arrange", draw.name, epoch, cycle)
            parts.append(_scattered(np.ascontiguousarray(ordered[cycle :: rule.cycles]), rule, key))
        position = stop
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def _sorted(draw: Draw, begin: int, end: int, ranks: np.ndarray | None, seed: int) -> np.ndarray:
    """The sequences at positions `begin` to `end` of the pool's shuffle, by score."""
    drawn = np.ones(draw.available, bool)
    if end - begin < draw.available:
        drawn[:] = False
        pool = Shuffles.of([draw], seed)
        _mark(drawn, begin, end, pool.sizes[0], pool.bits[0], pool.keys[0])
    if ranks is not None:
        chosen: np.ndarray = ranks[drawn[ranks]]
        return chosen
    return np.flatnonzero(drawn).astype(np.int32)


def _scattered(ordered: np.ndarray, rule: Order, key: int) -> np.ndarray:
    """Sorted sequences, shuffled as far as the rule says."""
    pacing = rule.pacing
    if rule.buckets is not None:
        _draw(ordered, np.uint64(key), _SHAPES["buckets"], float(rule.buckets), 1.0)
    elif pacing is not None:
        _draw(ordered, np.uint64(key), _SHAPES[pacing.shape], pacing.start, pacing.end)
    return ordered


@numba.njit(cache=True, parallel=True)
def _mark(drawn: np.ndarray, begin: int, end: int, size: int, bits: np.uint64, key: np.uint64) -> None:
    for position in numba.prange(begin, end):
        drawn[_shuffled(position, size, bits, key)] = True


@numba.njit(cache=True)
def _admitted(done: Any, count: Any, shape: Any, start: Any, end: Any) -> Any:
    """How many of the easiest the next one may be chosen from, when so many are done."""
    if shape == 0:
        bucket = done * np.int64(start) // count
        return ((bucket + 1) * count + np.int64(start) - 1) // np.int64(start)
    progress = min(1.0, (done + 1) / count / end)
    share = start + (1.0 - start) * progress
    if shape == 2:
        share = np.sqrt(start * start + (1.0 - start * start) * progress)
    elif shape == 3:
        share = start ** (1.0 - progress)
    return np.int64(np.ceil(share * count))


@numba.njit(cache=True)
def _draw(items: np.ndarray, key: Any, shape: Any, start: Any, end: Any) -> None:
    """Fisher and Yates's shuffle, with a window that ends at what may come so far."""
    count = items.size
    for done in range(count):
        limit = min(count, max(done + 1, _admitted(done, count, shape, start, end)))
        mixed = _mix(key + np.uint64(done) * np.uint64(0x9E3779B97F4A7C15))
        pick = done + np.int64(mixed % np.uint64(limit - done))
        items[done], items[pick] = items[pick], items[done]
