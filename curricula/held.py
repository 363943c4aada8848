"""The documents that a Run holds out of its sources: no order takes them, and retention may measure them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from mixer.run import digest
from mixer.shard import index_of
from mixer.table import scan


def held_out(run: Path, source: str, topic: str | None = None) -> pl.LazyFrame | None:
    """The documents, as in `documents/`, behind the sequences that are held out of a source; None where none is.

    Args:
        run: The Run.
        source: Its name.
        topic: Of a source that is mixed by topic: of this one alone.
    """
    folder = run / "shards" / source
    index = index_of(folder)
    parts = [part for part in _parts(index) if topic in (None, part["topic"])]
    if not parts:
        return None
    is_held = pl.any_horizontal(
        pl.col("sequence").is_between(part["first_sequence"], part["first_sequence"] + part["sequences"] - 1)
        for part in parts
    )
    spans = pl.concat([scan(folder / shard["spans"]) for shard in index["shards"]])
    rows = spans.filter(is_held).select("document").unique().collect()["document"].sort().to_list()
    return scan(run / "documents" / source).with_row_index("row").filter(pl.col("row").is_in(rows))


def fingerprints(run: Path, sources: Iterable[str]) -> dict[str, str]:
    """Source -> a hash of its shards and of what is held out of them, of each of which something is."""
    indices = {source: index_of(run / "shards" / source) for source in sources}
    return {
        source: digest([parts, [shard["sha256"] for shard in index["shards"]]])
        for source, index in indices.items()
        if (parts := _parts(index))
    }


def _parts(index: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [part for part in index.get("parts") or () if part["held_out"] and part["sequences"]]
