"""What a sweep asks, one class a way to vary mixtures. Both answer alike:

- `families`: laws that may fit, and `points`: the (n, columns) that these read of runs with weights (n, K);
- `choose`: the best mixture by some laws, or None where none keeps what must be kept;
- `losses`: slice -> the loss that the stage would end with at weights (K,);
- `score`: what is minimised there, and `minimised`: what that is, in words;
- `covers`: whether weights (K,) lie within what was tried.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from curricula.search.laws import DCpt, Law, MixingLaw, PowerLaw
from curricula.search.solve import Programme, solve
from mixer.errors import PlanError

_STEPS = 2001
_TINY = 1e-9
_AT_BOUND = 1e-6

Laws = Mapping[str, Law]
"""Slice -> its law."""


@dataclass(frozen=True, eq=False, slots=True)
class Choice:
    """The best mixture by some laws.

    Args:
        weights: (K,) fractions.
        beyond: Which end of what was tried it stands at, so that a better one may lie beyond; empty if at none.
    """

    weights: np.ndarray
    beyond: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class ShareQuestion:
    """How large the share of some sources should be; these and the others keep their proportions.

    Args:
        names: The sources.
        inside: (K,) bool, whose share varies.
        mixture: (K,) the stage's own.
        caps: (K,) the largest fractions that there is data for.
        tried: Least and largest share that runs had.
        budgets: The largest token budget of the runs, and the stage's, where laws read budgets; else None.
        targets: Slice -> how much its loss counts; they sum to one. Empty: the largest share within the limits is best.
        limits: Slice -> the largest loss that is allowed.
    """

    names: tuple[str, ...]
    inside: np.ndarray
    mixture: np.ndarray
    caps: np.ndarray
    tried: tuple[float, float]
    budgets: tuple[int, int] | None
    targets: Mapping[str, float]
    limits: Mapping[str, float]

    @property
    def families(self) -> tuple[type[Law], ...]:
        return (DCpt, PowerLaw) if self.budgets is None else (DCpt,)

    @property
    def minimised(self) -> str:
        return "weighted loss" if self.targets else "share of the other sources"

    def points(self, weights: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        shares = weights[:, self.inside].sum(axis=1)
        return np.asarray(shares[:, None] if self.budgets is None else np.c_[shares, tokens / self.budgets[0]])

    def choose(self, laws: Laws) -> Choice | None:
        low, high = self._range()
        shares = np.linspace(low, high, _STEPS)
        points = self._at(shares)
        allowed = np.ones(_STEPS, bool)
        for name, limit in self.limits.items():
            allowed &= laws[name].predict(points) <= limit
        if not allowed.any():
            return None
        scores = self._scores(laws, points)
        best = int(np.argmin(np.where(allowed, scores, np.inf)))
        ends = {0: (low, "smallest"), _STEPS - 1: (high, "largest")}
        at, word = ends.get(best, (0.0, ""))
        # At 0, at 1 and where the data ends there is nothing beyond to try.
        is_open = word and at == self.tried[word == "largest"] and 0 < at < 1
        beyond = f"a share of {at:.3g}, the {word} that was tried" if is_open else ""
        return Choice(self.weights(float(shares[best])), beyond)

    def losses(self, laws: Laws, weights: np.ndarray) -> dict[str, float]:
        points = self._at(np.array([weights[self.inside].sum()]))
        return {name: float(law.predict(points)[0]) for name, law in laws.items()}

    def score(self, laws: Laws, weights: np.ndarray) -> float:
        return float(self._scores(laws, self._at(np.array([weights[self.inside].sum()])))[0])

    def covers(self, weights: np.ndarray) -> bool:
        share = weights[self.inside].sum()
        return bool(self.tried[0] - _TINY <= share <= self.tried[1] + _TINY)

    def weights(self, share: float) -> np.ndarray:
        """(K,) the mixture in which the varied sources have this share together."""
        inside = np.where(self.inside, self.mixture, 0.0)
        outside = self.mixture - inside
        return np.asarray(inside / inside.sum() * share + outside / outside.sum() * (1 - share))

    def _scores(self, laws: Laws, points: np.ndarray) -> np.ndarray:
        if not self.targets:
            return np.asarray(1 - points[:, 0])
        return np.asarray(sum(omega * laws[name].predict(points) for name, omega in self.targets.items()))

    def _at(self, shares: np.ndarray) -> np.ndarray:
        ahead = [] if self.budgets is None else [np.full_like(shares, self.budgets[1] / self.budgets[0])]
        return np.stack([shares, *ahead], axis=1)

    def _range(self) -> tuple[float, float]:
        """The shares that were tried and that there is data for.

        Raises:
            PlanError: There are none.
        """
        full, none = self.weights(1.0), self.weights(0.0)
        most = min(self.caps[self.inside] / full[self.inside])
        least = 1 - min(self.caps[~self.inside] / none[~self.inside])
        low, high = max(self.tried[0], float(least)), min(self.tried[1], float(most))
        if low >= high:
            raise PlanError(
                f"sweep: got data for shares from {max(0.0, least):.3g} to {min(1.0, most):.3g} within max_epochs,"
                f" expected some of those tried, {self.tried[0]:.3g} to {self.tried[1]:.3g}",
                hint="try other shares, add data, raise max_epochs, or cut the stage's token_budget",
            )
        return low, high


@dataclass(frozen=True, eq=False, slots=True)
class WeightsQuestion:
    """Which weights all sources should have.

    Args:
        names: The sources.
        prior: (K,) what the mixture is held near.
        kl: The price of leaving it.
        low: (K,) least weights, and caps (K,) the largest fractions that there is data for.
        tried: (2, K) least and largest weight of each source in the runs.
        passes: (K,) epochs over each source if it had all the stage; zeros where repetition costs nothing.
        before: (K,) epochs over each source in other stages.
        targets: Slice -> how much its loss counts; they sum to one.
        limits: Slice -> the largest loss that is allowed.
    """

    names: tuple[str, ...]
    prior: np.ndarray
    kl: float
    low: np.ndarray
    caps: np.ndarray
    tried: np.ndarray
    passes: np.ndarray
    before: np.ndarray
    targets: Mapping[str, float]
    limits: Mapping[str, float]

    @property
    def families(self) -> tuple[type[Law], ...]:
        return (MixingLaw,)

    @property
    def minimised(self) -> str:
        return "weighted loss"

    def points(self, weights: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return weights

    def choose(self, laws: Laws) -> Choice | None:
        programme = self._programme(laws)
        weights = solve(programme) if programme is not None else None
        if weights is None:
            return None
        ends = (
            (weights <= self.tried[0] + _AT_BOUND) & (self.tried[0] > self.low),
            (weights >= self.tried[1] - _AT_BOUND) & (self.tried[1] < self.caps),
        )
        beyond = [
            f"a weight of {self.tried[side][i]:.3g} for `{self.names[i]}`, the {word} that was tried"
            for side, word in enumerate(("smallest", "largest"))
            for i in np.flatnonzero(ends[side])
        ]
        return Choice(weights, beyond[0] if beyond else "")

    def losses(self, laws: Laws, weights: np.ndarray) -> dict[str, float]:
        programme = self._programme(laws, limited=False)
        assert programme is not None
        t = np.array([_mixing(law).t for law in laws.values()])
        exponents, _ = programme.exponents(t, weights)
        return {
            name: float(np.exp(_mixing(law).c) + np.exp(exponent))
            for (name, law), exponent in zip(laws.items(), exponents, strict=True)
        }

    def score(self, laws: Laws, weights: np.ndarray) -> float:
        losses = self.losses(laws, weights)
        return sum(omega * losses[name] for name, omega in self.targets.items())

    def covers(self, weights: np.ndarray) -> bool:
        return bool((weights >= self.tried[0] - _TINY).all() and (weights <= self.tried[1] + _TINY).all())

    def _programme(self, laws: Laws, *, limited: bool = True) -> Programme | None:
        """What is solved; None where a limit lies below what any mixture can reach."""
        limits = self.limits if limited else {}
        room = np.array([limit - np.exp(_mixing(laws[name]).c) for name, limit in limits.items()])
        if (room <= 0).any():
            return None
        size = len(self.names)
        return Programme(
            t=np.array([_mixing(laws[name]).t for name in self.targets]),
            omega=np.array(list(self.targets.values())),
            prior=self.prior,
            kl=self.kl,
            low=np.maximum(self.low, self.tried[0]),
            high=np.minimum(self.caps, self.tried[1]),
            kept=np.array([_mixing(laws[name]).t for name in limits]).reshape(-1, size),
            limits=np.log(room),
            passes=self.passes,
            before=self.before,
        )


def _mixing(law: Law) -> MixingLaw:
    assert isinstance(law, MixingLaw)
    return law


Question = ShareQuestion | WeightsQuestion


def rows_of(names: Sequence[str], mixtures: Sequence[Mapping[str, float]]) -> np.ndarray:
    """(n, K) weights of mixtures, in the order of the names."""
    return np.array([[mixture.get(name, 0.0) for name in names] for mixture in mixtures])
