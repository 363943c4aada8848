"""The documents that a Run holds out of its sources: no order takes them, and retention may measure them."""

from collections.abc import Iterable
from pathlib import Path

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
    parts = [
        range(part["first_sequence"], part["first_sequence"] + part["sequences"])
        for part in index.get("parts") or ()
        if part["held_out"] and topic in (None, part["topic"])
    ]
    if not any(parts):
        return None
    is_held = pl.any_horizontal(pl.col("sequence").is_between(part.start, part.stop - 1) for part in parts if part)
    spans = pl.concat([scan(folder / shard["spans"]) for shard in index["shards"]])
    rows = spans.filter(is_held).select("document").unique().collect()["document"].sort().to_list()
    return scan(run / "documents" / source).with_row_index("row").filter(pl.col("row").is_in(rows))


def fingerprints(run: Path, sources: Iterable[str]) -> dict[str, str]:
    """Source -> a hash of which documents are held out of it, of each that has some."""
    found = {source: held_out(run, source) for source in sources}
    return {
        source: digest(table.select("id").collect()["id"].to_list())
        for source, table in found.items()
        if table is not None
    }
