"""From losses to topic shares with which all that is still to come can be drawn: arithmetic alone, nothing is written.

Shares of a round hold for all rounds after it, and later stages draw from the same pools. So what bounds a topic is
its room less all that other stages draw, over all rounds that are left. Whole sequences may round up: what comes out
is planned, and bounded more tightly until the plan can be met; where nothing can move, shares stay as they were.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from curricula.adapt import factors, update
from mixer.errors import PlanError, RecipeError
from mixer.history import Revision, in_parts, revisions_of
from mixer.mixture import exact, source_of
from mixer.plan import plan, round_name
from mixer.pools import topic_sources
from mixer.recipe.recipe import Recipe
from mixer.recipe.stage import Adapt, ResampleStage, Stage
from mixer.shortfall import room_of
from mixer.types import Plan, Pool, StagePlan

Losses = Mapping[str, float]
"""Pool -> mean validation loss, nats a token."""


@dataclass(frozen=True, slots=True)
class Revised:
    """What losses make of the rounds that are left.

    Args:
        revision: For the history; without shares where nothing can move.
        shares: Pool -> share of its source without the revision.
        planned: All stages, with the revision.
    """

    revision: Revision
    shares: Mapping[str, float]
    planned: Plan


def revise(
    recipe: Recipe,
    pools: Mapping[str, Pool],
    history: list[Revision],
    pending: tuple[Stage, int],
    losses: tuple[Losses, Losses],
    *,
    method: str,
) -> Revised:
    """The topic shares of a round, by the losses of the one before it, and the plan that follows.

    Args:
        recipe: The recipe.
        pools: All pools.
        history: The rounds so far.
        pending: The stage and the number of the round.
        losses: Losses when the last round began, and when it ended.
        method: Whose losses they are, for the history.

    Raises:
        RecipeError: A topic has no loss, a loss is no finite number or of no topic, or these losses planned the last
            round.
        PlanError: The plan could not be met as it was.
    """
    stage, number = pending
    for each in losses:
        _check(each, pools)
    planned = plan(recipe, _available(pools), revisions=revisions_of(history))
    left = _left(planned, round_name(stage, number))
    case = _case(stage, left, pools, losses)
    told = Revision(left[0].name, {}, case.before, case.after, case.factors, method)
    if history and (history[-1].before, history[-1].after) == (told.before, told.after):
        last = history[-1].round
        raise RecipeError(
            f"adapt: got the losses that planned `{last}`, expected those of that round, for `{told.round}`",
            hint="measure the losses where the round begins and where it ends",
        )
    shares = {pool: share for own in case.shares.values() for pool, share in own.items()}
    for slack in _slacks(len(planned.stages)):
        try:
            revision = replace(told, shares=_moved(recipe, case, planned, left, slack))
            anew = plan(recipe, _available(pools), revisions=revisions_of([*history, revision]))
        except PlanError:
            continue
        return Revised(revision, shares, anew)
    return Revised(told, shares, planned)


@dataclass(frozen=True, slots=True)
class _Case:
    """What is known of the topics: shares by source, and by pool the weights, losses and factors."""

    rule: Adapt
    shares: Mapping[str, Mapping[str, float]]
    weights: Mapping[str, float]
    before: Mapping[str, float]
    after: Mapping[str, float]
    factors: Mapping[str, float]


def _case(stage: Stage, left: list[StagePlan], pools: Mapping[str, Pool], losses: tuple[Losses, Losses]) -> _Case:
    rule = stage.adapt
    assert rule is not None
    sources = [source for source in rule.sources or topic_sources(stage) if _reference(left, source)]
    shares = {source: _within(left, source) for source in sources}
    before, after = ({pool: _loss_of(pool, each) for own in shares.values() for pool in own} for each in losses)
    weights = {pool: rule.weights.get(pools[pool].topic or "", 1.0) for pool in before}
    changed: dict[str, float] = {}
    for own in shares.values():
        then, now = ({pool: each[pool] for pool in own} for each in (before, after))
        changed |= factors(then, now, alpha=rule.alpha, weights=weights, clip=rule.clip)
    return _Case(rule, shares, weights, before, after, changed)


def _moved(recipe: Recipe, case: _Case, planned: Plan, left: list[StagePlan], slack: int) -> dict[str, dict[str, int]]:
    """Source -> pool -> new share, in billionths."""
    return {
        source: in_parts(
            update(
                own,
                {pool: case.before[pool] for pool in own},
                {pool: case.after[pool] for pool in own},
                rule=case.rule,
                weights=case.weights,
                floors=_floors(case.rule, planned, own),
                caps=_caps(recipe, planned, left, own, slack),
            )
        )
        for source, own in case.shares.items()
    }


def _available(pools: Mapping[str, Pool]) -> dict[str, int]:
    return {name: pool.available for name, pool in pools.items()}


def _slacks(stages: int) -> Iterator[int]:
    """Sequences by which to stay below the room: largest remainder rounds up by one in a round at most."""
    yield 0
    slack = 1
    while slack < 2 * stages + 2:
        yield slack
        slack *= 2


def _check(losses: Losses, pools: Mapping[str, Pool]) -> None:
    if strange := [name for name in losses if name not in pools]:
        known = ", ".join(name for name in pools if "/" in name)
        raise RecipeError(
            f"adapt: got a loss of `{strange[0]}`, expected losses of {known}",
            hint="name losses by `source/topic`, as `mixer plan` does",
        )
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise RecipeError(
                f"adapt: got {loss} as the loss of `{name}`, expected a finite number",
                hint="a training whose loss is no number has diverged: lower its learning rate",
            )


def _loss_of(pool: str, losses: Losses) -> float:
    if pool not in losses:
        raise RecipeError(
            f"adapt: got no loss of {pool}, expected one of each topic of the stage",
            hint="hold documents out with `validation: {}`, or name the losses by `source/topic`",
        )
    return float(losses[pool])


def _left(planned: Plan, name: str) -> list[StagePlan]:
    """A round and those after it."""
    this = next(stage for stage in planned.stages if stage.name == name)
    return [each for each in planned.stages if each.stage == this.stage and (each.round or 0) >= (this.round or 0)]


def _reference(left: list[StagePlan], source: str) -> StagePlan | None:
    """The next round that draws from a source, whose weight may begin or end within the stage."""
    drawing = (each for each in left for pool in each.sources if source_of(pool) == source)
    return next((each for each in drawing if sum(_fractions(each, source).values()) > 0), None)


def _fractions(stage: StagePlan, source: str) -> dict[str, float]:
    return {pool: share.fraction for pool, share in stage.sources.items() if source_of(pool) == source}


def _within(left: list[StagePlan], source: str) -> dict[str, float]:
    """The shares of a source's pools among themselves, if nothing changed them."""
    reference = _reference(left, source)
    assert reference is not None
    own = _fractions(reference, source)
    total = sum(own.values())
    return {pool: fraction / total for pool, fraction in own.items()}


def _floors(rule: Adapt, planned: Plan, pools: Mapping[str, float]) -> dict[str, float]:
    total = sum(planned.available[pool] for pool in pools)
    return {pool: rule.floor * planned.available[pool] / total for pool in pools}


def _caps(
    recipe: Recipe, planned: Plan, left: list[StagePlan], pools: Mapping[str, float], slack: int
) -> dict[str, float]:
    """The greatest share of each pool: what it may give beside all other stages, over what its source gives."""
    stage, rounds = left[0].stage, {each.name for each in left}
    wanted = sum(each.sources[pool].sequences for each in left for pool in pools)
    # A stage that trains on this one again takes the same part of every pool, whatever the shares become.
    repeats = [each.resample for each in recipe.stages if isinstance(each, ResampleStage)]
    again = sum((exact(each.fraction) for each in repeats if each.stage == stage), Fraction(0))
    caps = {}
    for pool in pools:
        room = Fraction(room_of(planned.available[pool], recipe.max_epochs) - slack)
        for each in planned.stages:
            if pool in each.sources and each.name not in rounds and each.resample != stage:
                room -= each.sources[pool].sequences * (1 + again if each.stage == stage else 1)
        caps[pool] = min(1.0, float(max(Fraction(0), room) / (wanted * (1 + again)))) if wanted else 1.0
    return caps
