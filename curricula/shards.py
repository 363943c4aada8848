"""The shards of a Run as training reads them: single sequences, and whole batches in one pass."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
import polars as pl

from curricula.rows import Batch, Row, starts_of, weights_of
from mixer.errors import ShardError
from mixer.run import digest, staged
from mixer.shard import Sequences, index_of


class Shards:
    """The shards of a Run, by the place of a source in the recipe.

    Where the spans of a sequence lie is kept once as flat files in the Run's cache, read by memory map: a process then
    holds no more of a large corpus than it has just read.

    Args:
        run: The Run folder.
        names: The recipe's sources, in their order.
        document_mask: Whether rows say where documents begin.

    Raises:
        ShardError: Shards are missing, damaged, or of differing sequence lengths.
    """

    def __init__(self, run: Path, names: Sequence[str], *, document_mask: bool) -> None:
        self._names = tuple(names)
        folders = [run / "shards" / name for name in names]
        self._indices = [index_of(folder) for folder in folders]
        self._length = int(self._indices[0]["sequence_length"])
        self._dtype = np.dtype(self._indices[0]["dtype"])
        self._sequences = [Sequences(folder) for folder in folders]
        spans = [_spans(folder, run / ".cache" / "spans") for folder in folders]
        self._first, self._spans = [first for first, _ in spans], [places for _, places in spans]
        self._parts = [_parts(index) for index in self._indices]
        self._part_starts = [[part["first_sequence"] for part in parts] for parts in self._parts]
        self._document_mask = document_mask
        for name, index in zip(names, self._indices, strict=True):
            if index["sequence_length"] != self._length:
                raise ShardError(
                    f"shards/{name}: got sequences of {index['sequence_length']}, expected {self._length}",
                    hint="run mixer build again",
                )

    @property
    def names(self) -> Sequence[str]:
        """The recipe's sources."""
        return self._names

    @property
    def sequence_length(self) -> int:
        """Tokens of each row."""
        return self._length

    @property
    def tokenizers(self) -> set[str]:
        """Digests of the tokenizers that the shards were encoded with."""
        return {index["tokenizer"] for index in self._indices}

    @property
    def vocabulary(self) -> int:
        """One more than the largest id there may be."""
        return max(int(index["vocab_size"]) for index in self._indices)

    def count(self, source: int) -> int:
        """How many sequences the source has."""
        return len(self._sequences[source])

    def row(self, source: int, sequence: int) -> Row:
        """The packed sequence."""
        first = self._first[source]
        offsets, lengths = self._spans[source][first[sequence] : first[sequence + 1]].astype(np.int64).T
        starts = starts_of(self._length, offsets, lengths) if self._document_mask else np.zeros(1, np.int64)
        return Row(
            ids=self._sequences[source][sequence].astype(np.int64),
            starts=starts,
            weights=weights_of(self._length, offsets, lengths),
            tokens=int(lengths.sum()),
        )

    def batch(self, picked: np.ndarray, numbers: np.ndarray) -> Batch:
        """Packed sequences as one batch, laid out in one pass over what the files hold.

        Args:
            picked: (sequences, 2) source and number of each.
            numbers: (rows,) which row of the step each is, FILLER for those after the sequences.
        """
        rows, fill = len(numbers), len(numbers) - len(picked)
        found, parts = [], [np.empty((0, 2), np.uint32)]
        for source, sequence in picked.tolist():
            first = self._first[source]
            found.append(self._sequences[source][sequence])
            parts.append(self._spans[source][first[sequence] : first[sequence + 1]])
        ids = np.concatenate(found + [np.zeros(self._length, self._dtype)] * fill).reshape(rows, -1)
        counts = np.array([len(part) for part in parts[1:]] + [0] * fill, np.int64)
        spans = np.concatenate(parts).astype(np.int64)
        tokens = np.zeros(rows, np.int64)
        np.add.at(tokens, np.repeat(np.arange(rows), counts), spans[:, 1])
        if self._document_mask:
            bounds = _bounds(spans, counts, self._length)
        else:
            bounds = self._length * np.arange(rows + 1, dtype=np.int32)
        out = np.empty((4, *ids.shape), np.int64)
        targets = _lay_out(ids, spans, counts, bounds, out.reshape(4, -1))
        places, next_ids = out[2:].reshape(2, -1)[:, :targets]
        weights = np.ones(targets, np.float32)
        longest = int(np.diff(bounds).max())
        return Batch(out[0], out[1], bounds, longest, places, next_ids, weights, np.array(numbers, np.int64), tokens)

    def topic(self, source: int, sequence: int) -> str | None:
        """What the sequence is about, where its source is parted by topics."""
        place = int(np.searchsorted(self._part_starts[source], sequence, side="right")) - 1
        topic: str | None = self._parts[source][place]["topic"]
        return topic

    def held_out(self) -> Iterator[tuple[int, int]]:
        """Yield (source, sequence) of those that no order holds: they validate."""
        for source, parts in enumerate(self._parts):
            for part in parts:
                if part["held_out"]:
                    first = part["first_sequence"]
                    yield from ((source, sequence) for sequence in range(first, first + part["sequences"]))


def _parts(index: dict[str, Any]) -> list[dict[str, Any]]:
    whole = {"topic": None, "held_out": False, "first_sequence": 0, "sequences": index["sequences"]}
    return index.get("parts") or [whole]


def _spans(folder: Path, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Number of each sequence's first span, (sequences + 1,), and (spans, 2) uint32 offset and length; memory maps."""
    index = index_of(folder)
    key = digest([[shard["spans_sha256"], shard["first_sequence"]] for shard in index["shards"]])
    target = cache / f"{folder.name}-{key}"
    if not target.is_dir():
        with staged(target, keep=True) as scratch:
            _write_spans(scratch, folder, index)
    places = target / "spans.bin"
    if not places.stat().st_size:
        return np.zeros(index["sequences"] + 1, np.int64), np.empty((0, 2), np.uint32)
    # As plain arrays: a memmap does bookkeeping at every slice.
    first = np.asarray(np.load(target / "first.npy", mmap_mode="r"))
    return first, np.asarray(np.memmap(places, "<u4", "r")).reshape(-1, 2)


def _write_spans(scratch: Path, folder: Path, index: dict[str, Any]) -> None:
    counts = np.zeros(index["sequences"], np.int64)
    with (scratch / "spans.bin").open("wb") as out:
        for shard in index["shards"]:
            spans = pl.read_parquet(folder / shard["spans"], columns=["sequence", "offset", "length"])
            counts += np.bincount(spans["sequence"].to_numpy(), minlength=len(counts))
            out.write(spans.select("offset", "length").to_numpy().astype("<u4").tobytes())
    np.save(scratch / "first.npy", np.concatenate([[0], np.cumsum(counts)]))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _bounds(spans: np.ndarray, counts: np.ndarray, length: int) -> np.ndarray:
    """Where documents begin in flattened rows, what lies between and after them as one more, and the end; int32.

    Args:
        spans: (spans, 2) offset and length, of all rows, in order of their places.
        counts: (rows,) spans of each.
        length: Tokens of a row.
    """
    bounds = np.empty(2 * len(spans) + len(counts) + 1, np.int32)
    documents = span = 0
    for row in range(len(counts)):
        first = row * length
        bounds[documents] = first
        documents += 1
        for offset, size in spans[span : span + counts[row]]:
            for place in (first + offset, first + offset + size):
                if bounds[documents - 1] < place < first + length:
                    bounds[documents] = place
                    documents += 1
        span += counts[row]
    bounds[documents] = len(counts) * length
    return bounds[: documents + 1]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _lay_out(found: np.ndarray, spans: np.ndarray, counts: np.ndarray, bounds: np.ndarray, out: np.ndarray) -> int:
    """Fill a batch's ids, positions, places and targets; returns how many targets there are.

    Each loop fills one array, which the compiler makes wide, and one row, which is then near when it is read again.

    Args:
        found: (rows, length) ids as the files hold them.
        spans: (spans, 2) offset and length, of all rows, in order of their places.
        counts: (rows,) spans of each.
        bounds: Where positions begin anew, and the end.
        out: (4, rows x length) to fill; the last two as far as there are targets.
    """
    length = found.shape[1]
    span = targets = 0
    for row in range(len(counts)):
        _widen(found[row], out[0][row * length : (row + 1) * length])
        for offset, size in spans[span : span + counts[row]]:
            predicts = size - 1
            _count_up(row * length + offset, out[2][targets : targets + predicts])
            _widen(found[row, offset + 1 : offset + size], out[3][targets : targets + predicts])
            targets += predicts
        span += counts[row]
    for document in range(len(bounds) - 1):
        _count_up(0, out[1][bounds[document] : bounds[document + 1]])
    return targets


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _widen(found: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(out)):
        out[i] = found[i]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _count_up(first: int, out: np.ndarray) -> None:
    for i in range(len(out)):
        out[i] = first + i
