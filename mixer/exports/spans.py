"""Which pieces of documents fill a sequence, looked up for many sequences at once in any order.

The spans of a source are laid out once, as fixed-size records in a scratch file with a pointer a sequence, and read by
memory map: a training order asks for them at random, and a large source has more of them than fit in memory.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

_RECORD = np.dtype([("start", "<u4"), ("end", "<u4"), ("document", "<i8"), ("opens", "?"), ("goes_on", "?")])


@dataclass(frozen=True, slots=True)
class Pieces:
    """What fills some sequences: pieces of documents, and padding as pieces of its own; they leave no place out.

    Args:
        length: Tokens a piece, int64; they sum to sequences x sequence_length.
        sequence: Which of the sequences a piece lies in, counted from the first one asked for.
        document: Whose piece it is: the row of `documents/<source>/*.parquet`; -1 for padding.
        opens: Which pieces hold their document's first token.
        goes_on: Which pieces continue the piece before them: same document, next token.
    """

    length: np.ndarray
    sequence: np.ndarray
    document: np.ndarray
    opens: np.ndarray
    goes_on: np.ndarray

    @property
    def padding(self) -> np.ndarray:
        """Which pieces are padding."""
        return self.document < 0


class Spans:
    """The spans of one source.

    Args:
        folder: The source's shards.
        index: Their index.
        scratch: The file to lay the records out in.
    """

    def __init__(self, folder: Path, index: dict[str, Any], scratch: Path) -> None:
        self.document_length = np.zeros(index["documents"], np.int64)
        """Tokens of each document that lie in sequences."""
        self.first = np.zeros(index["sequences"] + 1, np.int64)
        with scratch.open("wb") as out:
            self._lay_out(folder, index, out)
        np.cumsum(self.first, out=self.first)
        self._records = np.asarray(np.memmap(scratch, _RECORD, "r")) if self.first[-1] else np.empty(0, _RECORD)

    def _lay_out(self, folder: Path, index: dict[str, Any], out: Any) -> None:
        length = index["sequence_length"]
        before = (-2, -1, -1, 0)
        for shard in index["shards"]:
            spans = pl.read_parquet(folder / shard["spans"])
            sequence, document, start = (spans[c].to_numpy().astype(np.int64) for c in _COLUMNS)
            size, offset = (spans[c].to_numpy().astype(np.int64) for c in ("length", "offset"))
            place = sequence * length + offset
            np.add.at(self.document_length, document, size)
            self.first[1:] += np.bincount(sequence, minlength=index["sequences"])
            records = np.empty(len(spans), _RECORD)
            records["start"], records["end"], records["document"] = offset, offset + size, document
            records["opens"] = start == 0
            last = [
                np.r_[value, array[:-1]] for value, array in zip(before, (document, start, size, place), strict=True)
            ]
            records["goes_on"] = (document == last[0]) & (start == last[1] + last[2]) & (place == last[3] + last[2])
            records.tofile(out)
            before = (document[-1], start[-1], size[-1], place[-1])

    def of(self, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All spans of some sequences, in their order: which of the sequences, and the records."""
        low = self.first[sequences]
        count = self.first[sequences + 1] - low
        which = np.repeat(np.arange(len(sequences)), count)
        at = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
        return which, self._records[at]


_COLUMNS = ("sequence", "document", "document_start")


def pieces(which: np.ndarray, spans: np.ndarray, follows: np.ndarray, sequence_length: int) -> Pieces:
    """The pieces that fill sequences, from their spans.

    Args:
        which: The sequence of each span, in any order.
        spans: The records.
        follows: Which sequences come right after the one before them in their source.
        sequence_length: Tokens a sequence.
    """
    start, end = which * sequence_length + spans["start"], which * sequence_length + spans["end"]
    cuts = np.unique(np.concatenate([start, end, sequence_length * np.arange(len(follows) + 1)]))
    at = np.searchsorted(cuts, start)
    document = np.full(len(cuts) - 1, -1, np.int64)
    document[at] = spans["document"]
    opens, goes_on = np.zeros((2, len(cuts) - 1), bool)
    opens[at] = spans["opens"]
    goes_on[at] = spans["goes_on"] & ((spans["start"] > 0) | follows[which])
    return Pieces(np.diff(cuts), cuts[:-1] // sequence_length, document, opens, goes_on)
