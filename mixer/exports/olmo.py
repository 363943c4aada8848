"""OLMo-core's arrays: raw ids named `.npy` (without numpy's header), and the documents' places beside them, `.csv.gz`.

`NumpyFSLDataset` cuts each file into windows of sequence_length from its start: every window is one of our sequences.
Never `np.save`: the header would be read as tokens.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from mixer.exports.folder import Folder
from mixer.exports.rows import Rows
from mixer.exports.target import Told, agree, checked, document_lengths, flat, parts
from mixer.readers.flat import blocks, csv_places, mapped
from mixer.recipe.exports import Export

FILE_BYTES = 1 << 30
_LINES = 1 << 16
staged = True


def dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint8, uint16 and uint32 that holds every id: OLMo-core's own rule."""
    return next(np.dtype(kind) for kind in ("<u1", "<u2", "<u4") if vocab_size - 1 <= np.iinfo(kind).max)


def write(rows: Rows, folder: Folder, name: str, export: Export) -> None:
    """Write `NAME-00000.npy`, `NAME-00000.csv.gz` and so on; a blended source is one file (see `realised.olmo`)."""
    ids = checked(dtype(rows.facts.vocab_size), rows.facts)
    blended = export.mode == "blended"
    room = (export.file_bytes or FILE_BYTES) // (rows.facts.sequence_length * ids.itemsize)
    for number, part in parts(rows, len(rows) if blended else room):
        flat(folder, f"{name}-{number:05d}.npy", part, ids)
        file = f"{name}-{number:05d}.csv.gz"
        if file not in folder:
            with folder.file(file) as out, gzip.GzipFile("", "wb", 1, out, mtime=0) as packed:
                for text in _lines(document_lengths(part, merge=blended)):
                    packed.write(text)


def _lines(lengths: Iterator[np.ndarray]) -> Iterator[bytes]:
    """`start,end` of each document, end exclusive, a line each."""
    end = 0
    for part in _joined(lengths):
        ends = end + np.cumsum(part)
        places = pl.DataFrame({"start": ends - part, "end": ends})
        yield places.write_csv(include_header=False).encode()
        end = int(ends[-1]) if len(part) else end


def _joined(lengths: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same in blocks of `_LINES` or more: each call that makes lines costs as much as thousands of them."""
    held: list[np.ndarray] = []
    for part in lengths:
        held.append(part)
        if sum(map(len, held)) >= _LINES:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def files(folder: Path, name: str) -> list[Path]:
    """A set's arrays, in order."""
    return sorted(path for path in folder.glob("*.npy") if path.stem.rpartition("-")[0] == name)


def read(folder: Path, name: str, told: Told) -> Iterator[np.ndarray]:
    """Yield the windows of every file."""
    length = told["sequence_length"]
    for path in files(folder, name):
        ids = mapped(path, np.dtype(told["dtype"]))
        yield from blocks(ids[: len(ids) // length * length].reshape(-1, length), 1 << 11)


def documents(folder: Path, name: str, told: Told) -> Iterator[np.ndarray] | None:
    """Yield the documents' lengths from `.csv.gz`, whose lines must leave no token out."""
    del told
    return _csv_lengths(files(folder, name))


def _csv_lengths(arrays: list[Path]) -> Iterator[np.ndarray]:
    for path in arrays:
        end = 0
        for starts, ends in csv_places(path.with_suffix(".csv.gz")):
            strays = int((starts != np.r_[end, ends[:-1]]).sum())
            agree(path.with_suffix(".csv.gz"), "documents out of place", strays, 0)
            end = int(ends[-1])
            yield ends - starts
