"""The topic mixture of the next round, from what validation losses did in the last (Llama-3-SynE, arXiv 2407.18743).

A topic whose loss rose gets more, one whose loss fell gets less. The paper tracks perplexity; losses are used here,
whose changes are bounded and add up. What the paper leaves open, and a run needs, is ours: factors are clipped, no
topic falls below a part of its natural share, and none gets more than there is to draw from.
"""

import math
from collections.abc import Mapping

from mixer.errors import PlanError
from mixer.recipe.stage import Adapt


def update(
    shares: Mapping[str, float],
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    rule: Adapt,
    weights: Mapping[str, float],
    floors: Mapping[str, float],
    caps: Mapping[str, float],
) -> dict[str, float]:
    """The shares of the next round; they sum to one.

    Args:
        shares: Pool -> share of the round that ended.
        before: Pool -> validation loss when that round began, nats a token.
        after: The same when it ended.
        rule: The stage's `adapt`: alpha and clip.
        weights: Pool -> w, how much its change counts.
        floors: Pool -> least share.
        caps: Pool -> greatest share, by what is there.

    Raises:
        PlanError: The caps together are below one: there is too little to draw from.
    """
    changed = factors(before, after, alpha=rule.alpha, weights=weights, clip=rule.clip)
    wanted = {pool: share * changed[pool] for pool, share in shares.items()}
    total = sum(wanted.values())
    return bounded({pool: value / total for pool, value in wanted.items()}, floors, caps)


def factors(
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    alpha: float,
    weights: Mapping[str, float],
    clip: tuple[float, float] = (0.0, math.inf),
) -> dict[str, float]:
    """Pool -> 1 + alpha w d, with d its change of loss over the sum of all absolute changes; 1 where nothing changed.

    Example:
        >>> rose = {"a": 1.26, "b": 1.82, "c": 1.54}, {"a": 1.32, "b": 1.45, "c": 1.60}
        >>> [round(f, 3) for f in factors(*rose, alpha=1.0, weights={}).values()]
        [1.122, 0.245, 1.122]
    """
    change = {pool: after[pool] - before[pool] for pool in before}
    size = sum(map(abs, change.values()))
    return {
        pool: min(clip[1], max(clip[0], 1 + alpha * weights.get(pool, 1.0) * (own / size if size > 1e-12 else 0.0)))
        for pool, own in change.items()
    }


def bounded(shares: Mapping[str, float], floors: Mapping[str, float], caps: Mapping[str, float]) -> dict[str, float]:
    """Shares scaled by one number and cut to their bounds, so that they sum to one: the nearest such in KL.

    A floor above its cap counts as the cap.

    Raises:
        PlanError: The caps sum to less than one.
    """
    if sum(caps.values()) < 1 - 1e-9:
        short = ", ".join(f"{pool} {cap:.3f}" for pool, cap in caps.items())
        raise PlanError(
            f"adapt: got room for {sum(caps.values()):.3f} of the next round ({short}), expected 1 at least",
            hint="raise max_epochs, add data, or cut the stage's token budget",
        )
    low = {pool: min(floors.get(pool, 0.0), caps[pool]) for pool in shares}
    if sum(low.values()) > 1:
        raise PlanError("adapt: got floors that sum to more than 1, expected less", hint="lower `floor`")
    begin, end = 0.0, 1.0
    while sum(_cut(shares, end, low, caps).values()) < 1 - 1e-12 and end < 1e300:
        end *= 2
    for _ in range(200):
        middle = (begin + end) / 2
        begin, end = (middle, end) if sum(_cut(shares, middle, low, caps).values()) < 1 else (begin, middle)
    found = _cut(shares, end, low, caps)
    return _filled(found, caps)


def _cut(
    shares: Mapping[str, float], scale: float, low: Mapping[str, float], caps: Mapping[str, float]
) -> dict[str, float]:
    return {pool: min(caps[pool], max(low[pool], share * scale)) for pool, share in shares.items()}


def _filled(shares: Mapping[str, float], caps: Mapping[str, float]) -> dict[str, float]:
    """Shares that sum to one: what a pool of no share at all leaves over goes where there is room."""
    missing = 1 - sum(shares.values())
    room = {pool: caps[pool] - share for pool, share in shares.items()}
    total = sum(room.values())
    if missing <= 1e-9 or total <= 0:
        return dict(shares)
    return {pool: share + missing * room[pool] / total for pool, share in shares.items()}
