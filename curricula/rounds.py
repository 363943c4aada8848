"""`mixer adapt`: from the losses of a round that ended to the plan of the next, over the same shards."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curricula.adapt import factors, update
from curricula.scheduler import Scheduler
from mixer.errors import RecipeError, SourceError
from mixer.history import Revision, as_shares, in_parts, read_history, write_history
from mixer.mixture import source_of
from mixer.ordering import LOSSES
from mixer.plan import round_name, rounds_of
from mixer.pools import topic_sources
from mixer.recipe import Recipe
from mixer.recipe_stage import Adapt, ResampleStage, Stage
from mixer.replan import open_run, plan_of, pools_of_run, replan
from mixer.run import link, locked, staged
from mixer.shortfall import room_of
from mixer.steps import Say
from mixer.types import Plan, Pool, StagePlan

Losses = Mapping[str, float]
"""Pool -> mean validation loss, nats a token."""


@dataclass(frozen=True, slots=True)
class Change:
    """What the losses of one round make of a topic's share of its source."""

    pool: str
    loss_before: float
    loss_after: float
    factor: float
    share_before: float
    share_now: float


@dataclass(frozen=True, slots=True)
class Round:
    """What a round became, topic by topic, and the plan as it is now."""

    name: str
    changes: tuple[Change, ...]
    planned: Plan


def next_round(run: Path, recipe: Recipe, say: Say) -> tuple[Stage, int] | None:
    """The stage and number of the first round whose topic shares are not known yet."""
    known = {one.round for one in read_history(run, recipe, pools_of_run(run, recipe), say)}
    for stage in recipe.mixed_stages:
        for number in range(2, rounds_of(stage) + 1):
            if round_name(stage, number) not in known:
                return stage, number
    return None


def adapt(run: Path, before: Losses, after: Losses, *, method: str, say: Say) -> Round:
    """Plan the next round by the losses of the last; what was trained on stays as it is.

    Args:
        run: A finished Run.
        before: Losses when the last round began.
        after: Losses when it ended.
        method: Whose losses they are, for the history.
        say: Takes a line for people.

    Raises:
        SourceError: No finished Run.
        RecipeError: No round is left, or a topic has no loss.
        PlanError: There is too little to draw from.
    """
    with locked(run):
        recipe = open_run(run)
        pending = next_round(run, recipe, say)
        if pending is None:
            raise RecipeError(
                f"{run}: got no round that is still to be planned, expected a stage with `adapt`",
                hint="every round is planned already; `adapt/history.json` holds what was found",
            )
        stage, number = pending
        pools = pools_of_run(run, recipe)
        history = read_history(run, recipe, pools, say)
        planned = plan_of(run, recipe, pools, say)
        names = [each.name for each in planned.stages]
        place = names.index(round_name(stage, number))
        revision = _revised(recipe, stage, planned, place, pools, (before, after), method)
        write_history(run, recipe, pools, [*history, revision])
        anew = replan(run, recipe, Scheduler(), say, done=place)
        return Round(revision.round, tuple(_changes(revision, planned.stages[place - 1])), anew)


def _changes(revision: Revision, before: StagePlan) -> Iterator[Change]:
    for source, parts in revision.shares.items():
        old = _within(before, [pool for pool in before.sources if source_of(pool) == source])
        now = as_shares(parts)
        for pool in old:
            losses = revision.before[pool], revision.after[pool]
            yield Change(pool, *losses, revision.factors[pool], old[pool], float(now[pool]))


def _revised(
    recipe: Recipe,
    stage: Stage,
    planned: Plan,
    place: int,
    pools: Mapping[str, Pool],
    losses: tuple[Losses, Losses],
    method: str,
) -> Revision:
    """The shares of the round at `place`, by the losses of the one before it."""
    rule = stage.adapt
    assert rule is not None
    before, this = planned.stages[place - 1], planned.stages[place]
    used = _used(planned, place)
    shares: dict[str, dict[str, int]] = {}
    changed: dict[str, float] = {}
    told: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for source in rule.sources or topic_sources(stage):
        own = [pool for pool in before.sources if source_of(pool) == source]
        then, now = (_losses_of(own, each) for each in losses)
        weights = {pool: rule.weights.get(pools[pool].topic or "", 1.0) for pool in own}
        found = update(
            _within(before, own),
            then,
            now,
            rule=rule,
            weights=weights,
            floors=_floors(rule, planned, own),
            caps=_caps(recipe, planned, this, own, used),
        )
        shares[source] = in_parts(found)
        changed |= factors(then, now, alpha=rule.alpha, weights=weights, clip=rule.clip)
        told[0].update(then)
        told[1].update(now)
    return Revision(this.name, shares, told[0], told[1], changed, method)


def _losses_of(pools: list[str], losses: Losses) -> dict[str, float]:
    lacking = [pool for pool in pools if pool not in losses]
    if lacking:
        raise RecipeError(
            f"adapt: got no loss of {', '.join(lacking)}, expected one of each topic of the stage",
            hint="hold documents out with `validation: {}`, or name the losses by `source/topic`",
        )
    return {pool: float(losses[pool]) for pool in pools}


def _within(stage: StagePlan, pools: list[str]) -> dict[str, float]:
    """The shares of a source's pools among themselves."""
    total = sum(stage.sources[pool].fraction for pool in pools)
    return {pool: stage.sources[pool].fraction / total for pool in pools}


def _floors(rule: Adapt, planned: Plan, pools: list[str]) -> dict[str, float]:
    total = sum(planned.available[pool] for pool in pools)
    return {pool: rule.floor * planned.available[pool] / total for pool in pools}


def _caps(
    recipe: Recipe, planned: Plan, stage: StagePlan, pools: list[str], used: Mapping[str, int]
) -> dict[str, float]:
    """The greatest share of each pool: what it may still give, over what the source gives to the round."""
    wanted = sum(stage.sources[pool].sequences for pool in pools)
    room = {pool: room_of(planned.available[pool], recipe.max_epochs) - used[pool] for pool in pools}
    # One less than there is: largest remainder may round up.
    return {pool: min(1.0, max(0, room[pool] - 1) / wanted) for pool in pools}


def _used(planned: Plan, place: int) -> dict[str, int]:
    used = dict.fromkeys(planned.available, 0)
    for stage in planned.stages[:place]:
        for pool, share in stage.sources.items():
            used[pool] += share.sequences
    return used


def read_losses(path: Path, sources: list[str]) -> dict[str, float]:
    """Losses from a JSON file: `{"web/physics": 2.3}`, `{"web": {"physics": 2.3}}`, or topics alone for one source.

    Raises:
        RecipeError: It holds anything else.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        flat = _flattened(found, sources)
    except (ValueError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"{path}: got {type(error).__name__}, expected a JSON object of losses by `source/topic`",
            hint='write {"web/physics": 2.31, "web/biology": 2.05}, nats a token',
        ) from None
    return flat


def _flattened(found: Any, sources: list[str]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in found.items():
        if isinstance(value, dict):
            flat |= {f"{key}/{topic}": float(loss) for topic, loss in value.items()}
        elif "/" in key or len(sources) != 1:
            flat[key] = float(value)
        else:
            flat[f"{sources[0]}/{key}"] = float(value)
    return flat


def resample(run: Path, folder: Path, *, only: str | None = None, say: Say) -> list[str]:
    """Order the stages that come again by recorded losses; returns the names of those that were waiting.

    Args:
        run: A finished Run.
        folder: Holds `<stage>.npy`, (sequences,) the loss of each place, of each stage that comes again.
        only: Order this stage alone. Default: all that wait.
        say: Takes a line for people.

    Raises:
        RecipeError: No stage waits for losses.
        SourceError: A file is missing, of another length, or holds no number somewhere.
    """
    with locked(run):
        recipe = open_run(run)
        again = [stage for stage in recipe.stages if isinstance(stage, ResampleStage) and stage.resample.by == "loss"]
        waiting = [stage for stage in again if only in (None, stage.name)]
        if not waiting:
            raise RecipeError(f"{run}: got no stage that waits for losses, expected one with `resample: {{by: loss}}`")
        planned = plan_of(run, recipe, pools_of_run(run, recipe), say)
        earlier = {stage.resample.stage for stage in waiting}
        needed = [each for each in planned.stages if each.stage in earlier and each.resample is None]
        found = {each.name: _checked(folder / f"{each.name}.npy", each) for each in needed}
        with staged(run / LOSSES) as scratch:
            for path in (run / LOSSES).glob("*.npy"):
                link(path, scratch / path.name)
            for name, losses in found.items():
                (scratch / f"{name}.npy").unlink(missing_ok=True)
                np.save(scratch / f"{name}.npy", losses)
        names = [stage.name for stage in waiting]
        done = min(place for place, each in enumerate(planned.stages) if each.name in names)
        replan(run, recipe, Scheduler(), say, done=done)
        return names


def _checked(path: Path, stage: StagePlan) -> np.ndarray:
    hint = "train the stage to its end, then name RUN/checkpoints/METHOD/losses"
    if not path.is_file():
        raise SourceError(f"{path}: got no such file, expected the losses of stage `{stage.name}`", hint=hint)
    losses: np.ndarray = np.load(path, allow_pickle=False)
    if losses.shape != (stage.sequences,) or not np.isfinite(losses).all():
        known = int(np.isfinite(losses).sum())
        raise SourceError(
            f"{path}: got {known:,} numbers in the shape {losses.shape}, expected {stage.sequences:,}, one a place",
            hint=hint,
        )
    found: np.ndarray = losses.astype(np.float32)
    return found
