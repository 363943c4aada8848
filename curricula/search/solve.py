"""The weights with the least predicted loss: a convex programme over the mixture, solved to its optimality conditions.

    minimise   sum_m omega_m exp(u_m(w)) + kl * KL(w || prior)
    subject to sum_i w_i = 1,  low_i <= w_i <= high_i,  u_k(w) <= limit_k for slices that must be kept

Without repetition u_m(w) = t_m . w, the exponent of the mixing law. With it a source's weight counts for less once its
tokens repeat: what is repeated teaches no more than the source that helps slice m least,
u_m(w) = worst_m + sum_i (t_mi - worst_m) fresh_i(w_i), worst_m = max_i t_mi. As fresh_i is concave and t_mi - worst_m
at most zero, u_m stays convex, and it does not depend on the level of t, which a law cannot tell from its factor.

Source: Olmix, arXiv 2602.12237, which solves the first form; the discount is Muennighoff et al.'s, 2305.16264.
Olmix fits on runs without repetition and then allows four epochs: its law cannot know what repetition costs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize

from mixer.baselines import fresh_equivalent, worth_of_next

_SLACK = 1e-6
_LEAST_WEIGHT = 1e-12
_OPTIONS = {"ftol": 1e-13, "maxiter": 500}
_AS_FAR_AS_ROUNDING_GOES = 8
"""SLSQP's word for a line search that finds nothing lower."""


@dataclass(frozen=True, eq=False, slots=True)
class Programme:
    """What is minimised, over K sources.

    Args:
        t: (M, K) exponents of the slices whose loss counts.
        omega: (M,) how much each counts, above zero.
        prior: (K,) above zero, sums to one.
        kl: Price of a nat of divergence from the prior.
        low: (K,) least weights.
        high: (K,) largest weights.
        kept: (N, K) exponents of the slices that must be kept; N may be 0.
        limits: (N,) largest exponents of these.
        passes: (K,) epochs over each source if it had all the weight; zeros where repetition costs nothing.
        before: (K,) epochs over each source in other stages.
    """

    t: np.ndarray
    omega: np.ndarray
    prior: np.ndarray
    kl: float
    low: np.ndarray
    high: np.ndarray
    kept: np.ndarray
    limits: np.ndarray
    passes: np.ndarray
    before: np.ndarray

    def objective(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        """The value at weights (K,), and its slope (K,)."""
        exponents, slopes = self.exponents(self.t, w)
        losses = self.omega * np.exp(exponents)
        log = np.log(np.maximum(w, _LEAST_WEIGHT) / self.prior)
        return float(losses.sum() + self.kl * (w @ log)), losses @ slopes + self.kl * (log + 1)

    def exponents(self, t: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exponents u (M,) at weights (K,) for t (M, K), and their slopes (M, K)."""
        fresh, worth = self.fresh(w)
        worst = t.max(axis=1, keepdims=True, initial=-np.inf)
        return worst[:, 0] + (t - worst) @ fresh, (t - worst) * worth

    def fresh(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (K,) that new tokens of the same worth would have, and what the last token of each is worth."""
        epochs = self.before + self.passes * w
        worth = np.array([worth_of_next(now) for now in epochs])
        gained = [fresh_equivalent(now) - fresh_equivalent(was) for now, was in zip(epochs, self.before, strict=True)]
        is_free = self.passes == 0
        return np.where(is_free, w, np.array(gained) / np.where(is_free, 1, self.passes)), np.where(is_free, 1, worth)


def solve(programme: Programme) -> np.ndarray | None:
    """The best weights (K,), or None where no mixture within the bounds keeps what must be kept."""
    start = _nearest(programme.prior, programme.low, programme.high)
    if start is None:
        return None
    if _squared_excess(programme, start)[0] > 0:
        start = _minimised(programme, start, lambda w: _squared_excess(programme, w), keep=False)
        if _squared_excess(programme, start)[0] > _SLACK**2:
            return None
    return _minimised(programme, start, programme.objective, keep=len(programme.limits) > 0)


def _nearest(prior: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """The weights within bounds that keep the prior's proportions wherever no bound is in the way."""
    if low.sum() > 1 or high.sum() < 1 or (low > high).any():
        return None

    def missing(log_scale: float) -> float:
        return float(np.clip(np.exp(log_scale) * prior, low, high).sum()) - 1

    # At these scales every weight is at its least, or at its most.
    ends = np.log(np.maximum(np.r_[low, high], _LEAST_WEIGHT) / np.r_[prior, prior])
    least, most = float(ends.min()) - 1, float(ends.max()) + 1
    if missing(least) >= 0 or missing(most) <= 0:
        return np.asarray(low if missing(least) >= 0 else high)
    return np.asarray(np.clip(np.exp(brentq(missing, least, most, xtol=1e-14)) * prior, low, high))


def _squared_excess(programme: Programme, w: np.ndarray) -> tuple[float, np.ndarray]:
    """How far the kept slices are beyond their limits, and its slope."""
    exponents, slopes = programme.exponents(programme.kept, w)
    excess = np.maximum(exponents - programme.limits, 0)
    return float(excess @ excess), 2 * excess @ slopes


def _minimised(
    programme: Programme, start: np.ndarray, objective: Callable[[np.ndarray], tuple[float, np.ndarray]], *, keep: bool
) -> np.ndarray:
    ones = np.ones_like(start)
    constraints: list[dict[str, Any]] = [{"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: ones}]
    if keep:
        room = {
            "type": "ineq",
            "fun": lambda w: programme.limits - programme.exponents(programme.kept, w)[0],
            "jac": lambda w: -programme.exponents(programme.kept, w)[1],
        }
        constraints.append(room)
    bounds = list(zip(programme.low, programme.high, strict=True))
    end = minimize(objective, start, jac=True, method="SLSQP", bounds=bounds, constraints=constraints, options=_OPTIONS)
    if not end.success and end.status != _AS_FAR_AS_ROUNDING_GOES:
        raise ArithmeticError(f"the mixture of least loss was not found: {end.message}")
    w = np.clip(end.x, programme.low, programme.high)
    return np.asarray(w / w.sum())
