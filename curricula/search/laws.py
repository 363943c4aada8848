"""The laws that tell a loss from a mixture: what each says, how it is fitted, what it predicts.

Shares, not tokens, are their variables, so each holds for the model and the token budget that its runs had; `DCpt` also
for other budgets, where the runs had several. Points are (n, columns) float64, losses (n,) in nats or bits, above zero.

Fits minimise the Huber loss of log(predicted / measured), see `curricula.search.huber`. Where a law is linear in some
of its parameters, starts are a grid over the others, with the linear ones solved for; or a previous fit is the only
start.
"""

import itertools
from dataclasses import astuple, dataclass
from typing import Protocol, Self

import numpy as np
from scipy.optimize import nnls

from curricula.search import huber

_NOTHING = 1e-12
_LARGEST_POWER = 5.0


class Law(Protocol):
    """A fitted law."""

    @classmethod
    def parameters(cls, columns: int) -> int:
        """How many numbers are fitted to points of so many columns."""

    @classmethod
    def fit(cls, points: np.ndarray, losses: np.ndarray, start: Self | None = None) -> Self:
        """The law nearest to what was measured, from a start or from many."""

    def predict(self, points: np.ndarray) -> np.ndarray:
        """The losses (n,) at points (n, columns)."""


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """a x^s + b: loss of a domain against its share (first column), or the share that is bearable against tokens.

    It only rises or only falls, so it knows no best share inside; three parameters, five pilots will do.

    Source: CMR, Gu et al. 2024, arXiv 2407.17467: L_dom(R), dL_dom(T) and R_CMR(T).
    """

    a: float
    s: float
    b: float

    @classmethod
    def parameters(cls, columns: int) -> int:
        return 3

    @classmethod
    def fit(cls, points: np.ndarray, losses: np.ndarray, start: Self | None = None, *, relative: bool = True) -> Self:
        """The law nearest to `losses`; with `relative=False` these may be differences of losses, of any sign."""
        x = points[:, 0]

        def curve(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            power = _power(x, at[1])
            return at[0] * power + at[2], np.c_[power, at[0] * power * _log(x), np.ones_like(x)]

        # Zero has no negative power.
        least = 0.02 if x.min() <= 0 else -_LARGEST_POWER
        tried = [s for s in (-2.0, -1.0, -0.5, -0.15, 0.15, 0.5, 1.0, 2.0) if s >= least]
        starts = [np.array(astuple(start))] if start else [_with_linear(x, losses, (s,)) for s in tried]
        bounds = [(None, None), (least, _LARGEST_POWER), (None, None)]
        return cls(*map(float, huber.fit(curve, losses, starts=starts, bounds=bounds, relative=relative)))

    def predict(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(self.a * _power(points[:, 0], self.s) + self.b)


CMR_TOKENS = 0.2e9
"""Tokens that `PowerLaw` counts as one in `CMR`."""
CMR = {
    "460M": PowerLaw(0.22524761, 0.26944345, -0.48139982),
    "940M": PowerLaw(0.7520627, 0.13720245, -1.06581937),
    "1.6B": PowerLaw(-2.36384831, -0.15125569, 1.59223649),
    "3.1B": PowerLaw(-2.5368197, -0.42071423, 0.84375368),
}
"""Model size -> the largest domain share whose general loss ended within 0.05 of the base model's, against tokens.

Measured up to 3.1B parameters and 20B tokens on a corpus of finance (2407.17467); beyond, it soon leaves 0 to 1.
"""


@dataclass(frozen=True, slots=True)
class GeneralLoss:
    """a2 T^s2 + a3 T^s3 + b2: how far the general loss lies above the base model's after T (first column) tokens.

    It first rises, then may fall again: what CMR asks for is a share at which it ends within a tolerance, falling.

    Source: Gu et al. 2024, arXiv 2407.17467.
    """

    a2: float
    s2: float
    a3: float
    s3: float
    b2: float

    @classmethod
    def parameters(cls, columns: int) -> int:
        return 5

    @classmethod
    def fit(cls, points: np.ndarray, losses: np.ndarray, start: Self | None = None) -> Self:
        """The law nearest to differences of losses, of any sign."""
        x = points[:, 0]

        def curve(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            one, other, log = _power(x, at[1]), _power(x, at[3]), _log(x)
            slopes = np.c_[one, at[0] * one * log, other, at[2] * other * log, np.ones_like(x)]
            return at[0] * one + at[2] * other + at[4], slopes

        pairs = itertools.combinations((-1.5, -0.7, -0.3, 0.1, 0.3, 0.6, 1.0), 2)
        starts = [np.array(astuple(start))] if start else [_with_linear(x, losses, pair) for pair in pairs]
        bounds = [(None, None), (-_LARGEST_POWER, _LARGEST_POWER)] * 2 + [(None, None)]
        return cls(*map(float, huber.fit(curve, losses, starts=starts, bounds=bounds, relative=False)))

    def predict(self, points: np.ndarray) -> np.ndarray:
        x = points[:, 0]
        return np.asarray(self.a2 * _power(x, self.s2) + self.a3 * _power(x, self.s3) + self.b2)


@dataclass(frozen=True, slots=True)
class DCpt:
    """E + B r^eta / D^beta + C / (r + eps)^gamma: a loss against a share r, which may have a best value inside.

    The C term is what the share brings, the B term what it costs; all are positive. Columns: r, and D where runs had
    several budgets, in any unit near one; else beta is 0. The model's size is the runs' and part of E.

    Source: D-CPT law, Que et al. 2024, arXiv 2406.01375.
    """

    e: float
    b: float
    eta: float
    c: float
    eps: float
    gamma: float
    beta: float = 0.0

    @classmethod
    def parameters(cls, columns: int) -> int:
        return 5 + columns

    @classmethod
    def fit(cls, points: np.ndarray, losses: np.ndarray, start: Self | None = None) -> Self:
        share, budget = points[:, 0], points[:, 1] if points.shape[1] > 1 else None

        def curve(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            e, b, eta, c, eps, gamma = np.exp(at[:6])
            cost, gain = _terms(share, budget, eta, eps, gamma, at[6] if budget is not None else 0.0)
            cost, gain = b * cost, c * gain
            slopes = [np.full_like(share, e), cost, eta * cost * _log(share), gain]
            slopes += [-gamma * eps * gain / (share + eps), -gamma * gain * np.log(share + eps)]
            slopes += [] if budget is None else [-cost * np.log(budget)]
            return e + cost + gain, np.stack(slopes, axis=1)

        bounds = _D_CPT_BOUNDS + ([] if budget is None else [(0.0, 3.0)])
        starts = [start._vector(budget)] if start else list(_d_cpt_starts(share, budget, losses))
        found = huber.fit(curve, losses, starts=[np.clip(s, *np.transpose(bounds)) for s in starts], bounds=bounds)
        return cls(*map(float, np.exp(found[:6])), *map(float, found[6:]))

    def predict(self, points: np.ndarray) -> np.ndarray:
        budget = points[:, 1] if points.shape[1] > 1 else None
        cost, gain = _terms(points[:, 0], budget, self.eta, self.eps, self.gamma, self.beta)
        return np.asarray(self.e + self.b * cost + self.c * gain)

    def _vector(self, budget: np.ndarray | None) -> np.ndarray:
        *positive, beta = astuple(self)
        return np.array([*np.log(positive), *([] if budget is None else [beta])])


_D_CPT_BOUNDS: list[tuple[float, float]] = [
    (float(np.log(least)), float(np.log(most)))
    for least, most in ((1e-3, 1e3), (1e-6, 1e3), (0.2, 6), (1e-6, 1e3), (1e-3, 1), (0.05, 6))
]
"""Of the logarithms of E, B, eta, C, eps, gamma. Small powers and large eps make terms that only E could tell apart."""


def _terms(
    share: np.ndarray, budget: np.ndarray | None, eta: float, eps: float, gamma: float, beta: float
) -> tuple[np.ndarray, np.ndarray]:
    cost = _power(share, eta)
    return cost if budget is None else cost * budget**-beta, (share + eps) ** -gamma


def _d_cpt_starts(share: np.ndarray, budget: np.ndarray | None, losses: np.ndarray) -> list[np.ndarray]:
    """Powers from a grid; E, B and C by least squares of relative errors, none below zero."""
    grids = (0.3, 0.7, 1.5, 3.0), (0.005, 0.05, 0.3), (0.1, 0.5, 1.5), (0.0,) if budget is None else (0.1, 0.5)
    starts = []
    for eta, eps, gamma, beta in itertools.product(*grids):
        columns = np.c_[np.ones_like(share), *_terms(share, budget, eta, eps, gamma, beta)]
        e, b, c = np.maximum(nnls(columns / losses[:, None], np.ones_like(losses))[0], 1e-5)
        starts.append(np.array([*np.log([e, b, eta, c, eps, gamma]), *([] if budget is None else [beta])]))
    return starts


@dataclass(frozen=True, slots=True)
class MixingLaw:
    """exp(c) + exp(t . w): a loss against all weights w (one column a source, rows summing to one).

    A source with a lower t lowers the loss; convex in w. A factor before the exponential is part of t.

    Source: Data Mixing Laws, Ye et al. 2024, arXiv 2403.16952, in the form of Olmix, 2602.12237.
    """

    c: float
    t: tuple[float, ...]

    @classmethod
    def parameters(cls, columns: int) -> int:
        return 1 + columns

    @classmethod
    def fit(cls, points: np.ndarray, losses: np.ndarray, start: Self | None = None) -> Self:
        def curve(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            falls = np.exp(np.minimum(points @ at[1:], _LARGEST_EXPONENT))
            floor = np.exp(at[0])
            return floor + falls, np.c_[np.full_like(falls, floor), points * falls[:, None]]

        least = float(losses.min())
        bounds: list[tuple[float | None, float | None]] = [(float(np.log(least * 1e-3)), float(np.log(least * 0.999)))]
        starts = [np.array([start.c, *start.t])] if start else _mixing_starts(points, losses, least)
        found = huber.fit(curve, losses, starts=starts, bounds=bounds + [(None, None)] * points.shape[1])
        return cls(float(found[0]), tuple(map(float, found[1:])))

    def predict(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(self.c) + np.exp(np.minimum(points @ np.array(self.t), _LARGEST_EXPONENT)))


_LARGEST_EXPONENT = 50.0


def _mixing_starts(points: np.ndarray, losses: np.ndarray, least: float) -> list[np.ndarray]:
    """Floors at parts of the least loss; above each, the logarithm of what is left is linear in the weights."""
    floors = [part * least for part in (0.05, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)]
    return [np.r_[np.log(floor), np.linalg.lstsq(points, np.log(losses - floor))[0]] for floor in floors]


def _with_linear(x: np.ndarray, values: np.ndarray, powers: tuple[float, ...]) -> np.ndarray:
    """(a, s) for each power, then b: the factors and the constant by least squares."""
    factors = np.linalg.lstsq(np.c_[*(_power(x, s) for s in powers), np.ones_like(x)], values)[0]
    return np.array([*itertools.chain.from_iterable(zip(factors[:-1], powers, strict=True)), factors[-1]])


def _power(x: np.ndarray, s: float) -> np.ndarray:
    # Zero has no negative power; a share of zero may be asked for all the same.
    return np.asarray((x if s > 0 else np.maximum(x, _NOTHING)) ** s)


def _log(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.maximum(x, _NOTHING)))
