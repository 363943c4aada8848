"""Which sequence comes when: a pure function of (counts, sizes, seed), computed without the data.

Policy. Inside a stage the sources are interleaved by Tijdeman's chairman assignment (R. Tijdeman, Discrete
Mathematics 32, 1980): at every prefix each of K sources is within 1 - 1/(2K-2) sequences of its exact share, and
no rule can promise less. Solved here as unit jobs with integer release times and deadlines, earliest deadline
first, in integers only. Inside a source a keyed permutation (a Feistel network on the index, walked until it lands
inside the source) gives the shuffle, one permutation an epoch, so nothing repeats before all of it was seen.

Price: the scan is sequential, some ten nanoseconds a sequence. Alternative: independent draws, as many loaders do;
they stray by the square root of the number of draws.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numba
import numpy as np
import xxhash

from mixer.types import Draw

_NEVER = 2**62
_PIECE = 1 << 20
_ROUNDS = 6
_INDEX_BITS = 12
_LEAST_BITS = 10
"""Halves of fewer than five bits are too small to mix; a small source walks a larger range instead."""


def prefix_bound(sources: int) -> float:
    """The least deviation that can be promised at every prefix for this many sources: 1 - 1/(2K-2)."""
    return 1 - 1 / (2 * sources - 2) if sources > 1 else 0.0


def seed_of(seed: int, *names: object) -> int:
    """A 64-bit seed from the recipe's seed and names; another name elsewhere changes nothing here."""
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, (seed, *names))).encode())


def order(draws: Sequence[Draw], *, seed: int) -> Iterator[np.ndarray]:
    """Yield a stage's training order in pieces: (n, 2) int32, index into `draws` and sequence index.

    Args:
        draws: One a source.
        seed: The recipe's.

    Raises:
        ValueError: A source without sequences is drawn from, or one epoch holds 2**31 sequences or more.

    Example:
        >>> pieces = order([Draw("web", 9, 0, 4), Draw("qa", 9, 0, 2)], seed=7)
        >>> np.concatenate(list(pieces))[:, 0].tolist()
        [0, 1, 0, 0, 1, 0]
    """
    if any(draw.count and not 0 < draw.available < 2**31 for draw in draws):
        raise ValueError("each source that is drawn from needs between 1 and 2**31 - 1 sequences")
    keys = np.array([seed_of(seed, "order", draw.name) for draw in draws], np.uint64)
    sizes = np.array([max(1, draw.available) for draw in draws], np.int64)
    bits = np.array([max(_LEAST_BITS, (size - 1).bit_length()) for size in sizes.tolist()], np.uint64)
    cursors = np.array([draw.start for draw in draws], np.int64)
    for sources in interleave([draw.count for draw in draws]):
        piece = np.empty((len(sources), 2), np.int32)
        _sequences(sources, _positions(sources, cursors), sizes, bits, keys, piece)
        yield piece


def interleave(counts: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield source indices (int16) in pieces, `counts[i]` of source i in all, every prefix within `prefix_bound`."""
    if len(counts) >= 1 << _INDEX_BITS:
        raise ValueError(f"at most {(1 << _INDEX_BITS) - 1} sources can be interleaved")
    total = sum(counts)
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
    out: np.ndarray,
) -> None:
    for i in numba.prange(sources.size):
        source = sources[i]
        epoch = positions[i] // sizes[source]
        index = positions[i] - epoch * sizes[source]
        key = _mix(keys[source] + np.uint64(epoch) * np.uint64(0x9E3779B97F4A7C15))
        out[i, 0] = source
        out[i, 1] = _permuted(np.uint64(index), np.uint64(sizes[source]), bits[source], key)


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
