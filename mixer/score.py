"""Scores as side files: taken once a unit, keyed by document id, joined only where a filter or an order asks for them.

What a score is made with (its model, its parameters, the documents it learned from) decides the name of its file, so a
newer checkpoint gives new files and touches nothing else.
"""

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from mixer.execute import Step
from mixer.recipe.scores import COLUMNS
from mixer.recipe.scores_problems import columns_of
from mixer.run import digest, staged
from mixer.table import scan
from mixer.where import parse

FILE, REPORT = "values.parquet", "report.json"
_DIGITS = 5
_BATCH_ROWS = 256
_POLARS = {float: pl.Float64, str: pl.String}


class Scorer(Protocol):
    """Takes one score of many texts."""

    def __call__(self, texts: Sequence[str], urls: Sequence[str | None], /) -> Mapping[str, Sequence[Any]]:
        """Column -> one value a text; the columns are those of `mixer.recipe.scores.COLUMNS`.

        Args:
            texts: Neighbours in a unit; always the same ones together.
            urls: Where each came from, if its source says so.
        """


@dataclass(frozen=True, slots=True)
class Scoring:
    """A score ready to be taken.

    Args:
        inputs: All that decides its values, beside the text.
        open: Makes the scorer in the process that will use it; picklable.
        report: How well what it learned does on what was held out; None where it learns nothing.
    """

    inputs: Mapping[str, Any]
    open: Callable[[], Scorer]
    report: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """One unit to score: its documents, and the folder to make."""

    documents: Path
    target: Path


class ScoreDocuments(Step):
    """Takes one score of one unit's documents, in their order."""

    name = "score documents"
    scored: ClassVar[int] = 0
    """Documents that this process has scored; what the progress bar shows."""
    _opened: ClassVar[dict[str, Scorer]] = {}

    def __init__(self, tasks: Sequence[ScoreTask], score: str, scoring: Scoring) -> None:
        super().__init__()
        self.tasks, self.score, self.scoring = tasks, score, scoring

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        task, key = self.tasks[rank], digest(dict(self.scoring.inputs))
        if key not in self._opened:
            self._opened.clear()
            self._opened[key] = self.scoring.open()
        frames = [_frame([], {name: [] for name in COLUMNS[self.score]}, self.score)]
        with pq.ParquetFile(task.documents) as table:
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=["id", "text", "url"]):
                ids, texts, urls = (batch.column(name).to_pylist() for name in ("id", "text", "url"))
                frames.append(_frame(ids, self._opened[key](texts, urls), self.score))
                type(self).scored += len(ids)
        with staged(task.target) as scratch:
            pl.concat(frames).write_parquet(scratch / FILE, compression="zstd", statistics=False)


def release() -> None:
    """Forget opened scorers, and give back the memory that their models held: another engine may need it."""
    ScoreDocuments._opened.clear()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _frame(ids: Sequence[str], values: Mapping[str, Sequence[Any]], score: str) -> pl.DataFrame:
    """Ids and values as a table; numbers keep five digits, so that a sum in another order seldom shows."""
    kinds = COLUMNS[score]
    found = pl.DataFrame(
        {"id": ids, **{name: list(values[name]) for name in kinds}},
        schema={"id": pl.String, **{name: _POLARS[kind] for name, kind in kinds.items()}},
    )
    return found.with_columns(pl.selectors.float().round_sig_figs(_DIGITS))


def failing(documents: Path, sides: Mapping[str, Path], where: str) -> dict[int, tuple[str, str]]:
    """Row -> step and reason of each document of a unit that its source's `where` keeps out.

    Args:
        documents: `documents.parquet` of a unit.
        sides: Score -> folder with its values for that unit.
        where: The expression.
    """
    rule = parse(where, {name: kind for score in sides for name, kind in columns_of(score).items()})
    table = scan(documents).select("id").collect()
    for score, folder in sides.items():
        values = scan(folder / FILE).collect()
        assert values["id"].equals(table["id"]), f"{folder}: other documents than {documents}"
        renamed = {column: score if column == "value" else f"{score}.{column}" for column in COLUMNS[score]}
        table = table.hstack(values.drop("id").rename(renamed))
    passes = table.select(rule.expression().alias("passes"))["passes"].to_numpy()
    return {int(row): ("where", rule.canonical()) for row in np.flatnonzero(~passes)}


def sequence_scores(spans: pl.DataFrame, values: np.ndarray) -> pl.DataFrame:
    """(sequence, value): the mean over each sequence's tokens of the values of their documents.

    Args:
        spans: Pieces of documents in sequences; `sequence`, `document` and `length` are read.
        values: Of each document of the source, by row; a missing one is NaN and does not count.

    Example:
        >>> spans = pl.DataFrame({"sequence": [0, 0, 1], "document": [0, 1, 1], "length": [6, 2, 8]})
        >>> sequence_scores(spans, np.array([10.0, 50.0]))["value"].to_list()
        [20.0, 50.0]
    """
    table = spans.select("sequence", pl.col("length").cast(pl.Float64))
    known = table.with_columns(value=values[spans["document"].to_numpy()]).filter(pl.col("value").is_not_nan())
    mean = (pl.col("value") * pl.col("length")).sum() / pl.col("length").sum()
    return known.group_by("sequence").agg(value=mean).sort("sequence")
