"""Packed sequences as training reads them: ids, where documents begin, and which tokens are predicted.

The seam rule. Inside a document every token is predicted from those before it, its EOS too. The first token of a
document, or of the part of one that a sequence begins with, is predicted by nothing: not across the seam, whether or
not documents see each other. Padding is outside every document and is neither read by one nor predicted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numba
import numpy as np
import polars as pl

from mixer.errors import ShardError
from mixer.run import digest, staged
from mixer.shard import Sequences, index_of


@dataclass(frozen=True, slots=True)
class Row:
    """One packed sequence.

    Args:
        ids: (length,) int64.
        starts: Where documents begin; the first is 0, and padding counts as one more.
        weights: (length,) float32; of place t, how much the prediction of the token at t + 1 counts.
        tokens: Tokens that are not padding.
    """

    ids: np.ndarray
    starts: np.ndarray
    weights: np.ndarray
    tokens: int


class Rows(Protocol):
    """Where rows come from, by source and number."""

    @property
    def names(self) -> Sequence[str]:
        """The sources."""
        ...

    @property
    def sequence_length(self) -> int:
        """Tokens of each row."""
        ...

    @property
    def vocabulary(self) -> int:
        """One more than the largest id there may be."""
        ...

    def row(self, source: int, sequence: int) -> Row:
        """The packed sequence."""
        ...

    def topic(self, source: int, sequence: int) -> str | None:
        """What it is about, where that is known."""
        ...

    def count(self, source: int) -> int:
        """How many sequences the source has."""
        ...


def weights_of(length: int, offsets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """1.0 where the next token belongs to the same document, else 0.0; (length,) float32.

    Example:
        >>> weights_of(6, np.array([0, 3]), np.array([3, 2])).tolist()
        [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    """
    weights: np.ndarray = _weights(length, np.asarray(offsets, np.int64), np.asarray(lengths, np.int64))
    return weights


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _weights(length: int, offsets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    weights = np.zeros(length, np.float32)
    for span in range(len(offsets)):
        weights[offsets[span] : offsets[span] + lengths[span] - 1] = 1.0
    return weights


def starts_of(length: int, offsets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Where documents begin, and what lies between and after them, which nobody may see.

    Example:
        >>> starts_of(6, np.array([0, 3]), np.array([3, 2])).tolist()
        [0, 3, 5]
    """
    starts: np.ndarray = _starts(length, np.asarray(offsets, np.int64), np.asarray(lengths, np.int64))
    return starts


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _starts(length: int, offsets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    places = np.zeros(2 * len(offsets) + 1, np.int64)
    places[1::2], places[2::2] = offsets, offsets + lengths
    places.sort()
    count = 1
    for place in places[1:]:
        if places[count - 1] < place < length:
            places[count] = place
            count += 1
    return places[:count].copy()


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
