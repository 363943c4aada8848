"""Thresholds for a recipe, from labelled pairs: as strict as a wanted share of gold allows, measured on other pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synth.labelled import GOLD
from synth.scored import Scored, decision, halves, names_of

_LEAST_KEPT = 0.95
_SHARES = np.arange(1, 51) / 500
"""Shares of gold that each check alone may lose, tried in turn: 0.2% to 10%."""


def suggest(rows: Sequence[Scored], keep: float = _LEAST_KEPT) -> dict[str, Any]:
    """`thresholds` by check that together keep that share of gold, and what they keep and reject on held-out pairs.

    Every check with a graded score gives up the same share of gold, the largest at which all checks together still keep
    enough on half of the groups. `held_out` is the other half. Empty where there are too few groups to hold any out,
    or the checks that only say yes or no reject more gold than that.

    Args:
        rows: Labelled pairs with their scores.
        keep: Share of gold to keep.
    """
    fit, held = halves(rows)
    gold = [row for row in fit if row.label == GOLD]
    if not gold or not held:
        return {}
    names = [name for name in names_of(rows) if name != "support"]
    graded = [name for name in names if len({row.scores.get(name, 1.0) for row in rows}) > 2]
    chosen: dict[str, float] = {}
    for share in _SHARES:
        tried = {name: _threshold([row.scores.get(name, 1.0) for row in gold], share) for name in graded}
        if sum(_passes(row, tried) for row in gold) < keep * len(gold):
            break
        chosen = tried
    if not chosen:
        return {}
    # A threshold of nothing says that a check that would reject must not.
    rejecting = {name for row in rows for name in row.failed}
    chosen = {name: value for name, value in chosen.items() if value > 0.0 or name in rejecting}
    return {"thresholds": chosen, "held_out": decision(held, lambda row: _passes(row, chosen))}


def _threshold(scores: Sequence[float], share: float) -> float:
    """The highest value, to three digits, below which at most that share of the scores lies.

    Example:
        >>> _threshold([0.1, 0.2, 0.3, 0.4], 0.25)
        0.2
    """
    ordered = sorted(scores)
    return float(np.floor(ordered[int(share * len(ordered))] * 1000 + 1e-6) / 1000)


def _passes(row: Scored, thresholds: Mapping[str, float]) -> bool:
    """Whether a pair passes when these thresholds stand in the recipe and the other checks decide as before."""
    if row.failed - thresholds.keys():
        return False
    return all(row.scores.get(name, 1.0) >= least for name, least in thresholds.items())
