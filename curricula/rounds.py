"""`mixer adapt`: from the losses of a round that ended to the plan of the next, over the same shards."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curricula.revise import Losses, Revised, revise
from curricula.scheduler import Scheduler
from mixer.errors import RecipeError, SourceError
from mixer.history import as_shares, read_history, write_history
from mixer.ordering import LOSSES, ORDERS, digest_of
from mixer.plan import round_name, rounds_of
from mixer.recipe.recipe import Recipe
from mixer.recipe.stage import ResampleStage, Stage
from mixer.replan import open_run, plan_of, pools_of_run, replan
from mixer.run import link, locked, read_json, staged, write_json
from mixer.steps import Say
from mixer.types import Plan, StagePlan


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


class KnownRoundError(RecipeError):
    """The losses are for a round that is planned already."""


def next_round(run: Path, recipe: Recipe, say: Say) -> tuple[Stage, int] | None:
    """The stage and number of the first round whose topic shares are not known yet."""
    known = {one.round for one in read_history(run, recipe, pools_of_run(run, recipe), say)}
    for stage in recipe.mixed_stages:
        for number in range(2, rounds_of(stage) + 1):
            if round_name(stage, number) not in known:
                return stage, number
    return None


def pending_round(run: Path, recipe: Recipe, say: Say) -> tuple[Stage, int]:
    """The same, where there must be one.

    Raises:
        RecipeError: All rounds are planned.
    """
    pending = next_round(run, recipe, say)
    if pending is None:
        raise RecipeError(
            f"{run}: got no round that is still to be planned, expected a stage with `adapt`",
            hint="every round is planned already; `adapt/history.json` holds what was found",
        )
    return pending


def adapt(run: Path, before: Losses, after: Losses, *, method: str, say: Say, expected: str | None = None) -> Round:
    """Plan the next round by the losses of the last; what was trained on stays as it is.

    Args:
        run: A finished Run.
        before: Losses when the last round began.
        after: Losses when it ended.
        method: Whose losses they are, for the history.
        say: Takes a line for people.
        expected: The round that the losses plan, where the caller knows. Default: the next one.

    Raises:
        SourceError: No finished Run.
        KnownRoundError: The expected round is planned already.
        RecipeError: No round is left, or the losses are not those of its topics.
        PlanError: The plan could not be met before.
    """
    with locked(run):
        recipe = open_run(run)
        pools = pools_of_run(run, recipe)
        history = read_history(run, recipe, pools, say)
        for known in (one for one in history if one.round == expected):
            raise KnownRoundError(
                f"{run}: got losses for `{expected}`, expected some for a later round: {known.method} planned it",
                hint="every training of a Run trains on the same rounds",
            )
        pending = pending_round(run, recipe, say)
        found = revise(recipe, pools, history, pending, (before, after), method=method)
        if not found.revision.shares:
            say(f"{found.revision.round}: there is no room to move any topic's share; all stay as they were")
        place = [each.name for each in found.planned.stages].index(found.revision.round)
        # The history comes last: killed before it, the round is planned anew, and nothing trains on it meanwhile.
        history = [*history, found.revision]
        anew = replan(run, recipe, Scheduler(), say, done=place, history=history)
        write_history(run, recipe, pools, history)
        return Round(found.revision.round, tuple(_changes(found)), anew)


def _changes(found: Revised) -> Iterator[Change]:
    one = found.revision
    now = {pool: share for parts in one.shares.values() for pool, share in as_shares(parts).items()}
    for pool, share in found.shares.items():
        yield Change(pool, one.before[pool], one.after[pool], one.factors[pool], share, float(now.get(pool, share)))


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
        SourceError: A file is missing, of another length or order, or holds no number somewhere.
    """
    with locked(run):
        recipe = open_run(run)
        again = [stage for stage in recipe.stages if isinstance(stage, ResampleStage) and stage.resample.needs_losses]
        waiting = [stage for stage in again if only in (None, stage.name)]
        if not waiting:
            told = f"{run}: got no stage that waits for losses, expected one with `resample: {{by: loss}}`"
            raise RecipeError(told, hint="add such a stage and build again, which takes seconds")
        planned = plan_of(run, recipe, pools_of_run(run, recipe), say)
        earlier = {stage.resample.stage for stage in waiting}
        needed = [each for each in planned.stages if each.stage in earlier and each.resample is None]
        found = {each.name: _checked(folder / f"{each.name}.npy", each) for each in needed}
        orders = {name: digest_of(np.load(run / "order" / f"{name}.npy")) for name in found}
        _check_orders(folder, orders)
        with staged(run / LOSSES) as scratch:
            write_json(scratch / ORDERS, (read_json(run / LOSSES / ORDERS) or {}) | orders)
            for path in (run / LOSSES).glob("*.npy"):
                link(path, scratch / path.name)
            for name, losses in found.items():
                (scratch / f"{name}.npy").unlink(missing_ok=True)
                np.save(scratch / f"{name}.npy", losses)
        names = [stage.name for stage in waiting]
        done = min(place for place, each in enumerate(planned.stages) if each.name in names)
        replan(run, recipe, Scheduler(), say, done=done)
        return names


def _check_orders(folder: Path, orders: Mapping[str, str]) -> None:
    """Refuse losses that a training recorded in another order; files made by hand say nothing of theirs."""
    recorded = read_json(folder / ORDERS) or {}
    for name, order in orders.items():
        if recorded.get(name, order) != order:
            raise SourceError(
                f"{folder}/{name}.npy: got losses in another order of stage `{name}`, expected the Run's own",
                hint="the Run was built anew, or the training changed its mixture: train this order to its end",
            )


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
