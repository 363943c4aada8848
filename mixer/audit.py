"""A sample of what deduplication removed, beside what it was removed for: so that a person can judge its precision."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixer.dedup import containment, shingles, words
from mixer.run import digest
from mixer.table import scan

_MOST = 20
_SHOWN = 400


def audit(
    removed: pl.DataFrame, cleaned: Sequence[Path], ngram: int, seed: int, *, most: int = _MOST
) -> dict[str, Any]:
    """Counts by step, and by hash some removed documents with their witness, both texts' beginnings, and the shares.

    `contained` is counted anew from the texts: the share of the removed document's n-grams that the witness holds.

    Args:
        removed: Position of each removed document and of its witness, with step and containment.
        cleaned: The cleaned units, in the order that positions count in.
        ngram: Words of an n-gram.
        seed: Of the choice.
        most: Pairs to show of each step.
    """
    counts = dict(removed.group_by("step").len().sort("step").iter_rows())
    rows = sorted(removed.to_dicts(), key=lambda row: digest([seed, row["step"], row["document"]]))
    chosen = [row for step in counts for row in [row for row in rows if row["step"] == step][:most]]
    texts = _texts(cleaned, {row[key] for row in chosen for key in ("document", "witness")})
    return {"removed": counts, "pairs": list(_pairs(chosen, texts, ngram))}


def _pairs(
    rows: Sequence[Mapping[str, Any]], texts: Mapping[int, dict[str, str]], ngram: int
) -> Iterator[dict[str, Any]]:
    for row in rows:
        gone, kept = texts[row["document"]], texts[row["witness"]]
        share = _contained(gone["text"], kept["text"], ngram)
        yield {
            "step": row["step"],
            "share": round(row["containment"], 4),
            "contained": round(share, 4),
            "removed": {"id": gone["id"], "source": gone["source"], "text": gone["text"][:_SHOWN]},
            "kept": {"id": kept["id"], "source": kept["source"], "text": kept["text"][:_SHOWN]},
        }


def _contained(gone: str, kept: str, ngram: int) -> float:
    """Share of n-grams held; of a text too short to have any, whether the words are the same."""
    grams = shingles(gone, ngram)
    return containment(grams, shingles(kept, ngram)) if len(grams) else float(words(gone) == words(kept))


def _texts(cleaned: Sequence[Path], wanted: set[int]) -> dict[int, dict[str, str]]:
    """Position -> id, source and text."""
    counts = [scan(folder / "documents.parquet").select(pl.len()).collect().item() for folder in cleaned]
    ends = np.cumsum(counts)
    found: dict[int, dict[str, str]] = {}
    for unit, folder in enumerate(cleaned):
        first = int(ends[unit]) - counts[unit]
        its = sorted(place - first for place in wanted if first <= place < ends[unit])
        if its:
            table = scan(folder / "documents.parquet").select("id", "source", "text").collect()
            found |= {first + row: table.row(row, named=True) for row in its}
    return found
