"""The Documents of a unit: what cleaning kept, less what deduplication removed, which moves to `dropped`."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mixer.run import link, staged
from mixer.table import DOCUMENTS, DROPPED


def select(
    cleaned: Path, target: Path, removed: Mapping[int, tuple[str, str]], changed: Mapping[int, str] | None = None
) -> None:
    """Write `documents.parquet` and `dropped.parquet` of one unit into `target`.

    Args:
        cleaned: Folder of the cleaned unit.
        target: Folder to make.
        removed: Row of a document in `cleaned` -> the step and reason that end it.
        changed: Row of a document -> its text from now on.
    """
    with staged(target) as scratch:
        if not removed and not changed:
            for name in ("documents.parquet", "dropped.parquet"):
                link(cleaned / name, scratch / name)
            return
        gone = pq.read_table(cleaned / "dropped.parquet")
        with (
            pq.ParquetFile(cleaned / "documents.parquet") as table,
            pq.ParquetWriter(scratch / "documents.parquet", DOCUMENTS, compression="zstd") as kept,
        ):
            first = 0
            for batch in table.iter_batches(batch_size=1000):
                rows = [row for row in range(batch.num_rows) if first + row in removed]
                stay = pa.array([row for row in range(batch.num_rows) if first + row not in removed], pa.int64())
                kept.write_batch(_with_texts(batch, first, changed or {}).take(stay))
                gone = pa.concat_tables([gone, _dropped(batch, rows, [removed[first + row] for row in rows])])
                first += batch.num_rows
        pq.write_table(gone, scratch / "dropped.parquet", compression="zstd")


def _with_texts(batch: pa.RecordBatch, first: int, changed: Mapping[int, str]) -> pa.RecordBatch:
    if not any(first + row in changed for row in range(batch.num_rows)):
        return batch
    texts = [changed.get(first + row, text) for row, text in enumerate(batch["text"].to_pylist())]
    place = batch.schema.get_field_index("text")
    return batch.set_column(place, batch.schema.field(place), pa.array(texts, pa.large_string()))


def _dropped(batch: pa.RecordBatch, rows: list[int], why: list[tuple[str, str]]) -> pa.Table:
    picked = batch.take(pa.array(rows, pa.int64()))
    columns = [picked["id"], [step for step, _ in why], [reason for _, reason in why], picked["url"]]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=DROPPED)
