"""Documents to sequences of fixed length: which piece of which document fills which place.

`concat_and_chunk` lays the documents end to end and cuts; only the last, incomplete sequence of a source is left
out. `best_fit` (Ding et al. 2024, arXiv 2404.10830) cuts only documents longer than a sequence and puts each piece
where it leaves the least room; what stays empty is padding, outside every span. Both are pure arithmetic on lengths.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Packing:
    """Spans, sorted by place; arrays of equal length, int64.

    Args:
        document: Which document (index into the lengths).
        document_start: First token of the span within its document.
        length: Tokens of the span.
        sequence: Which sequence it lies in.
        offset: First place within the sequence.
        sequences: How many sequences there are.
        left_out: Tokens in no sequence (the last, incomplete one of `concat_and_chunk`).
    """

    document: np.ndarray
    document_start: np.ndarray
    length: np.ndarray
    sequence: np.ndarray
    offset: np.ndarray
    sequences: int
    left_out: int


def join(packings: Sequence[Packing]) -> Packing:
    """Several packings as one; their documents and sequences are numbered through already."""
    columns = ("document", "document_start", "length", "sequence", "offset")
    joined = {
        name: np.concatenate([getattr(own, name) for own in packings] or [np.empty(0, np.int64)]) for name in columns
    }
    return Packing(
        **joined,
        sequences=sum(own.sequences for own in packings),
        left_out=sum(own.left_out for own in packings),
    )


def pack(lengths: np.ndarray, *, sequence_length: int, packing: str) -> Packing:
    """Pack documents, in the order given, by the named policy."""
    return {"concat_and_chunk": concat_and_chunk, "best_fit": best_fit}[packing](lengths, sequence_length)


def concat_and_chunk(lengths: np.ndarray, sequence_length: int) -> Packing:
    """Documents end to end, cut every `sequence_length` tokens.

    Example:
        >>> concat_and_chunk(np.array([3, 4, 2]), 4).length.tolist()
        [3, 1, 3, 1]
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    sequences = total // sequence_length
    used = sequences * sequence_length
    starts = np.union1d(ends - lengths, np.arange(0, used, sequence_length, dtype=np.int64))
    starts = starts[starts < used]
    # An empty document shares its start with the next one, which is the one that fills the place.
    document = np.searchsorted(ends, starts, side="right")
    return Packing(
        document=document,
        document_start=starts - (ends - lengths)[document],
        length=np.diff(starts, append=used),
        sequence=starts // sequence_length,
        offset=starts % sequence_length,
        sequences=sequences,
        left_out=total - used,
    )


def best_fit(lengths: np.ndarray, sequence_length: int) -> Packing:
    """Pieces of at most `sequence_length`, longest first, each into the fullest sequence that still holds it.

    Example:
        >>> best_fit(np.array([3, 4, 2, 1]), 4).sequence.tolist()
        [0, 1, 1, 2]
    """
    document, start, length = _split(np.asarray(lengths, np.int64), sequence_length)
    places = np.empty((len(length), 2), np.int64)
    open_by_room: list[list[int]] = [[] for _ in range(sequence_length + 1)]
    rooms = _Rooms()
    sequences = 0
    for piece in np.argsort(-length, kind="stable").tolist():
        size = int(length[piece])
        room = rooms.least_at_least(size)
        if room is None:
            sequence, room = sequences, sequence_length
            sequences += 1
        else:
            sequence = heapq.heappop(open_by_room[room])
            if not open_by_room[room]:
                rooms.remove(room)
        places[piece] = sequence, sequence_length - room
        if room > size:
            if not open_by_room[room - size]:
                rooms.add(room - size)
            heapq.heappush(open_by_room[room - size], sequence)
    by_place = np.lexsort((places[:, 1], places[:, 0]))
    sequence, offset = places[by_place].T
    return Packing(document[by_place], start[by_place], length[by_place], sequence, offset, sequences, 0)


def _split(lengths: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each document cut into full sequences and a rest: document, start and length of every piece."""
    pieces = -(-lengths // sequence_length)
    document = np.repeat(np.arange(len(lengths)), pieces)
    first = np.cumsum(pieces) - pieces
    start = (np.arange(len(document)) - first[document]) * sequence_length
    return document, start, np.minimum(sequence_length, lengths[document] - start)


class _Rooms:
    """The set of free room sizes that some sequence has, as one integer's bits: find-next is two operations."""

    def __init__(self) -> None:
        self._bits = 0

    def add(self, room: int) -> None:
        self._bits |= 1 << room

    def remove(self, room: int) -> None:
        self._bits &= ~(1 << room)

    def least_at_least(self, size: int) -> int | None:
        above = self._bits >> size
        return size + (above & -above).bit_length() - 1 if above else None
