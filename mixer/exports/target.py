"""What every format is made of: the one interface behind which it writes and reads, and what several of them share."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mixer.errors import ExportError, ShardError
from mixer.exports.folder import Folder
from mixer.exports.rows import Facts, Rows
from mixer.recipe.exports import Export

_LINES_BYTES = 1 << 24
Told = Mapping[str, Any]
"""`export.json`: what a trainer's configuration says of the files, and our readers go by."""


class Format(Protocol):
    """One format. A set is what its trainer opens as one data set: a stage, all stages, or a source."""

    staged: bool
    """Whether a premixed export is a set a stage; else it is one set, stage after stage."""

    def dtype(self, vocab_size: int) -> np.dtype:
        """Of the ids on disk, by the rule of the trainer."""

    def write(self, rows: Rows, folder: Folder, name: str, export: Export) -> None:
        """Write a set's files into the folder; those that it holds already are left alone."""

    def read(self, folder: Path, name: str, told: Told) -> Iterator[np.ndarray]:
        """Yield a set's ids as its trainer meets them, flat or in rows, from the files alone."""

    def documents(self, folder: Path, name: str, told: Told) -> Iterator[np.ndarray] | None:
        """Yield the lengths of a set's documents, or None where no file says where they end."""


def small_dtype(vocab_size: int) -> np.dtype:
    """uint16 where every id fits, else uint32: the rule of datatrove, Megatron's index and most others."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def checked(dtype: np.dtype, facts: Facts) -> np.dtype:
    """The dtype, shown to hold every id of the vocabulary.

    Raises:
        ShardError: It does not.
    """
    most = int(np.iinfo(dtype).max)
    if facts.vocab_size - 1 > most:
        raise ShardError(
            f"export: got a vocabulary of {facts.vocab_size:,}, expected at most {most + 1:,} for {dtype.name}",
            hint="choose a format with wider ids",
        )
    return dtype


def flat(folder: Folder, name: str, rows: Rows, dtype: np.dtype, *, head: bytes = b"", tail: bytes = b"") -> None:
    """Write rows as a flat file of ids; each block is checked against the vocabulary before it is written."""
    checked(dtype, rows.facts)
    folder.flat(
        name,
        lambda first: (ids.astype(dtype, copy=False) for ids in rows.tokens(first)),
        rows.facts.sequence_length * dtype.itemsize,
        head=head,
        tail=tail,
    )


def document_lengths(rows: Rows, *, merge: bool, padding: bool = True) -> Iterator[np.ndarray]:
    """Yield the lengths of the documents that fill rows, in blocks.

    Args:
        rows: The rows.
        merge: Whether a document that goes on in the next row is one document, or one a row.
        padding: Whether padding counts as a document, or is left out.
    """
    held = 0
    for found in rows.pieces():
        kept = ~found.padding | padding
        length, starts = found.length[kept], np.flatnonzero(~(found.goes_on[kept] & merge))
        if not len(starts):
            held += int(length.sum())
            continue
        held += int(length[: starts[0]].sum())
        sizes = np.add.reduceat(length, starts)
        yield np.r_[held, sizes[:-1]] if held else sizes[:-1]
        held = int(sizes[-1])
    if held:
        yield np.array([held])


def without_padding(rows: Rows) -> Iterator[np.ndarray]:
    """Yield the ids of rows, flat, without those of padding."""
    for ids, found in zip(rows.tokens(), rows.pieces(), strict=True):
        yield ids.reshape(-1)[np.repeat(~found.padding, found.length)] if found.padding.any() else ids.reshape(-1)


def lines(rows: Rows) -> Iterator[bytes]:
    """Yield the documents of rows as lines of JSON (id, text, source), some megabytes at a time.

    A document stands where its first token is trained on, whole, once for every time it is.
    """
    held: list[np.ndarray] = []
    size = 0
    for source, document in opened(rows):
        held.append(rows.shards.texts(source).line(document))
        size += len(held[-1])
        if size >= _LINES_BYTES:
            yield np.concatenate(held).tobytes()
            held, size = [], 0
    if held:
        yield np.concatenate(held).tobytes()


def opened(rows: Rows) -> Iterator[tuple[str, int]]:
    """Yield the source and the number of every document whose first token a row holds, in order."""
    for pairs, found in zip(rows.pairs(), rows.pieces(), strict=True):
        sources = pairs[found.sequence[found.opens], 0].tolist()
        for source, document in zip(sources, found.document[found.opens].tolist(), strict=True):
            yield rows.shards.names[source], document


def agree(path: Path, what: str, found: Any, expected: Any) -> None:
    """Refuse a file on disk that contradicts itself, or what names it.

    Raises:
        ExportError: The two differ.
    """
    if found != expected:
        raise ExportError(f"{path}: {what}: got {found}, expected {expected}", hint="export it again")


def parts(rows: Rows, most_rows: int) -> Iterator[tuple[int, Rows]]:
    """The rows in runs of at most `most_rows`, numbered."""
    step = max(1, most_rows)
    for number, first in enumerate(range(0, len(rows), step)):
        yield number, rows.slice(first, min(step, len(rows) - first))
