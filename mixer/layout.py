"""In which order a source's documents are packed, and which of them are packed apart: packing follows the curriculum.

Without more, documents come by a hash of their ids, so that neighbours on a site part company. A source that some
stage orders by a score is packed in that order, and one that is mixed by topic is packed topic by topic: so a sequence
is of one difficulty and one topic. Documents for validation are packed apart from all others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import xxhash

from mixer.pools import PackRule
from mixer.recipe.scores import COLUMNS
from mixer.recipe.stage import REST
from mixer.table import scan

_LEAST_TRAINED = 20
"""Of a pool, at most one token in so many is held out."""
_RUNS = 10
"""Best-fit packing mixes what is packed together: by score it is done within so many quantiles."""


@dataclass(frozen=True, slots=True)
class Group:
    """Documents that are packed together, as row numbers, in the order to pack them.

    Args:
        runs: One after the other; no sequence holds documents of two.
    """

    topic: str | None
    held_out: bool
    runs: tuple[np.ndarray, ...]


def layout(
    run: Path, source: str, rule: PackRule, lengths: np.ndarray, *, seed: int, sequence_length: int, packing: str
) -> list[Group]:
    """The groups of a source's documents; each document is in one of them.

    Args:
        run: The Run folder, with `documents/` and `scores/`.
        source: The source.
        rule: How its stages want it packed.
        lengths: Tokens of each document, by row.
        seed: The recipe's.
        sequence_length: Tokens a sequence.
        packing: `concat_and_chunk` or `best_fit`.
    """
    ids = scan(run / "documents" / source).select("id").collect()
    shuffled = np.argsort(_hashes(ids["id"], seed, "pack", source), kind="stable")
    groups = []
    for topic, rows in _by_topic(run, source, rule, ids, shuffled):
        kept, held = _hold_out(rows, ids, lengths, rule.held_out * sequence_length, seed, source)
        runs: tuple[np.ndarray, ...] = (kept,)
        if rule.by is not None:
            ordered = kept[np.argsort(values_of(run, source, rule.by, ids)[kept], kind="stable")]
            is_fitted = packing == "best_fit" and len(ordered) > _RUNS
            runs = tuple(np.array_split(ordered, _RUNS)) if is_fitted else (ordered,)
        groups.append(Group(topic, held_out=False, runs=runs))
        if len(held):
            groups.append(Group(topic, held_out=True, runs=(held,)))
    return groups


def values_of(run: Path, source: str, by: str, ids: pl.DataFrame) -> np.ndarray:
    """A score's numbers for a source's documents, by row; NaN, which sorts last, where there is none."""
    score, _, column = by.partition(".")
    table = scan(run / "scores" / score / f"{source}.parquet").select("id", pl.col(column or "value").alias("score"))
    found = ids.join(table.collect(), on="id", how="left", maintain_order="left")["score"]
    return found.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def numbers_of(scores: Mapping[str, object]) -> list[str]:
    """The main numbers of the scores that are taken, as an order names them."""
    return [score for score in scores if COLUMNS[score]["value"] is float]


def _hashes(ids: pl.Series, seed: int, *names: str) -> np.ndarray:
    salt = xxhash.xxh3_64_intdigest("\x1f".join((str(seed), *names)).encode())
    return np.array([xxhash.xxh3_64_intdigest(each.encode(), seed=salt) for each in ids], np.uint64)


def _by_topic(
    run: Path, source: str, rule: PackRule, ids: pl.DataFrame, rows: np.ndarray
) -> Iterator[tuple[str | None, np.ndarray]]:
    """Yield topics and their rows; topics that nobody names are together, last."""
    if not rule.topics and not rule.is_by_label:
        yield None, rows
        return
    table = scan(run / "scores" / "topic" / f"{source}.parquet").select("id", "value").collect()
    labels = ids.join(table, on="id", how="left", maintain_order="left")["value"].fill_null(REST).to_numpy()[rows]
    named = rule.topics or tuple(sorted(set(labels) - {REST}))
    for label in named:
        yield label, rows[labels == label]
    if rule.topics or REST in labels:
        yield REST, rows[~np.isin(labels, named)]


def _hold_out(
    rows: np.ndarray, ids: pl.DataFrame, lengths: np.ndarray, tokens: int, seed: int, source: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and rows to hold out: by another hash, until their tokens are enough or too many."""
    if not tokens:
        return rows, rows[:0]
    most = int(lengths[rows].sum()) // _LEAST_TRAINED
    by_hash = rows[np.argsort(_hashes(ids["id"][rows], seed, "hold out", source), kind="stable")]
    fitting = by_hash[lengths[by_hash] <= most]
    ends = np.cumsum(lengths[fitting])
    count = min(np.searchsorted(ends, tokens) + 1, np.searchsorted(ends, most, side="right"))
    held = fitting[:count]
    return rows[~np.isin(rows, held)], held
