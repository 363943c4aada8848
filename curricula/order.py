"""Which sequence comes when: a pure function of (counts, sizes, seed), computed without the data.

Policy. Inside a stage the pools are interleaved by Tijdeman's chairman assignment (R. Tijdeman, Discrete
Mathematics 32, 1980): at every prefix each of K pools is within 1 - 1/(2K-2) sequences of its exact share, and
no rule can promise less; it holds for shares that move within the stage too. Solved here as unit jobs with integer
release times and deadlines, earliest deadline first, in integers only. Inside a pool a keyed permutation (a Feistel
network on the index, walked until it lands inside the pool) gives the shuffle, one permutation an epoch, so nothing
repeats before all of it was seen; `arrange` puts what a stage draws into another order where the recipe asks for it.

Price: the scan is sequential, some ten nanoseconds a sequence. Alternative: independent draws, as many loaders do;
they stray by the square root of the number of draws.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import xxhash

from curricula.ramp import interleave_ramp
from mixer.types import Draw, Segment

_NEVER = 2**62
_PIECE = 1 << 20
_ROUNDS = 6
_INDEX_BITS = 12
_LEAST_BITS = 10
"""Halves of fewer than five bits are too small to mix; a small source walks a larger range instead."""


def prefix_bound(sources: int) -> float:
    """The least deviation that can be promised at every prefix for this many pools: 1 - 1/(2K-2)."""
    return 1 - 1 / (2 * sources - 2) if sources > 1 else 0.0


def seed_of(seed: int, *names: object) -> int:
    """A 64-bit seed from the recipe's seed and names; another name elsewhere changes nothing here."""
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, (seed, *names))).encode())


def order(
    draws: Sequence[Draw],
    *,
    seed: int,
    segments: Sequence[Segment] = (),
    arranged: Mapping[str, np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """Yield a stage's training order in pieces: (n, 2) int32, index into `draws` and sequence index.

    Args:
        draws: One a pool.
        seed: The recipe's.
        segments: How shares move within the stage. Default: not at all.
        arranged: Pool -> (count,) int32, the sequences that it draws in their order, instead of the shuffle.

    Raises:
        ValueError: A pool without sequences is drawn from, or one epoch holds 2**31 sequences or more.

    Example:
        >>> pieces = order([Draw("web", 9, 0, 4), Draw("qa", 9, 0, 2)], seed=7)
        >>> np.concatenate(list(pieces))[:, 0].tolist()
        [0, 1, 0, 0, 1, 0]
    """
    if any(draw.count and not 0 < draw.available < 2**31 for draw in draws):
        raise ValueError("each source that is drawn from needs between 1 and 2**31 - 1 sequences")
    pools = Shuffles.of(draws, seed)
    cursors = np.array([draw.start for draw in draws], np.int64)
    tables, begins = _tables(draws, arranged or {})
    whole = Segment(sum(draw.count for draw in draws), {draw.name: draw.count for draw in draws})
    for segment in segments or [whole]:
        counts = [segment.counts.get(draw.name, 0) for draw in draws]
        slopes = [segment.slopes.get(draw.name, 0) for draw in draws]
        for sources in interleave(counts, slopes):
            piece = np.empty((len(sources), 2), np.int32)
            positions = _positions(sources, cursors)
            _sequences(sources, positions, pools.sizes, pools.bits, pools.keys, tables, begins, pools.firsts, piece)
            yield piece


@dataclass(frozen=True, slots=True)
class Shuffles:
    """The keyed permutations of some pools, as arrays with an entry a pool."""

    sizes: np.ndarray
    bits: np.ndarray
    keys: np.ndarray
    firsts: np.ndarray

    @classmethod
    def of(cls, draws: Sequence[Draw], seed: int) -> "Shuffles":
        """Those of the draws' pools; the seed and a pool's name decide."""
        sizes = np.array([max(1, draw.available) for draw in draws], np.int64)
        return cls(
            sizes,
            np.array([max(_LEAST_BITS, (size - 1).bit_length()) for size in sizes.tolist()], np.uint64),
            np.array([seed_of(seed, "order", draw.name) for draw in draws], np.uint64),
            np.array([draw.first for draw in draws], np.int64),
        )


def _tables(draws: Sequence[Draw], arranged: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All arrangements end to end, and where each pool's position 0 would lie in them; -2**62 without one."""
    parts, begins, at = [np.empty(0, np.int32)], np.full(len(draws), -_NEVER, np.int64), 0
    for number, draw in enumerate(draws):
        if draw.name in arranged:
            assert len(arranged[draw.name]) == draw.count, f"{draw.name}: other sequences arranged than drawn"
            begins[number] = at - draw.start
            parts.append(arranged[draw.name])
            at += draw.count
    return np.concatenate(parts), begins


def interleave(counts: Sequence[int], slopes: Sequence[int] = ()) -> Iterator[np.ndarray]:
    """Yield pool indices (int16) in pieces, `counts[i]` of pool i in all, every prefix within `prefix_bound`.

    Args:
        counts: One a pool.
        slopes: How much each pool's rate changes from the first to the last place, as in `Segment`. Default: constant.
    """
    if len(counts) >= 1 << _INDEX_BITS:
        raise ValueError(f"at most {(1 << _INDEX_BITS) - 1} sources can be interleaved")
    total = sum(counts)
    if any(slopes):
        yield from interleave_ramp(counts, slopes)
        return
    jobs = _first_jobs(counts, total)
    for first in range(0, total, _PIECE):
        piece = np.empty(min(_PIECE, total - first), np.int16)
        _earliest_deadline_first(piece, first, jobs)
        yield piece


def _first_jobs(counts: Sequence[int], total: int) -> np.ndarray:
    """The state of each source's next job, (7, sources) int64; rows as unpacked in `_earliest_deadline_first`.

    Job j of a source with c of N sequences may run from ceil((j - 1 + e) N / c) and must run by
    floor((j - e) N / c) + 1, with e = 1 / (2K - 2); both are kept as quotient and remainder over (2K - 2) c.
    """
    active = sum(count > 0 for count in counts)
    parts = max(1, 2 * active - 2)
    jobs = np.zeros((7, len(counts)), np.int64)
    jobs[0] = jobs[2] = _NEVER
    for i, count in enumerate(counts):
        if count:
            scale = parts * count
            deadline = divmod((parts - 1) * total, scale) if active > 1 else (0, 0)
            jobs[:, i] = (*divmod(total, scale), *deadline, *divmod(parts * total, scale), scale)
            if active == 1:
                jobs[:2, i] = 0
    return jobs


@numba.njit(cache=True)
def _earliest_deadline_first(out: np.ndarray, first: int, jobs: np.ndarray) -> None:
    release, release_rest, deadline, deadline_rest, step, step_rest, scale = jobs
    # One word a source, deadline above index, makes the choice a plain minimum without a branch.
    keys = np.empty(release.size, np.int64)
    opens = np.empty(release.size, np.int64)
    for i in range(release.size):
        keys[i] = min(deadline[i], _NEVER >> _INDEX_BITS) << _INDEX_BITS | i
        opens[i] = release[i] + (release_rest[i] > 0)
    for position in range(out.size):
        now = first + position + 1
        best = _NEVER
        for i in range(release.size):
            best = min(best, keys[i] if opens[i] <= now else _NEVER)
        pick = best & ((1 << _INDEX_BITS) - 1)
        out[position] = pick
        rest = release_rest[pick] + step_rest[pick]
        carry = np.int64(rest >= scale[pick])
        release_rest[pick] = rest - carry * scale[pick]
        release[pick] += step[pick] + carry
        opens[pick] = release[pick] + (release_rest[pick] > 0)
        rest = deadline_rest[pick] + step_rest[pick]
        carry = np.int64(rest >= scale[pick])
        deadline_rest[pick] = rest - carry * scale[pick]
        deadline[pick] += step[pick] + carry
        keys[pick] = deadline[pick] << _INDEX_BITS | pick


@numba.njit(cache=True)
def _positions(sources: np.ndarray, cursors: np.ndarray) -> np.ndarray:
    """How many sequences of its source came before each place; moves `cursors` on."""
    out = np.empty(sources.size, np.int64)
    for i in range(sources.size):
        out[i] = cursors[sources[i]]
        cursors[sources[i]] += 1
    return out


@numba.njit(cache=True, parallel=True)
def _sequences(
    sources: np.ndarray,
    positions: np.ndarray,
    sizes: np.ndarray,
    bits: np.ndarray,
    keys: np.ndarray,
    tables: np.ndarray,
    begins: np.ndarray,
    firsts: np.ndarray,
    out: np.ndarray,
) -> None:
    for i in numba.prange(sources.size):
        source = sources[i]
        out[i, 0] = source
        if begins[source] > -_NEVER:
            out[i, 1] = firsts[source] + tables[begins[source] + positions[i]]
        else:
            out[i, 1] = firsts[source] + _shuffled(positions[i], sizes[source], bits[source], keys[source])


@numba.njit(cache=True)
def _shuffled(position: Any, size: Any, bits: Any, key: Any) -> Any:
    """The sequence at a position of a pool's endless shuffle: a permutation an epoch."""
    epoch = position // size
    mixed = _mix(key + np.uint64(epoch) * np.uint64(0x9E3779B97F4A7C15))
    return np.int64(_permuted(np.uint64(position - epoch * size), np.uint64(size), bits, mixed))


@numba.njit(cache=True)
def _mix(x: Any) -> Any:
    """splitmix64's finaliser (S. Vigna, public domain)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(cache=True)
def _permuted(x: Any, size: Any, bits: Any, key: Any) -> Any:
    """Where a keyed permutation of range(size) sends x: Feistel rounds over `bits` bits, walked until below size."""
    one, shift = np.uint64(1), np.uint64(40)
    low = bits >> one
    high = bits - low
    low_mask, high_mask = (one << low) - one, (one << high) - one
    while True:
        left, right = x >> low, x & low_mask
        for turn in range(_ROUNDS // 2):
            salt = np.uint64(turn) * np.uint64(0xD1342543DE82EF95)
            mixed = (right ^ key ^ salt) * np.uint64(0x9FB21C651E98DF25)
            left ^= (mixed ^ (mixed >> shift)) >> np.uint64(20) & high_mask
            mixed = (left ^ key ^ ~salt) * np.uint64(0xA24BAED4963EE407)
            right ^= (mixed ^ (mixed >> shift)) >> np.uint64(20) & low_mask
        x = left << low | right
        if x < size:
            return x
