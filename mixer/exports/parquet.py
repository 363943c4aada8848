"""Parquet for `datasets`, TRL and whoever reads tables: a row is one sequence, or one document.

`input_ids` is a list of fixed size, so its length is part of the schema; `seq_lengths` are the lengths of the documents
in the row (what TRL calls a packed row), padding among them.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mixer.exports.folder import Folder, Output
from mixer.exports.rows import Rows
from mixer.exports.target import Told, checked, lines, parts
from mixer.recipe.exports import Export

FILE_BYTES = 1 << 28
staged = True
_GROUP_ROWS = 1024
TEXT = pa.schema([("id", pa.string()), ("text", pa.large_string()), ("source", pa.string())])


def dtype(vocab_size: int) -> np.dtype:
    """int32: what `datasets` and its users take without a question."""
    del vocab_size
    return np.dtype("<i4")


def write(rows: Rows, folder: Folder, name: str, export: Export) -> None:
    """Write `NAME-00000.parquet` and so on."""
    limit = export.file_bytes or FILE_BYTES
    if export.content == "text":
        names = (f"{name}-{number:05d}.parquet" for number in count())
        write_texts(rows, folder, limit, names, lambda out: pq.ParquetWriter(out, TEXT, compression="zstd"))
        return
    ids = checked(dtype(rows.facts.vocab_size), rows.facts)
    for number, part in parts(rows, limit // (rows.facts.sequence_length * ids.itemsize)):
        if (file := f"{name}-{number:05d}.parquet") not in folder:
            with folder.file(file) as out:
                _write_table(out, schema(rows.facts.sequence_length), _tables(part))


def schema(sequence_length: int) -> pa.Schema:
    """Of a table of sequences."""
    ids = pa.list_(pa.int32(), sequence_length)
    return pa.schema([("input_ids", ids), ("seq_lengths", pa.list_(pa.int32())), ("source", pa.string())])


def _tables(rows: Rows) -> Iterator[pa.Table]:
    length = rows.facts.sequence_length
    for pairs, tokens, found in zip(rows.pairs(), rows.tokens(), rows.pieces(), strict=True):
        starts = np.searchsorted(found.sequence, np.arange(len(pairs) + 1)).astype(np.int32)
        ids = pa.FixedSizeListArray.from_arrays(pa.array(tokens.astype(np.int32).reshape(-1)), length)
        lengths = pa.ListArray.from_arrays(pa.array(starts), pa.array(found.length.astype(np.int32)))
        names = pa.array(np.array(rows.shards.names, object)[pairs[:, 0]], pa.string())
        yield pa.table([ids, lengths, names], schema(length))


def _write_table(out: Any, columns: pa.Schema, tables: Iterator[pa.Table]) -> None:
    with pq.ParquetWriter(out, columns, compression="zstd", use_dictionary=["source"]) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=_GROUP_ROWS)


def write_texts(
    rows: Rows, folder: Folder, limit: int, names: Iterator[str], open_writer: Callable[[Output], Any]
) -> list[str]:
    """Write a document a row; returns the files, at least one. An attempt that was killed begins the set again.

    Args:
        rows: The rows.
        folder: The export's.
        limit: Bytes of documents, as lines of JSON, with which a file ends.
        names: Of the files.
        open_writer: Makes what takes tables, to be closed when a file ends.
    """
    tables = _text_tables(rows, limit)
    found: list[str] = []
    table = next(tables, None)
    while table is not None or not found:
        found.append(next(names))
        with folder.file(found[-1]) as out, open_writer(out) as writer:
            is_full = False
            while table is not None and not is_full:
                writer.write_table(table[0])
                is_full, table = table[1], next(tables, None)
    return found


def _text_tables(rows: Rows, limit: int) -> Iterator[tuple[pa.Table, bool]]:
    """Yield the documents of rows as tables of id, text and source, and whether a file ends with one."""
    filled = 0
    for block in lines(rows):
        held: list[bytes] = []
        for line in block.splitlines():
            held.append(line)
            filled += len(line)
            if filled >= limit:
                yield _text_table(held), True
                held, filled = [], 0
        if held:
            yield _text_table(held), False


def _text_table(documents: list[bytes]) -> pa.Table:
    return pa.Table.from_pylist([orjson.loads(line) for line in documents], TEXT)


def _files(folder: Path, name: str) -> list[Path]:
    return sorted(path for path in folder.glob("*.parquet") if path.stem.rpartition("-")[0] == name)


def read(folder: Path, name: str, told: Told) -> Iterator[np.ndarray]:
    """Yield the rows, read with polars rather than with what wrote them."""
    for path in _files(folder, name):
        for table in pl.scan_parquet(path, glob=False).select("input_ids").collect_batches(maintain_order=True):
            yield table["input_ids"].to_numpy().reshape(-1, told["sequence_length"])


def documents(folder: Path, name: str, told: Told) -> Iterator[np.ndarray] | None:
    """Yield `seq_lengths`."""
    del told
    tables = (pl.read_parquet(path, columns=["seq_lengths"], glob=False) for path in _files(folder, name))
    return (table["seq_lengths"].explode().to_numpy() for table in tables)


def columns(folder: Path, name: str, told: Told) -> dict[str, Iterator[np.ndarray]]:
    """The source of each row."""
    del told
    tables = (pl.read_parquet(path, columns=["source"], glob=False) for path in _files(folder, name))
    return {"source": (table["source"].to_numpy() for table in tables)}


def texts(folder: Path, name: str, told: Told) -> Iterator[tuple[str, str, str]]:
    """Yield id, text and source of every row, in order."""
    del told
    for path in _files(folder, name):
        for table in (
            pl.scan_parquet(path, glob=False).select("id", "text", "source").collect_batches(maintain_order=True)
        ):
            yield from table.iter_rows()
