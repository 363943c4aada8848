"""What a blend becomes in each engine: its own rule carried out, so that a distorted mixture is known before training.

Every function takes weights and sizes of the sources in order and returns how many samples (sequences) of each source
the engine hands out. What no rule decides is marked: independent draws are drawn here with the engine's generator and
its default seed, and stray by the square root of their number with another.

Sources of the rules: megatron-core 0.16.1, mosaicml-streaming 0.13.0, litdata 0.2.76, datasets 5.2.0, grain 0.2.18,
nanotron's Nanoset, OLMo-core 3.0.0, levanter's mixture.
"""

import math
import random
from collections.abc import Sequence

import numba
import numpy as np

Counts = list[int]
_MOST_DRAWS = 1_000_000


def exact(weights: Sequence[float], samples: int) -> Counts:
    """By largest remainder: what was asked for.

    Example:
        >>> exact([0.62, 0.25, 0.13], 1003)
        [622, 251, 130]
    """
    shares = np.asarray(weights, float) / sum(weights) * samples
    whole = np.floor(shares).astype(int)
    whole[np.argsort(whole - shares, kind="stable")[: samples - whole.sum()]] += 1
    return [int(count) for count in whole]


def megatron(weights: Sequence[float], samples: int) -> Counts:
    """Megatron's blend: the source most in arrears is next; within one sample of the weights.

    Megatron asks each source for ceil(samples x weight) and blends their sum, so that a few samples more may be drawn.
    """
    shares = [weight / sum(weights) for weight in weights]
    total = sum(math.ceil(samples * share) for share in shares)
    return [int(count) for count in np.bincount(_greedy(np.array(shares), total), minlength=len(shares))]


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _greedy(weights: np.ndarray, samples: int) -> np.ndarray:
    out = np.empty(samples, np.int32)
    drawn = np.zeros(len(weights))
    for i in range(samples):
        pick = np.argmax(weights * max(i, 1) - drawn)
        out[i] = pick
        drawn[pick] += 1
    return out


def mosaic(weights: Sequence[float], samples: int, *, seed: int = 9176) -> Counts:
    """Streams by `proportion`: rounded down, what is left over goes to random streams."""
    shares = np.asarray(weights, np.float64) / sum(weights)
    counts = (samples * shares).astype(np.int64)
    counts[np.random.default_rng(seed).choice(len(shares), samples - counts.sum(), replace=False)] += 1
    return [int(count) for count in counts]


def litdata(weights: Sequence[float], samples: int, *, seed: int = 42) -> Counts:
    """`CombinedStreamingDataset(weights=...)`: an independent draw a sample, of sources that begin anew at their end.

    Beyond a million draws the rest is taken at its expectation.
    """
    draws = random.Random(seed)
    indexes = range(len(weights))
    picked = draws.choices(indexes, weights=weights, k=min(samples, _MOST_DRAWS))
    counts = np.bincount(picked, minlength=len(weights))
    return [int(c + e) for c, e in zip(counts, exact(weights, samples - len(picked)), strict=True)]


def interleave(
    weights: Sequence[float], sizes: Sequence[int], *, strategy: str = "all_exhausted", seed: int = 42
) -> Counts:
    """`datasets.interleave_datasets`, and so LLaMA-Factory: independent draws until the first or the last source ends.

    Beyond a million draws, as a large source of little weight takes, the rest is taken at its expectation.

    Args:
        weights: Relative; what weighs nothing is drawn by nobody, and nobody waits for its end.
        sizes: Rows a source has.
        strategy: `first_exhausted` or `all_exhausted`.
        seed: Of the draws.
    """
    shares, rows = np.asarray(weights, float) / sum(weights), np.asarray(sizes)
    generator = np.random.default_rng(seed)
    counts = np.zeros(len(shares), np.int64)
    enough, waits = (np.any, np.min) if strategy == "first_exhausted" else (np.all, np.max)
    asked = shares > 0
    while counts.sum() < _MOST_DRAWS:
        draws = generator.choice(len(shares), size=1000, p=shares)
        after = counts + np.cumsum(draws[:, None] == np.arange(len(shares)), axis=0)
        ended = enough(after[:, asked] >= rows[asked], axis=1)
        if ended.any():
            return [int(count) for count in after[np.argmax(ended)]]
        counts = after[-1]
    left = waits(np.maximum(0, rows - counts)[asked] / shares[asked])
    return [int(count) for count in counts + np.rint(left * shares).astype(np.int64)]


def drawn(weights: Sequence[float], samples: int, *, seed: int = 42) -> Counts:
    """The first rows of `datasets.interleave_datasets`: its independent draws, before any source has an end.

    Beyond a million draws the rest is taken at its expectation.
    """
    shares = np.asarray(weights, float) / sum(weights)
    picked = np.random.default_rng(seed).choice(len(shares), size=min(samples, _MOST_DRAWS), p=shares)
    counts = np.bincount(picked, minlength=len(shares))
    return [int(c + e) for c, e in zip(counts, exact(weights, samples - len(picked)), strict=True)]


def grain(weights: Sequence[float], samples: int) -> Counts:
    """Grain's mix, and so torchtitan's: weights scaled so that the least is 100, then cut to whole numbers.

    Of sources that hold enough: Grain ends the mix with the first that does not.
    """
    shares = [weight / sum(weights) for weight in weights]
    whole = [int(share * (100 / min(shares))) for share in shares]
    counts, left, rest = [], samples, sum(whole)
    for part in whole:
        after = left * (rest - part) // rest
        counts.append(left - after)
        left, rest = after, rest - part
    return counts


def levanter(weights: Sequence[float], samples: int, *, block: int = 2048) -> Counts:
    """Levanter's mixture: in each block every source gets its share rounded down, the largest what is left."""
    shares = np.asarray(weights, float) / sum(weights)
    each = np.floor(shares * block).astype(int)
    each[int(np.argmax(shares))] += block - each.sum()
    return [int(count) for count in each * (samples // block)]


def nanotron(weights: Sequence[float], sizes: Sequence[int], samples: int, *, seed: int = 1234) -> Counts:
    """Nanoset: the greedy rule over one epoch of as many windows as there are, shuffled, and the same epoch again."""
    shares = np.asarray(weights, float) / sum(weights)
    epoch = _greedy(shares, sum(sizes))
    np.random.RandomState(seed).shuffle(epoch)
    whole, rest = divmod(samples, len(epoch))
    counts = whole * np.bincount(epoch, minlength=len(shares)) + np.bincount(epoch[:rest], minlength=len(shares))
    return [int(count) for count in counts]


def nanotron_unseen(weights: Sequence[float], sizes: Sequence[int]) -> Counts:
    """Windows of each source that nanotron meets in no epoch, since every epoch repeats the first."""
    shares = np.asarray(weights, float) / sum(weights)
    counts = np.bincount(_greedy(shares, sum(sizes)), minlength=len(shares))
    return [max(0, size - int(count)) for size, count in zip(sizes, counts, strict=True)]


def olmo(
    weights: Sequence[float],
    files: Sequence[Sequence[int]],
    *,
    tokens: int,
    batch_tokens: int,
    sequence_length: int,
) -> Counts:
    """OLMo-core's `SourceMixtureDatasetConfig`: whole windows a file, topped up evenly over files with room.

    Args:
        weights: Relative.
        files: The tokens of each file of each source.
        tokens: `requested_tokens`.
        batch_tokens: `global_batch_size`.
        sequence_length: Tokens a window.

    Returns:
        Windows a source.
    """
    taken = [
        (source, size, need)
        for source, (weight, sizes) in enumerate(zip(weights, files, strict=True))
        for size, need in _takes(sizes, int(tokens * (weight / sum(weights))))
    ]
    most = [size // sequence_length for _, size, _ in taken]
    windows = [min(need // sequence_length, room) for (_, _, need), room in zip(taken, most, strict=True)]
    wanted = math.ceil(tokens / batch_tokens) * (batch_tokens // sequence_length)
    rests = [
        need % sequence_length if has < room else 0
        for (_, _, need), has, room in zip(taken, windows, most, strict=True)
    ]
    _top_up(windows, most, rests, wanted - sum(windows))
    counts = [0] * len(weights)
    for (source, _, _), has in zip(taken, windows, strict=True):
        counts[source] += has
    return counts


def _takes(sizes: Sequence[int], need: int) -> list[tuple[int, int]]:
    """What is taken of each file, pass after pass over them."""
    found, left = [], need / sum(sizes)
    while left > 0:
        ratio = min(1.0, left)
        found += [(size, math.ceil(size * ratio)) for size in sizes]
        left -= ratio
    return found


def _top_up(windows: Counts, most: Counts, rests: Counts, missing: int) -> None:
    """Hand out what is missing: evenly, then by largest remainder, never past a file's end."""
    eligible = [i for i, has in enumerate(windows) if has < most[i]]
    if missing <= 0 or not eligible:
        return
    each = missing // len(eligible)
    before = sum(windows)
    for i in eligible:
        windows[i] += min(each, most[i] - windows[i])
    left = missing - (sum(windows) - before)
    order = sorted(((rests[i], i) for i in eligible if windows[i] < most[i]), reverse=True)
    for _, i in order[: max(0, left)]:
        windows[i] += 1
