"""From the plan to `order/`: which sequence comes when, stage by stage."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import xxhash

from mixer.context import Context
from mixer.layout import values_of
from mixer.mixture import source_of
from mixer.pools import pack_rule
from mixer.recipe.recipe import Recipe
from mixer.recipe.stage import Order, Resample, ResampleStage, Stage
from mixer.run import read_json, sha256
from mixer.score import sequence_scores
from mixer.shard import index_of
from mixer.table import scan
from mixer.types import Draw, Plan, Pool, Segment, StagePlan

ORDER_VERSION = 3
"""Raise it when the scheduler would order the same plan otherwise."""
LOSSES = "adapt/losses"
"""In the Run: the losses that training recorded, a file a stage, as `mixer adapt` put them there."""
ORDERS = "orders.json"
"""Beside losses: stage -> hash of the order that they were recorded in, without which a place means nothing."""


class Scheduler(Protocol):
    """Orders stages; `curricula.scheduler.Scheduler`, handed in: this package imports none of the others."""

    def order(
        self,
        draws: Sequence[Draw],
        *,
        seed: int,
        segments: Sequence[Segment],
        orders: Mapping[str, Order],
        ranks: Callable[[str], np.ndarray | None],
    ) -> Iterator[np.ndarray]:
        """Yield (n, 2) int32: index into `draws`, sequence."""

    def resample(
        self,
        rows: np.ndarray,
        draws: Sequence[tuple[np.ndarray, int]],
        losses: np.ndarray | None,
        *,
        rule: Resample,
        seed: int,
        name: str,
    ) -> np.ndarray:
        """Some rows of an earlier stage again, (n, 2) int32."""


def draws_of(planned: Plan, pools: Mapping[str, Pool]) -> Iterator[tuple[StagePlan, Sequence[Draw]]]:
    """Yield each stage and its draws; a pool goes on where the stage before left it. A stage again draws nothing."""
    drawn = dict.fromkeys(planned.available, 0)
    for stage in planned.stages:
        if stage.resample is not None:
            yield stage, []
            continue
        yield (
            stage,
            [
                Draw(name, planned.available[name], drawn[name], share.sequences, pools[name].first)
                for name, share in stage.sources.items()
            ],
        )
        for name, share in stage.sources.items():
            drawn[name] += share.sequences


def write_orders(context: Context, planned: Plan, pools: Mapping[str, Pool], scheduler: Scheduler) -> None:
    """Write `order/<stage>.npy` of every stage; one that waits for losses is left out, and said to be."""
    recipe, run = context.recipe, context.run
    losses = {stage.name: path for stage in planned.stages if (path := run / LOSSES / f"{stage.name}.npy").is_file()}
    inputs = {
        "stages": [asdict(stage) for stage in planned.stages],
        "pools": {name: asdict(pool) for name, pool in pools.items()},
        "orders": _orders_told(recipe),
        "packed": {name: context.steps.recorded(f"shards {name}") for name in _ordered_sources(recipe)},
        "sources": list(recipe.sources),
        "losses": {name: sha256(path) for name, path in losses.items()},
        "recorded": (read_json(run / LOSSES / ORDERS) or {}) if losses else {},
        "seed": recipe.seed,
        "version": ORDER_VERSION,
    }
    with context.steps.folder("order", inputs, run / "order") as scratch:
        if scratch is not None:
            for stage, draws in draws_of(planned, pools):
                if stage.resample is None:
                    _write_stage(context, scratch, stage, draws, scheduler)
                else:
                    _write_resampled(context, scratch, stage, planned, pools, scheduler)


def _orders_told(recipe: Recipe) -> dict[str, Any]:
    """Of the stages that say how to take sequences, what they say."""
    told = {stage.name: stage.model_dump(mode="json", include={"order", "resample"}) for stage in recipe.stages}
    return {name: rule for name, rule in told.items() if any(rule.values())}


def _ordered_sources(recipe: Recipe) -> list[str]:
    return sorted({name for stage in recipe.mixed_stages for name in stage.order})


def _write_stage(context: Context, folder: Path, stage: StagePlan, draws: Sequence[Draw], scheduler: Scheduler) -> None:
    recipe = context.recipe
    numbers = {name: i for i, name in enumerate(recipe.sources)}
    sources = np.array([numbers[source_of(draw.name)] for draw in draws], np.int32)
    own = _stage(recipe, stage.stage)
    orders = {draw.name: own.order[source_of(draw.name)] for draw in draws if source_of(draw.name) in own.order}
    by_name = {draw.name: draw for draw in draws}
    pieces = scheduler.order(
        draws,
        seed=recipe.seed,
        segments=stage.segments,
        orders=orders,
        ranks=lambda pool: ranks_of(context.run, recipe, by_name[pool], orders[pool].by),
    )
    write_order(folder / f"{stage.name}.npy", pieces, sources, stage.sequences)


def _stage(recipe: Recipe, name: str) -> Stage:
    return next(stage for stage in recipe.mixed_stages if stage.name == name)


def ranks_of(run: Path, recipe: Recipe, draw: Draw, by: str) -> np.ndarray | None:
    """The pool's sequences from its lowest score to its highest; None where they are packed so.

    `best_fit` packs by score within quantiles alone, so there they are sorted here.
    """
    source = source_of(draw.name)
    if pack_rule(recipe, source).by == by and recipe.packing == "concat_and_chunk":
        return None
    own = scores_of(run, source, by)[draw.first : draw.first + draw.available]
    return np.argsort(own, kind="stable").astype(np.int32)


def scores_of(run: Path, source: str, by: str) -> np.ndarray:
    """(sequences,) the score of each packed sequence: the mean over its tokens of its documents' scores."""
    ids = scan(run / "documents" / source).select("id").collect()
    values = values_of(run, source, by, ids)
    parts = [
        sequence_scores(pl.read_parquet(file, columns=["sequence", "document", "length"], glob=False), values)
        for file in sorted((run / "shards" / source).glob("*.spans.parquet"))
    ]
    scores = np.full(int(index_of(run / "shards" / source)["sequences"]), np.nan)
    for part in parts:
        scores[part["sequence"].to_numpy()] = part["value"].to_numpy()
    return scores


def digest_of(rows: np.ndarray) -> str:
    """A hash of an order, (n, 2) int32."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(rows).tobytes())


def _write_resampled(
    context: Context, folder: Path, stage: StagePlan, planned: Plan, pools: Mapping[str, Pool], scheduler: Scheduler
) -> None:
    recipe = context.recipe
    rule = next(own for own in recipe.stages if isinstance(own, ResampleStage) and own.name == stage.name).resample
    earlier = [each.name for each in planned.stages if each.stage == rule.stage]
    orders = {name: np.load(folder / f"{name}.npy") for name in earlier}
    losses = _losses_of(context, orders) if rule.needs_losses else None
    if rule.needs_losses and losses is None:
        context.say(f"stage `{stage.name}` waits for the losses of `{rule.stage}`: train it, then mixer adapt")
        return
    rows = np.concatenate(list(orders.values()))
    sources = list(recipe.sources)
    draws = [
        (places_of(rows, pools[pool], sources.index(pools[pool].source)), share.sequences)
        for pool, share in stage.sources.items()
    ]
    chosen = scheduler.resample(rows, draws, losses, rule=rule, seed=recipe.seed, name=stage.name)
    write_order(folder / f"{stage.name}.npy", iter([chosen]), np.arange(len(sources), dtype=np.int32), stage.sequences)


def _losses_of(context: Context, orders: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The loss of each place of some orders, one after the other; None while some are not known."""
    folder = context.run / LOSSES
    recorded: dict[str, str] = read_json(folder / ORDERS) or {}
    there = [name for name in orders if (folder / f"{name}.npy").is_file()]
    stale = [name for name in there if recorded.get(name) != digest_of(orders[name])]
    if stale:
        told = ", ".join(f"`{name}`" for name in stale)
        context.say(f"warning: {folder} holds losses of {told} in another order than the stage has now; not used")
    if stale or len(there) < len(orders):
        return None
    found: np.ndarray = np.concatenate([np.load(folder / f"{name}.npy") for name in orders])
    return found


def places_of(rows: np.ndarray, pool: Pool, source: int) -> np.ndarray:
    """Where in an order a pool's sequences stand."""
    is_inside = (rows[:, 1] >= pool.first) & (rows[:, 1] < pool.first + pool.available)
    return np.flatnonzero((rows[:, 0] == source) & is_inside)


def write_order(path: Path, pieces: Iterator[np.ndarray], sources: np.ndarray, total: int) -> None:
    """Write a stage's order as .npy, (total, 2) int32: source (its place in the recipe) and sequence.

    Args:
        path: The file.
        pieces: (n, 2) int32, index into `sources` and sequence.
        sources: Place in the recipe of what each index stands for.
        total: Rows in all.
    """
    with path.open("wb") as file:
        header = {"descr": "<i4", "fortran_order": False, "shape": (total, 2)}
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
        for piece in pieces:
            piece[:, 0] = sources[piece[:, 0]]
            file.write(piece.astype("<i4", copy=False).data)


def as_json(planned: Plan) -> dict[str, Any]:
    """The plan as `plan.json` and `mixer plan --json` hold it."""
    return {
        "sequence_length": planned.sequence_length,
        "available": dict(planned.available),
        "estimated": sorted(planned.estimated),
        "warnings": list(planned.warnings),
        "stages": [asdict(stage) for stage in planned.stages],
    }
