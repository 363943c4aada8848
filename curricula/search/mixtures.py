"""Which mixtures a sweep tries: a share at several values, or draws around a prior.

Weights are whole ten-thousandths that sum to one. A draw depends on the seed and its number alone, so a longer sweep
begins with the mixtures of a shorter one.

Source: RegMix, arXiv 2407.01492, and Olmix, 2602.12237: Dirichlet draws whose parameters sum to one of 15 log-spaced
strengths, small weights zeroed, nearly equal mixtures and such as repeat too much refused.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from curricula.order import seed_of
from mixer.errors import PlanError
from mixer.mixture import allocate

_PARTS = 10_000
_STRENGTHS = 15
_STRIDE = 7
"""Coprime to the strengths, so that any few draws in a row differ much in theirs."""
_NEAREST = 0.01
"""Least Euclidean distance of two mixtures."""
_MOST_DRAWS = 2_000


def at_shares(mixture: Mapping[str, float], varied: Iterable[str], grid: Iterable[float]) -> list[dict[str, float]]:
    """A mixture for each share of the varied sources; these and the others keep their proportions.

    Example:
        >>> at_shares({"web": 0.6, "books": 0.2, "qa": 0.2}, ["qa"], [0.5])
        [{'web': 0.375, 'books': 0.125, 'qa': 0.5}]
    """
    inside = set(varied)
    totals = {side: sum(w for name, w in mixture.items() if (name in inside) == side) for side in (True, False)}
    return [
        _rounded(
            {
                name: weight / totals[name in inside] * (share if name in inside else 1 - share)
                for name, weight in mixture.items()
            }
        )
        for share in grid
    ]


def around(
    prior: Mapping[str, float],
    *,
    first: Iterable[Mapping[str, float]],
    count: int,
    caps: Mapping[str, float],
    strengths: tuple[float, float],
    minimum: float,
    seed: int,
    least: float = 0.0,
) -> list[dict[str, float]]:
    """`count` mixtures: the first ones given, then draws around the prior; no two alike, none beyond a cap.

    Args:
        prior: Source -> fraction, above zero.
        first: Mixtures that must be among them, such as baselines.
        count: How many in all.
        caps: Source -> the largest fraction that a run can draw.
        strengths: Least and largest sum of the Dirichlet's parameters.
        minimum: Smaller weights become zero.
        seed: The recipe's.
        least: The smallest weight that a run can draw, one sequence of it.

    Raises:
        PlanError: Too few draws are within the caps and unlike one another.
    """
    found: list[dict[str, float]] = []
    for drawn in (*first, *_draws(prior, strengths, max(minimum, least), seed)):
        if len(found) == count:
            return found
        mixture = _rounded(drawn)
        within = all(weight == 0 or least <= weight <= caps[name] for name, weight in mixture.items())
        if within and all(_distance(mixture, other) >= _NEAREST for other in found):
            found.append(mixture)
    if len(found) < count:
        raise PlanError(
            f"sweep.vary: got {len(found)} mixtures in {_MOST_DRAWS:,} draws that differ and are within max_epochs"
            f"{' and of whole sequences' if least else ''},"
            f" expected {count}",
            hint="lower `mixtures` or `tokens_per_run`, raise the larger of `strengths`, or add data",
        )
    return found


def _draws(
    prior: Mapping[str, float], strengths: tuple[float, float], minimum: float, seed: int
) -> Iterator[dict[str, float]]:
    scale = np.geomspace(*strengths, _STRENGTHS)
    parts = np.array(list(prior.values()))
    for number in range(_MOST_DRAWS):
        generator = np.random.Generator(np.random.PCG64(seed_of(seed, "sweep", number)))
        drawn = generator.dirichlet(parts / parts.sum() * scale[number * _STRIDE % _STRENGTHS])
        drawn[drawn < minimum] = 0.0
        yield dict(zip(prior, (drawn / drawn.sum()).tolist(), strict=True))


def _rounded(weights: Mapping[str, float]) -> dict[str, float]:
    counts = allocate({name: weight for name, weight in weights.items() if weight > 0}, sequences=_PARTS)
    return {name: counts.get(name, 0) / _PARTS for name in weights}


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return float(np.linalg.norm([one[name] - other[name] for name in one]))
