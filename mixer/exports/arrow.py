"""A `datasets.DatasetDict` on disk, as `load_from_disk` reads it: what LLaMA-Factory and Axolotl take pre-tokenized.

Columns `input_ids`, `attention_mask`, `labels`: padding is masked and carries no label. The split is `train`, which is
what they look for.
"""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixer.exports.folder import Folder
from mixer.exports.parquet import TEXT, dtype, write_texts
from mixer.exports.rows import Rows
from mixer.exports.target import Told, checked, parts
from mixer.recipe.exports import Export
from mixer.run import digest

FILE_BYTES = 1 << 28
IGNORED = -100
staged = False
_BYTES_A_TOKEN = 9
_TEXT = {"id": "string", "text": "large_string", "source": "string"}
_IDS = {"input_ids": "int32", "attention_mask": "int8", "labels": "int32"}
__all__ = ["columns", "documents", "dtype", "read", "staged", "texts", "write"]


def write(rows: Rows, folder: Folder, name: str, export: Export) -> None:
    """Write `dataset_dict.json` and the split `train`, which is the set's name."""
    limit = export.file_bytes or FILE_BYTES
    length = rows.facts.sequence_length
    if export.content == "text":
        names = (f"{name}/data-{number:05d}.arrow" for number in count())
        files = write_texts(rows, folder, limit, names, lambda out: pa.ipc.new_stream(out, TEXT))
        features: dict[str, Any] = {key: {"dtype": kind, "_type": "Value"} for key, kind in _TEXT.items()}
    else:
        checked(dtype(rows.facts.vocab_size), rows.facts)
        files = []
        for number, part in parts(rows, limit // (length * _BYTES_A_TOKEN)):
            files += _write(folder, f"{name}/data-{number:05d}.arrow", _tables(part))
        features = {key: _list(kind, length) for key, kind in _IDS.items()}
    about = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    folder.text(f"{name}/dataset_info.json", json.dumps(about, indent=2))
    state: dict[str, Any] = {
        "_data_files": [{"filename": file.rpartition("/")[2]} for file in files],
        "_fingerprint": digest([folder.files[file]["xxh3_128"] for file in files])[:16],
        **dict.fromkeys(("_format_columns", "_format_type", "_split")),
        "_format_kwargs": {},
        "_output_all_columns": False,
    }
    folder.text(f"{name}/state.json", json.dumps(state, indent=2, sort_keys=True))
    folder.text("dataset_dict.json", json.dumps({"splits": [name]}))


def _list(kind: str, length: int) -> dict[str, Any]:
    return {"feature": {"dtype": kind, "_type": "Value"}, "length": length, "_type": "List"}


def _write(folder: Folder, name: str, tables: Iterator[pa.Table]) -> list[str]:
    if name in folder:
        return [name]
    first = next(tables)
    with folder.file(name) as out, pa.ipc.new_stream(out, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
    return [name]


def _tables(rows: Rows) -> Iterator[pa.Table]:
    length = rows.facts.sequence_length
    for tokens, found in zip(rows.tokens(), rows.pieces(), strict=True):
        ids, real = tokens.astype(np.int32).reshape(-1), np.repeat(~found.padding, found.length)
        labels = np.where(real, ids, np.int32(IGNORED))
        columns: dict[str, np.ndarray] = {"input_ids": ids, "attention_mask": real.astype(np.int8), "labels": labels}
        yield pa.table({key: _fixed(column, length) for key, column in columns.items()})


def _fixed(values: np.ndarray, length: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values), length)


def _batches(folder: Path, name: str) -> Iterator[pa.RecordBatch]:
    for file in json.loads((folder / name / "state.json").read_text("utf-8"))["_data_files"]:
        with pa.memory_map(str(folder / name / file["filename"])) as source, pa.ipc.open_stream(source) as stream:
            yield from stream


def read(folder: Path, name: str, told: Told) -> Iterator[np.ndarray]:
    """Yield the rows."""
    for batch in _batches(folder, name):
        yield batch.column("input_ids").flatten().to_numpy().reshape(-1, told["sequence_length"])


def documents(folder: Path, name: str, told: Told) -> Iterator[np.ndarray] | None:
    """None: documents end at the end-of-text token alone."""
    del folder, name, told
    return None


def columns(folder: Path, name: str, told: Told) -> dict[str, Iterator[np.ndarray]]:
    """What is masked, and what is predicted, token by token."""
    del told

    def column(key: str) -> Iterator[np.ndarray]:
        return (batch.column(key).flatten().to_numpy() for batch in _batches(folder, name))

    return {key: column(key) for key in ("attention_mask", "labels")}


def texts(folder: Path, name: str, told: Told) -> Iterator[tuple[str, str, str]]:
    """Yield id, text and source of every row, in order."""
    del told
    for batch in _batches(folder, name):
        yield from zip(*(batch.column(key).to_pylist() for key in ("id", "text", "source")), strict=True)
