"""Laws fitted to runs, with what can be said of their errors: each mixture left out in turn, and redrawn runs.

Redrawing. A replicate gives every run the residuals of a run drawn at random, on top of the fitted losses, and fits
anew. Drawing whole runs, as usual, would leave out some of a grid's few shares; drawing their residuals keeps all, and
keeps together what one run did on all slices. Residuals shrink as a law has more parameters, so they are scaled by
sqrt(n / chi2(n - p)): with few runs to spare the intervals are as wide as Student's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from curricula.order import seed_of
from curricula.search.laws import Law

_LARGEST_RESIDUAL = 0.5
"""Of a redrawn run, in log loss; only far tails of few runs are beyond."""


@dataclass(frozen=True, eq=False, slots=True)
class Runs:
    """What was measured.

    Args:
        weights: (n, K) float64, the mixtures.
        points: (n, columns) float64, what laws read.
        losses: Slice -> (n,) float64.
        groups: (n,) int, runs of one mixture share a number.
        held: Groups that are left out in turn; the ends of a range are not, where nothing is asked beyond them.
    """

    weights: np.ndarray
    points: np.ndarray
    losses: Mapping[str, np.ndarray]
    groups: np.ndarray
    held: tuple[int, ...]

    @property
    def all_groups(self) -> tuple[int, ...]:
        """The numbers of all mixtures."""
        return tuple(sorted(set(self.groups.tolist())))

    def means(self, values: np.ndarray, groups: Sequence[int]) -> np.ndarray:
        """Mean of (n,) values over each of some groups."""
        return np.array([values[self.groups == group].mean() for group in groups])


@dataclass(frozen=True, eq=False, slots=True)
class Evidence:
    """Fitted laws, and how far they may be wrong.

    Args:
        runs: What they were fitted to.
        laws: Slice -> law.
        replicates: The same, fitted to redrawn runs.
        left_out: Slice -> (held groups,) loss predicted for each mixture by a law that did not see it.
    """

    runs: Runs
    laws: Mapping[str, Law]
    replicates: tuple[Mapping[str, Law], ...]
    left_out: Mapping[str, np.ndarray]


def gather(runs: Runs, families: Sequence[type[Law]], *, replicates: int, seed: int) -> Evidence:
    """The laws of every slice; of several families the one that predicts best what it did not see.

    Args:
        runs: What was measured; enough for each family, see `enough`.
        families: Kinds of law to choose from.
        replicates: How often runs are redrawn.
        seed: The recipe's.
    """
    laws, left_out = {}, {}
    for name, losses in runs.losses.items():
        tried = []
        for family in families:
            law = family.fit(runs.points, losses)
            predicted = _left_out(runs, losses, law)
            error = float(np.mean((np.log(predicted) - np.log(runs.means(losses, runs.held))) ** 2))
            tried.append((error, law, predicted))
        _, laws[name], left_out[name] = min(tried, key=lambda found: found[0])
    return Evidence(runs, laws, tuple(_redrawn(runs, laws, replicates, seed)), left_out)


def enough(family: type[Law], columns: int, mixtures: int) -> bool:
    """Whether so many different mixtures can be fitted and tested: two more than the law has parameters."""
    return mixtures >= family.parameters(columns) + 2


def _left_out(runs: Runs, losses: np.ndarray, law: Law) -> np.ndarray:
    predicted = []
    for group in runs.held:
        rest = runs.groups != group
        found = type(law).fit(runs.points[rest], losses[rest], law)
        predicted.append(float(found.predict(runs.points[~rest]).mean()))
    # A law may fall below zero where it was not fitted; that is an error of all, not a missing one.
    return np.maximum(predicted, 1e-6)


def _redrawn(runs: Runs, laws: Mapping[str, Law], replicates: int, seed: int) -> list[dict[str, Law]]:
    fitted = {name: law.predict(runs.points) for name, law in laws.items()}
    residuals = {name: np.log(runs.losses[name] / fitted[name]) for name in laws}
    size, columns = runs.points.shape
    found = []
    for number in range(replicates):
        generator = np.random.Generator(np.random.PCG64(seed_of(seed, "sweep", "replicate", number)))
        rows = generator.integers(size, size=size)
        uncertain = generator.uniform()
        replicate: dict[str, Law] = {}
        for name, law in laws.items():
            spare = size - type(law).parameters(columns)
            scale = np.sqrt(size / chi2.ppf(max(uncertain, 1e-6), spare))
            drawn = (residuals[name] - residuals[name].mean())[rows] * scale
            losses = fitted[name] * np.exp(np.clip(drawn, -_LARGEST_RESIDUAL, _LARGEST_RESIDUAL))
            replicate[name] = type(law).fit(runs.points, losses, law)
        found.append(replicate)
    return found
