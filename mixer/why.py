"""What became of one document: the step that ended it, or the places of training that hold it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixer.errors import SourceError
from mixer.orders import orders_of
from mixer.recipe.recipe import Recipe
from mixer.shard import index_of
from mixer.table import scan
from mixer.trace import scores_of_document

_MOST_PLACES = 20


@dataclass(frozen=True, slots=True)
class Place:
    """A sequence that holds a part of a document, and where each stage takes it: the first places, and how many."""

    sequence: int
    tokens: int
    held_out: bool
    stages: dict[str, list[int]]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a document in one source.

    Args:
        state: `kept` or `dropped`.
        step: The step that ended it, and reason why; empty where it was kept.
        places: The sequences that hold it.
        tokens: Of it, in these; the rest lies in its group's last, incomplete sequence.
        hits: Places that held benchmark text.
    """

    source: str
    document: str
    state: str
    url: str | None = None
    step: str = ""
    reason: str = ""
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    tokens: int = 0
    hits: list[dict[str, Any]] = field(default_factory=list)


def why(run: Path, recipe: Recipe, document: str, *, training: str | None = None) -> list[Fate]:
    """What became of a document, in each source that has one of that id; places are those of a training, if named.

    Raises:
        SourceError: No source read one.
    """
    orders = {stage: np.load(path, mmap_mode="r") for stage, path in orders_of(run, training).items()}
    found = [fate for name in recipe.sources for fate in _fates(run, recipe, name, document, orders)]
    if not found:
        raise SourceError(
            f"{run}: got no document {document!r}, expected an id of documents/ or dropped/",
            hint="an id is `file#row`, or what `columns.id` names; look into dropped/SOURCE/*.parquet",
        )
    return found


def _fates(run: Path, recipe: Recipe, source: str, document: str, orders: Mapping[str, np.ndarray]) -> Iterator[Fate]:
    scores, hits = scores_of_document(run, source, document), _hits(run, source, document)
    for row in scan(run / "dropped" / source).filter(pl.col("id") == document).collect().to_dicts():
        told = {"step": row["step"], "reason": row["reason"], "scores": scores, "hits": hits}
        yield Fate(source, document, "dropped", row["url"], **told)
    kept = scan(run / "documents" / source).with_row_index("row").filter(pl.col("id") == document)
    for row in kept.select("row", "url").collect().to_dicts():
        places = list(_places(run, recipe, source, row["row"], orders))
        yield Fate(
            source,
            document,
            "kept",
            row["url"],
            scores=scores,
            places=places,
            tokens=sum(place.tokens for place in places),
            hits=hits,
        )


def _hits(run: Path, source: str, document: str) -> list[dict[str, Any]]:
    path = run / "decontamination" / f"{source}.parquet"
    if not path.is_file():
        return []
    return scan(path).filter(pl.col("id") == document).collect().to_dicts()


def _places(run: Path, recipe: Recipe, source: str, row: int, orders: Mapping[str, np.ndarray]) -> Iterator[Place]:
    """Yield the sequences that hold a document, with the places where the stages take them."""
    index = index_of(run / "shards" / source)
    tables = [scan(run / "shards" / source / shard["spans"]) for shard in index["shards"]]
    spans = pl.concat([table.filter(pl.col("document") == row) for table in tables]).collect()
    number = list(recipe.sources).index(source)
    for (sequence,), own in spans.group_by("sequence", maintain_order=True):
        at = {
            stage: np.flatnonzero((order[:, 0] == number) & (order[:, 1] == sequence)).tolist()
            for stage, order in orders.items()
        }
        is_held = any(
            part["held_out"] and part["first_sequence"] <= sequence < part["first_sequence"] + part["sequences"]
            for part in index["parts"]
        )
        taken = {stage: places[:_MOST_PLACES] for stage, places in at.items() if places}
        counts = {stage: len(at[stage]) for stage in taken}
        yield Place(int(str(sequence)), int(own["length"].sum()), is_held, taken, counts)
