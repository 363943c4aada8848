"""Interleaving with shares that move along straight lines: the same promise as at constant shares, in integers too.

A pool of `count` sequences among n, whose rate changes by `slope` (in units of 2**-28) from the first place to the
last, should have come X(m) = count m / n - slope m (n - m) / (2 n 2**28) times among the first m. Its j-th sequence
may come as soon as X(m) >= j - 1 + e, and must have come as soon as X(m) > j - e, with e = 1 / (2K - 2) for K pools
(Tijdeman 1980).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numba
import numpy as np

from mixer.mixture import SLOPE_UNIT

_NEVER = 2**62
_PIECE = 1 << 20
_UNIT = SLOPE_UNIT


def interleave_ramp(counts: Sequence[int], slopes: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield pool indices (int16) in pieces; see `order.interleave`.

    Raises:
        ValueError: A rate would fall below 0, the slopes do not sum to 0, or there are 2**31 sequences or more.
    """
    total = sum(counts)
    falls = any(2 * _UNIT * count < abs(slope) * total for count, slope in zip(counts, slopes, strict=True))
    if falls or sum(slopes) != 0 or total >= 2**31:
        raise ValueError(
            f"got counts {list(counts)} with slopes {list(slopes)}, expected rates of 0 and more, in balance"
        )
    active = sum(count > 0 for count in counts)
    scale = 2 * total * _UNIT
    parts = max(1, 2 * active - 2)
    # Of a share e of the whole: reached where the rest is at least `early`, passed where it is more than `late`.
    early = -(-scale // parts) if active > 1 else 0
    late = scale - early if active > 1 else -1
    state = np.zeros((3, len(counts)), np.int64)
    rules = (np.array(counts, np.int64), np.array(slopes, np.int64), total, early, late)
    _first(state, *rules)
    for first in range(0, total, _PIECE):
        piece = np.empty(min(_PIECE, total - first), np.int16)
        _earliest_deadline_first(piece, first, state, *rules)
        yield piece


@numba.njit(cache=True)
def asked_for(m: Any, count: Any, slope: Any, total: Any) -> Any:
    """X(m) as a whole number and a rest, in units of 1 / (2 total 2**28); exact for fewer than 2**31 sequences."""
    whole, rest = divmod(count * m, total)
    turns, left = divmod(m * (total - m), 2 * total)
    bent, bent_rest = divmod(-slope * turns, _UNIT)
    more, fraction = divmod(2 * _UNIT * rest + 2 * total * bent_rest - slope * left, 2 * total * _UNIT)
    return whole + bent + more, fraction


@numba.njit(cache=True)
def _reached(whole: Any, least: Any, count: Any, slope: Any, total: Any, near: Any) -> Any:
    """The first place m at which X(m) is at least `whole` and `least` units; floats guess, integers decide."""
    bend, rate = slope / (2.0 * _UNIT * total), count / total - slope / (2.0 * _UNIT)
    target = near + whole
    root = np.sqrt(max(0.0, rate * rate + 4.0 * bend * target))
    guess = 2.0 * target / (rate + root) if rate + root > 0.0 else float(total)
    m = min(max(np.int64(guess), 1), total)
    while m > 1:
        found, fraction = asked_for(m - 1, count, slope, total)
        if found < whole or (found == whole and fraction < least):
            break
        m -= 1
    while m < total:
        found, fraction = asked_for(m, count, slope, total)
        if found > whole or (found == whole and fraction >= least):
            break
        m += 1
    return m


@numba.njit(cache=True)
def _next(state: Any, i: Any, counts: Any, slopes: Any, total: Any, early: Any, late: Any) -> None:
    """Where pool i's next sequence may come, and must have come."""
    opens, closes, done = state
    if done[i] >= counts[i]:
        opens[i] = closes[i] = _NEVER
        return
    scale = 2.0 * total * _UNIT
    opens[i] = _reached(done[i], early, counts[i], slopes[i], total, early / scale)
    closes[i] = _reached(done[i], late + 1, counts[i], slopes[i], total, late / scale)


@numba.njit(cache=True)
def _first(state: Any, counts: Any, slopes: Any, total: Any, early: Any, late: Any) -> None:
    for i in range(counts.size):
        _next(state, i, counts, slopes, total, early, late)


@numba.njit(cache=True)
def _earliest_deadline_first(
    out: np.ndarray, first: Any, state: Any, counts: Any, slopes: Any, total: Any, early: Any, late: Any
) -> None:
    opens, closes, done = state
    for position in range(out.size):
        now, pick, best = first + position + 1, -1, _NEVER
        for i in range(opens.size):
            if opens[i] <= now and closes[i] < best:
                pick, best = i, closes[i]
        out[position] = pick
        done[pick] += 1
        _next(state, pick, counts, slopes, total, early, late)
