"""What an order came to, counted after the fact: the share of every pool and the scores of its sequences, by window.

`realised/windows.parquet` has a row a stage, window, pool and score; `realised/<stage>.svg` shows them. Nothing here is
planned or promised: it reads the order that was written and the packed sequences, as a trainer would.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixer.context import Context
from mixer.layout import numbers_of
from mixer.mixture import SLOPE_UNIT
from mixer.ordering import scores_of
from mixer.recipe.recipe import Recipe
from mixer.run import sha256
from mixer.types import Plan, Pool, StagePlan

VERSION = 3
"""Raise it when the same order would give another table or figure."""
WINDOWS = 50
"""Most parts of equal length that a stage is cut into."""
_FEW_WINDOWS = 8
_SEQUENCES = 20
"""A window of a short stage holds so many, else shares would jump from one window to the next."""
NONE = np.empty(0)
_SCHEMA = {
    "stage": pl.String,
    "window": pl.Int32,
    "first": pl.Int64,
    "sequences": pl.Int64,
    "pool": pl.String,
    "count": pl.Int64,
    "asked": pl.Float64,
    "score": pl.String,
    "mean": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}


@dataclass(frozen=True, slots=True)
class _Window:
    """Some places of a stage, one after the other."""

    number: int
    first: int
    rows: np.ndarray


def write_realised(context: Context, planned: Plan, pools: Mapping[str, Pool]) -> None:
    """Write `realised/` of the Run, from its order, shards and scores."""
    run, recipe = context.run, context.recipe
    files = {stage.name: run / "order" / f"{stage.name}.npy" for stage in planned.stages}
    there = {name: path for name, path in files.items() if path.is_file()}
    inputs = {
        "orders": {name: sha256(path) for name, path in there.items()},
        "shards": {name: context.steps.recorded(f"shards {name}") for name in recipe.sources},
        "scores": {score: context.steps.recorded(f"scores {score}") for score in recipe.scores.taken},
        "version": VERSION,
    }
    with context.steps.folder("realised", inputs, run / "realised") as scratch:
        if scratch is not None:
            from mixer.figures import realised_figure

            scores = _scores(run, recipe)
            tables = {
                stage.name: windows_of(stage, np.load(there[stage.name], mmap_mode="r"), recipe, pools, scores)
                for stage in planned.stages
                if stage.name in there
            }
            whole = pl.concat([pl.DataFrame(schema=_SCHEMA), *tables.values()])
            whole.write_parquet(scratch / "windows.parquet", compression="zstd", statistics=False)
            for name, table in tables.items():
                realised_figure(table, scratch / f"{name}.svg")


def _scores(run: Path, recipe: Recipe) -> dict[str, dict[str, np.ndarray]]:
    """Score -> source -> scores of its sequences, float32: those that orders name, and the main ones taken."""
    named = {rule.by for stage in recipe.mixed_stages for rule in stage.order.values()}
    found: dict[str, dict[str, np.ndarray]] = {}
    for score in sorted(named | set(numbers_of(recipe.scores.taken))):
        taken = recipe.scores.taken[score.partition(".")[0]]
        names = [name for name in recipe.filters if taken.sources is None or name in taken.sources]
        # Half the memory of what they were read as: of a trillion tokens there are a hundred million sequences.
        found[score] = {name: scores_of(run, name, score).astype(np.float32) for name in names}
    return found


def windows_of(
    stage: StagePlan,
    rows: np.ndarray,
    recipe: Recipe,
    pools: Mapping[str, Pool],
    scores: Mapping[str, Mapping[str, np.ndarray]],
) -> pl.DataFrame:
    """A row a window, pool and score (one without a score where there is none): counts, mean, least, greatest.

    Args:
        stage: The stage's plan.
        rows: (sequences, 2) its order.
        recipe: The recipe, whose sources the order numbers.
        pools: All pools.
        scores: Score -> source -> score of each sequence.
    """
    found: list[dict[str, Any]] = []
    for window in _cut(rows):
        for name in stage.sources:
            pool, asked = pools[name], _asked(stage, name, window.first, len(window.rows))
            own = _sequences(window.rows, pool, list(recipe.sources).index(pool.source))
            base = {"stage": stage.name, "window": window.number, "first": window.first, "sequences": len(window.rows)}
            base |= {"pool": name, "count": len(own), "asked": asked}
            taken = {
                score: by_source[pool.source][own] for score, by_source in scores.items() if pool.source in by_source
            }
            found += [base | {"score": score} | _spread(values) for score, values in (taken or {"": own[:0]}).items()]
    return pl.DataFrame(found, schema=_SCHEMA)


def _cut(rows: np.ndarray) -> Iterator[_Window]:
    windows = min(WINDOWS, max(_FEW_WINDOWS, len(rows) // _SEQUENCES), len(rows))
    edges = np.linspace(0, len(rows), windows + 1).round().astype(int).tolist()
    for number, (first, last) in enumerate(itertools.pairwise(edges)):
        yield _Window(number, first, np.asarray(rows[first:last]))


def _sequences(rows: np.ndarray, pool: Pool, source: int) -> np.ndarray:
    is_inside = (rows[:, 0] == source) & (rows[:, 1] >= pool.first) & (rows[:, 1] < pool.first + pool.available)
    found: np.ndarray = rows[is_inside, 1]
    return found


def _asked(stage: StagePlan, pool: str, first: int, sequences: int) -> float:
    """How many of a window the plan's shares come to."""
    return asked_by(stage, pool, first + sequences) - asked_by(stage, pool, first)


def asked_by(stage: StagePlan, pool: str, place: int) -> float:
    """How many sequences of a pool should have come before a place, by its shares as they move."""
    total = 0.0
    for segment in stage.segments:
        done = min(place, segment.sequences)
        count, slope = segment.counts.get(pool, 0), segment.slopes.get(pool, 0) / SLOPE_UNIT
        total += count * done / segment.sequences - slope * done * (segment.sequences - done) / (2 * segment.sequences)
        place -= done
        if place <= 0:
            break
    return total


def _spread(values: np.ndarray) -> dict[str, float | None]:
    known = values[~np.isnan(values)]
    if not len(known):
        return {"mean": None, "low": None, "high": None}
    return {"mean": float(known.mean()), "low": float(known.min()), "high": float(known.max())}
