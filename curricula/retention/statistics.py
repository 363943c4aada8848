"""Before against after, item by item: intervals, exact tests, and a verdict with a limit; numbers in, numbers out.

Both models read the same documents and items, so what one document shares with itself cancels. An unpaired test throws
that away and calls many a true loss noise. Documents are redrawn, not tokens: the tokens of a document are no
independent evidence. Each slice and task is judged on its own, never by an average in which a loss here hides a gain
there. Where all must be kept, each verdict may use the whole confidence (an intersection-union test); where any found
difference is to be claimed, p-values are corrected for their number (Holm).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm, t

_PIECE = 2**22
"""Draws held at a time."""

Verdict = Literal["kept", "lost", "unclear"]


@dataclass(frozen=True, slots=True)
class Difference:
    """After less before, as a mean over all units (bytes, items), with what redrawing documents makes of it.

    Args:
        value: Of the data as they are.
        low: Lower end of the two-sided interval.
        high: Its upper end.
        least: One-sided bound: the difference is above it with the confidence asked for.
        most: One-sided bound: the difference is below it with the confidence asked for.
        p: Two-sided p-value of no difference.
        count: Documents or items.
    """

    value: float
    low: float
    high: float
    least: float
    most: float
    p: float
    count: int


def paired_bootstrap(
    before: np.ndarray, after: np.ndarray, sizes: np.ndarray, *, confidence: float, replicates: int, seed: int
) -> Difference:
    """The difference of two means over units, with percentile intervals over redrawn documents.

    Redrawing few documents varies too little: what was drawn is spread about the value by sqrt(n / (n - 1)) and by
    Student's quantile over the normal one (bounds at 95%: 17% at 10 documents, 2% at 60).

    Args:
        before: (documents,) sums over each document's units, such as bits.
        after: The same of the other model.
        sizes: (documents,) units, such as bytes; ones for items.
        confidence: Of intervals and bounds.
        replicates: How often documents are redrawn.
        seed: Decides the draws.

    Raises:
        ValueError: Less than two documents, or arrays of different lengths.
    """
    if len(sizes) < 2 or not len(before) == len(after) == len(sizes):
        told = f"got {len(before)}, {len(after)}, {len(sizes)}"
        raise ValueError(f"expected equal numbers of documents, two or more, {told}")
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    value = float(change.sum() / np.sum(sizes))
    drawn = _redrawn(change, np.asarray(sizes, np.float64), replicates, seed)
    tail = 1 - confidence
    (low, high), (least, most) = (
        map(float, value + _spread(len(sizes), 1 - own) * (np.quantile(drawn, [own, 1 - own]) - value))
        for own in (tail / 2, tail)
    )
    # One more than there were, so that no finite number of draws claims a p of 0.
    sides = [1 + int((drawn <= 0).sum()), 1 + int((drawn >= 0).sum())]
    p = min(1.0, 2 * min(sides) / (replicates + 1))
    p = float(2 * t.sf(norm.isf(p / 2) / math.sqrt(len(sizes) / (len(sizes) - 1)), len(sizes) - 1))
    return Difference(value, low, high, least, most, p, len(sizes))


def _spread(count: int, level: float) -> float:
    """By how much a bound of redrawn documents lies too near the value."""
    plain = norm.ppf(level)
    return math.sqrt(count / (count - 1)) * (float(t.ppf(level, count - 1) / plain) if plain else 1.0)


def _redrawn(change: np.ndarray, sizes: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """(replicates,) the same mean over documents drawn with replacement."""
    generator, count = np.random.default_rng(seed), len(sizes)
    rows = max(1, _PIECE // count)
    found = []
    for first in range(0, replicates, rows):
        picked = generator.integers(0, count, (min(rows, replicates - first), count))
        found.append(change[picked].sum(axis=1) / sizes[picked].sum(axis=1))
    return np.concatenate(found)


def paired_shares(before: np.ndarray, after: np.ndarray, *, confidence: float) -> Difference:
    """The difference of two shares of right answers to the same items: score intervals (Tango 1998) and McNemar's p.

    Where no answer changed, redrawn items all say that none ever does; these bounds say how many items that rests on.

    Args:
        before: (items,) whether each was right.
        after: The same of the other model.
        confidence: Of intervals and bounds.

    Example:
        >>> right = np.ones(50, bool)
        >>> round(paired_shares(right, right, confidence=0.95).least, 3)
        -0.051
    """
    count, won, lost = len(before), int((~before & after).sum()), int((before & ~after).sum())
    tail = 1 - confidence
    low, high, least, most = (
        _score_bound(won, lost, count, float(sign * norm.isf(own))) for own in (tail / 2, tail) for sign in (1, -1)
    )
    return Difference((won - lost) / count, low, high, least, most, mcnemar(before, after), count)


def _score_bound(won: int, lost: int, count: int, z: float) -> float:
    """The difference of which the data lie z standard errors above (Tango, Statistics in Medicine 17:891, 1998)."""

    def excess(delta: float) -> float:
        b = -won - lost + (2 * count - won + lost) * delta
        c = -lost * delta * (1 - delta)
        share = (math.sqrt(max(0.0, b * b - 8 * count * c)) - b) / (4 * count)
        return won - lost - count * delta - z * math.sqrt(max(0.0, count * (2 * share + delta * (1 - delta))))

    value, edge = (won - lost) / count, math.copysign(1.0, -z)
    if value == edge or not z:
        return value
    # At the value itself the excess of data without a change is 0 too.
    return float(brentq(excess, value + math.copysign(1e-9, edge), edge))


def mcnemar(before: np.ndarray, after: np.ndarray) -> float:
    """The exact two-sided p-value that right and wrong answers change places as often as each other.

    Args:
        before: (items,) whether each was right.
        after: The same of the other model.

    Example:
        >>> mcnemar(np.ones(10, bool), np.arange(10) < 4)
        0.03125
    """
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    return float(binomtest(lost, lost + won, 0.5).pvalue) if lost + won else 1.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Each p-value as it stands among all that were looked at (Holm's step-down rule).

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    found: dict[str, float] = {}
    least = 0.0
    for number, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, (len(p_values) - number) * p))
        found[name] = least
    return {name: found[name] for name in p_values}


def non_inferior(difference: Difference, *, limit: float, worse: Literal["higher", "lower"]) -> Verdict:
    """Whether what got worse stayed within a limit, as far as the data can say.

    Args:
        difference: After less before.
        limit: What may be lost, at least 0, in the difference's unit.
        worse: `higher` for losses, `lower` for accuracies.

    Returns:
        `kept`: the loss is at most the limit, with the confidence of the bounds. `lost`: it is more, with the same
        confidence. `unclear`: neither can be said.
    """
    least, most = difference.least, difference.most
    if worse == "lower":
        least, most = -most, -least
    if most <= limit:
        return "kept"
    return "lost" if least > limit else "unclear"


def overall(scores: np.ndarray, stage: int) -> float:
    """OP: the mean score, after a stage, on what this and earlier stages taught.

    Args:
        scores: (stages + 1, stages) higher is better; row t after stage t, row 0 the base; column i what stage i + 1
            teaches.
        stage: From 1.
    """
    return float(scores[stage, :stage].mean())


def backward_transfer(scores: np.ndarray, stage: int) -> float:
    """BWT: the mean, over what earlier stages taught, of the score now less that when it had just been taught.

    Below 0 something was forgotten. Divided by t - 1 as in GEM (arXiv 1706.08840); TRACE divides by t, which counts a
    zero for the last stage. NaN after the first stage.
    """
    if stage < 2:
        return float("nan")
    return float(np.mean([scores[stage, i] - scores[i + 1, i] for i in range(stage - 1)]))


def forgetting(scores: np.ndarray, stage: int) -> list[float]:
    """F: for each column, the best score so far (the base's too) less that after a stage; at least 0."""
    return [float(scores[: stage + 1, i].max() - scores[stage, i]) for i in range(scores.shape[1])]


def change_from_base(scores: np.ndarray, stage: int, columns: Sequence[int]) -> float:
    """TRACE's delta: the mean over a suite's columns of the score after a stage less the base's."""
    return float(np.mean([scores[stage, i] - scores[0, i] for i in columns]))
