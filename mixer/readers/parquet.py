"""Parquet files, read in blocks of rows so that a stripe opens no more row groups than it needs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixer.readers.rows import Part, Tabular, page
from mixer.readers.streams import DamagedError, damaged
from mixer.types import Failure, Page, Skipped

BLOCK = 256
"""Rows in a block; blocks, not single rows, are dealt out to the stripes."""


def blocks(path: str) -> int:
    """How many blocks of rows the file has; one where it cannot be read."""
    try:
        num_rows = int(pq.read_metadata(path).num_rows)
        return max(1, -(-num_rows // BLOCK))
    except (pa.ArrowException, OSError):
        return 1


def rows(path: str, name: str, source: Tabular, part: Part) -> Iterator[Page | Skipped | Failure]:
    """A Page or a Failure for each row of ours; a row group that is damaged is one Failure."""
    with Path(path).open("rb") as handle:
        file = _opened(handle)
        columns = _columns(file.schema_arrow.names, source)
        start = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if _touches(start, count, part):
                yield from _group(file, group, start, columns, name, source, part)
            start += count


def _opened(handle: Any) -> Any:
    try:
        return pq.ParquetFile(handle)
    except Exception as error:
        raise DamagedError(str(error)) from error


def _columns(names: list[str], source: Tabular) -> list[str]:
    """The fields to read: those that a path begins with or spells out in full."""
    wanted = source.columns
    texts = (wanted.text,) if isinstance(wanted.text, str) else wanted.text
    paths = [*texts, wanted.id or "", wanted.url, wanted.licence, wanted.language, *wanted.keep]
    return [name for name in names if any(name in (path, path.partition(".")[0]) for path in paths)]


def _touches(start: int, count: int, part: Part) -> bool:
    first, last = start // BLOCK, (start + count - 1) // BLOCK
    return count > 0 and any(part.owns(block) for block in range(first, min(last, first + part.stripes) + 1))


def _group(
    file: Any, group: int, start: int, columns: list[str], name: str, source: Tabular, part: Part
) -> Iterator[Page | Skipped | Failure]:
    number = start
    try:
        for batch in file.iter_batches(BLOCK, row_groups=[group], columns=columns, use_threads=False):
            # Boundaries of batches and blocks differ, so a batch may be ours in part.
            ours = [row for row in range(batch.num_rows) if part.owns((number + row) // BLOCK)]
            for row in ours:
                yield _row(batch, row, f"{name}#{number + row}", source)
            number += batch.num_rows
    except (pa.ArrowException, OSError, OverflowError) as error:
        # Every stripe that opens the group meets the damage; the one with its first row reports it.
        if part.owns(start // BLOCK):
            yield damaged(f"{name}#group-{group}", error)


def _row(batch: Any, row: int, name: str, source: Tabular) -> Page | Skipped | Failure:
    try:
        fields = {field: batch.column(field)[row].as_py() for field in batch.schema.names}
    except UnicodeDecodeError as error:
        return Failure(name, f"bad text: invalid utf-8 at byte {error.start}")
    except (pa.ArrowException, ValueError, KeyError, OverflowError) as error:
        return Failure(name, f"bad value: {error}")
    return page(fields, name, source)
