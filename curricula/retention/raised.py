"""The rest of a training planned again with more replay, over the same shards, each pool going on where it was.

What was trained on stays as it is, row for row: an order of a stage is its old beginning and a new end of the same
length, so positions, learning rates and stage ends do not move. In stages of random order a pool gives its sequences in
one endless shuffle, so what it gave so far says where it goes on, and nothing is skipped or comes twice. The new orders
are this training's own, in `checkpoints/<name>/orders/<position>/`; the Run's, which others train on, stay.

A resume takes the newest orders at or before its position, and removes those made later: it makes them again when it
gets there, or does not, where it was told another `raise_by`.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from curricula.loader import Loader
from curricula.scheduler import Scheduler
from mixer.baselines import temperature
from mixer.mixture import split
from mixer.orders import raised_orders
from mixer.recipe.recipe import Recipe
from mixer.recipe.retention import MOST_REPLAY
from mixer.replan import pools_of_run
from mixer.run import read_json, staged, write_json
from mixer.shortfall import room_of
from mixer.types import Draw, Pool, Segment

_FOLDER = "orders"


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left of one stage.

    Args:
        stage: Its name.
        counts_before: Pool -> sequences that it was to give.
        counts_now: Pool -> sequences that it gives.
    """

    stage: str
    counts_before: Mapping[str, int]
    counts_now: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Stock:
    """What orders draw from.

    Args:
        pools: Pool -> where its sequences lie.
        sources: The recipe's sources, in their order.
        max_epochs: Most passes over a pool.
        seed: The Run's: pools go on where its shuffles were.
    """

    pools: Mapping[str, Pool]
    sources: Sequence[str]
    max_epochs: float
    seed: int

    def counts(self, rows: np.ndarray) -> dict[str, int]:
        """How many rows of an order each pool gave."""
        found = {}
        for name, pool in self.pools.items():
            is_inside = (rows[:, 1] >= pool.first) & (rows[:, 1] < pool.first + pool.available)
            found[name] = int(((rows[:, 0] == self.sources.index(pool.source)) & is_inside).sum())
        assert sum(found.values()) == len(rows), "an order holds sequences of no pool"
        return found


def stock_of(run: Path, recipe: Recipe) -> Stock:
    """What a Run's orders draw from, by the seed that it was built with, whatever a training overrides."""
    seed = int(read_json(run / "plan.json")["seed"])
    return Stock(pools_of_run(run, recipe), list(recipe.sources), recipe.max_epochs, seed)


def raise_replay(
    loader: Loader, folder: Path, position: int, stock: Stock, *, replay: Sequence[str], by: float
) -> list[Rest]:
    """Write orders for what comes after a position, with a larger share of replay; empty where there is no room.

    Args:
        loader: Of the training, with its orders so far.
        folder: Of the training.
        position: Sequences trained on so far.
        stock: What there is to draw from.
        replay: Sources that are replay.
        by: Added to their share of each stage's rest, up to nine tenths.
    """
    rests = _rests(loader, position)
    used = stock.counts(np.concatenate([*_earlier(loader, position), *(head for _, head, _ in rests)]))
    found, orders = [], {}
    for number, (name, head, tail) in enumerate(rests):
        later = [stock.counts(rows) for _, _, rows in rests[number + 1 :]]
        room = {
            pool: room_of(own.available, stock.max_epochs) - used[pool] - sum(counts[pool] for counts in later)
            for pool, own in stock.pools.items()
        }
        before = stock.counts(tail)
        now = raised(before, room, replay=[pool for pool, own in stock.pools.items() if own.source in replay], by=by)
        orders[name] = np.concatenate([head, _drawn(stock, used, now)])
        used = {pool: count + now[pool] for pool, count in used.items()}
        found.append(Rest(name, before, now))
    if all(rest.counts_now == rest.counts_before for rest in found):
        return []
    with staged(folder / _FOLDER / f"{position:012d}") as scratch:
        for name, rows in orders.items():
            np.save(scratch / f"{name}.npy", rows)
        write_json(scratch / "raised.json", [asdict(rest) for rest in found])
    return found


def forget(folder: Path, position: int) -> None:
    """Remove orders that were made after a position: what goes on from there decides anew."""
    for path in (folder / _FOLDER).glob("[0-9]*"):
        if int(path.name) > position:
            shutil.rmtree(path)


def restore(loader: Loader, folder: Path, position: int) -> None:
    """Let the loader read the newest orders that were made at or before a position; the Run's where there are none."""
    made = raised_orders(folder, until=position)
    for stage, track in enumerate(loader.tracks):
        if track.name in made:
            loader.replace(stage, np.load(made[track.name], mmap_mode="r"))


def raised(before: Mapping[str, int], room: Mapping[str, int], *, replay: Sequence[str], by: float) -> dict[str, int]:
    """Counts of the same sum, with a larger share of replay; members of either side keep their proportions.

    Args:
        before: Pool -> sequences.
        room: Pool -> sequences that it may give here.
        replay: Pools that are replay; where they give nothing yet, they are taken by their room.
        by: Added to their share, up to nine tenths, and as far as their room goes.

    Example:
        >>> raised({"new": 80, "old": 20}, {"new": 99, "old": 99}, replay=["old"], by=0.3)
        {'new': 50, 'old': 50}
    """
    total, old = sum(before.values()), sum(before[pool] for pool in replay)
    wanted = min(round(min(MOST_REPLAY, old / max(1, total) + by) * total), sum(max(0, room[pool]) for pool in replay))
    if wanted <= old:
        return dict(before)
    others = {pool: count for pool, count in before.items() if pool not in replay}
    weights = {pool: before[pool] if old else max(0, room[pool]) for pool in replay}
    return {**dict(before), **_shared(others, total - wanted, others), **_shared(weights, wanted, room)}


def _shared(weights: Mapping[str, int], total: int, room: Mapping[str, int]) -> dict[str, int]:
    """So many sequences by weight; what a pool has no room for goes to those that have some."""
    found = dict.fromkeys(weights, 0)
    while left := total - sum(found.values()):
        free = {pool: room[pool] - found[pool] for pool in weights if room[pool] > found[pool]}
        by_weight = {pool: weights[pool] for pool in free if weights[pool]} or free
        for pool, count in split(temperature(by_weight, t=1.0), left).items():
            found[pool] += min(count, free[pool])
    return found


def _rests(loader: Loader, position: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, rows trained on, and rows to come, of each stage that is not over."""
    found = []
    for stage, track in enumerate(loader.tracks):
        if loader.first(stage) + track.sequences > position:
            rows, at = loader.order(stage), max(0, position - loader.first(stage))
            found.append((track.name, np.asarray(rows[:at]), np.asarray(rows[at:])))
    return found


def _earlier(loader: Loader, position: int) -> list[np.ndarray]:
    """The orders of the stages that are over."""
    over = [stage for stage, track in enumerate(loader.tracks) if loader.first(stage) + track.sequences <= position]
    return [np.asarray(loader.order(stage)) for stage in over]


def _drawn(stock: Stock, used: Mapping[str, int], counts: Mapping[str, int]) -> np.ndarray:
    """Rows of an order, (n, 2) int32 source and sequence: each pool from where it was on."""
    draws = [
        Draw(name, pool.available, used[name], counts[name], pool.first)
        for name, pool in stock.pools.items()
        if counts[name]
    ]
    segment = Segment(sum(draw.count for draw in draws), {draw.name: draw.count for draw in draws})
    rows: np.ndarray = np.concatenate(list(Scheduler().order(draws, seed=stock.seed, segments=[segment])))
    places = np.array([stock.sources.index(stock.pools[draw.name].source) for draw in draws], np.int32)
    rows[:, 0] = places[rows[:, 0]]
    return rows
