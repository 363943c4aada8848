"""Parquet tables written row by row in bounded memory, the same bytes for the same rows."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

DOCUMENTS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)
DROPPED = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("step", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("url", pa.string()),
    ]
)
_ROWS = 1000
_BYTES = 16_000_000


def scan(place: Path) -> pl.LazyFrame:
    """A lazy frame over one Parquet file, or over a folder's in name order; a path is never taken for a pattern."""
    files = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    return pl.scan_parquet(files, glob=False)


class TableWriter:
    """A Parquet file that takes one row at a time; a row group ends at a row count or a size, whichever is first."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", compression_level=3)
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def write(self, **row: Any) -> None:
        """Add one row; its keys are the columns."""
        self._rows.append(row)
        self._bytes += len(row.get("text", ""))
        if len(self._rows) >= _ROWS or self._bytes >= _BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows, self._bytes = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
