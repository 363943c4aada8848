"""Where the Huber loss of a curve's errors is least: L-BFGS from many starts, with exact slopes.

A run that went wrong pulls a fit by squared errors to itself; beyond `delta` the Huber loss grows only linearly. Starts
are computed, never drawn, so equal data gives an equal fit. Only the best few are followed to their end.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize

Curve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Parameters (p,) -> values at the n points (n,), and their slopes (n, p)."""

DELTA = 0.01
"""In relative loss: errors up to 1% count squared. Data Mixing Laws use this, Olmix 0.02; runs differ by some 0.2%."""
_FOLLOWED = 3
_LEAST = 1e-6
"""Curves that pass below zero on the way have no logarithm; there they count as this."""


def fit(
    curve: Curve,
    values: np.ndarray,
    *,
    starts: Sequence[np.ndarray],
    bounds: Sequence[tuple[float | None, float | None]],
    relative: bool = True,
) -> np.ndarray:
    """The parameters (p,) with the least mean Huber loss of log(curve / values), or of curve - values.

    Args:
        curve: What is fitted, at the points where `values` were measured.
        values: (n,) what was measured; above zero if `relative`.
        starts: Parameters to start from; the best three are followed.
        bounds: Least and most of each parameter.
        relative: Errors are differences of logarithms, else plain ones.
    """

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        found, slopes = curve(point)
        if relative:
            found = np.maximum(found, _LEAST)
            errors, slopes = np.log(found / values), slopes / found[:, None]
        else:
            errors = found - values
        # In units of delta, so that the minimiser's stopping rule means the same for every curve.
        errors = errors / DELTA
        inside = np.abs(errors) <= 1
        loss = np.where(inside, errors**2 / 2, np.abs(errors) - 0.5).mean()
        return float(loss), np.clip(errors, -1, 1) @ slopes / (DELTA * len(values))

    first = [objective(start)[0] for start in starts]
    best = sorted(range(len(starts)), key=first.__getitem__)[:_FOLLOWED]
    ends = [minimize(objective, starts[i], jac=True, method="L-BFGS-B", bounds=bounds, options=_OPTIONS) for i in best]
    return np.asarray(min(ends, key=lambda end: float(end.fun)).x)


_OPTIONS = {"maxiter": 300, "maxcor": 20, "ftol": 1e-10, "gtol": 1e-8}
