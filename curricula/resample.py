"""A part of an earlier stage again, chosen by the losses that training recorded (PanGu-pi Pro, arXiv 2402.02791).

The paper draws a share of each part's batches without replacement, with probability in proportion to exp(loss). Here
the parts are pools, so that the mixture stays as it was. The draw is Gumbel's: add to each log-weight a Gumbel number
of its own and take the largest (Vieira 2014; the same law as drawing one after another). Each number comes from a hash
of the place, so another draw elsewhere changes nothing here.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from curricula.order import _mix, seed_of
from mixer.recipe.stage import Resample


def resample(
    rows: np.ndarray,
    draws: Sequence[tuple[np.ndarray, int]],
    losses: np.ndarray | None,
    *,
    rule: Resample,
    seed: int,
    name: str,
) -> np.ndarray:
    """(n, 2) int32: some rows of an earlier stage, each place of it at most once, shuffled.

    Args:
        rows: (sequences, 2) int32, the order of the earlier stage.
        draws: For each pool its places in `rows`, and how many of them to take.
        losses: (sequences,) the loss of each place; None where the rule needs none.
        rule: How to choose.
        seed: The recipe's.
        name: The stage that trains on them.
    """
    noise = _gumbel(len(rows), np.uint64(seed_of(seed, "resample", name)))
    places = np.concatenate([_chosen(places, count, losses, noise, rule) for places, count in draws])
    turn = _gumbel(len(rows), np.uint64(seed_of(seed, "resampled order", name)))
    found: np.ndarray = rows[places[np.argsort(turn[places], kind="stable")]]
    return found


def _chosen(places: np.ndarray, count: int, losses: np.ndarray | None, noise: np.ndarray, rule: Resample) -> np.ndarray:
    """So many of a pool's places."""
    keys = noise[places]
    if losses is not None:
        own = losses[places].astype(np.float64)
        kept = np.argsort(own, kind="stable")[: max(count, len(own) - int(rule.exclude_top * len(own)))]
        places, keys = places[kept], keys[kept]
        if rule.by == "loss":
            keys = own[kept] / rule.temperature + keys
    return places[np.argsort(-keys, kind="stable")[:count]]


@numba.njit(cache=True)
def _gumbel(count: Any, key: Any) -> Any:
    """Standard Gumbel numbers, one a place, from a hash of it."""
    out = np.empty(count, np.float64)
    for place in range(count):
        bits = _mix(key + np.uint64(place) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)
        out[place] = -np.log(-np.log((bits + 0.5) / 9007199254740992.0))
    return out
