"""Packed sequences as training reads them: ids, where documents begin, and which tokens are predicted.

The seam rule. Inside a document every token is predicted from those before it, its EOS too. The first token of a
document, or of the part of one that a sequence begins with, is predicted by nothing: not across the seam, whether or
not documents see each other. Padding is outside every document and is neither read by one nor predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np

FILLER = -1
"""The number of a row that only fills a batch, so that every process has as many."""


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


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that one process computes at once.

    Args:
        ids: (rows, length) int64.
        positions: (rows, length) int64, beginning at 0 with each document.
        bounds: (documents + 1,) int32, where documents begin in the flattened ids, and the end.
        longest: Tokens of the longest document.
        places: (targets,) int64 places in the flattened ids that predict their next token.
        targets: (targets,) int64 those next tokens.
        weights: (targets,) float32, of each in the loss.
        rows: (rows,) int64 which row of the step each is; FILLER for none.
        tokens: (rows,) int64 tokens of each that are not padding.
    """

    ids: np.ndarray
    positions: np.ndarray
    bounds: np.ndarray
    longest: int
    places: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    rows: np.ndarray
    tokens: np.ndarray

    def by_row(self, nats: np.ndarray, count: int) -> np.ndarray:
        """(3, count) float64: of each row of the step the sum of losses, of weights, and its tokens; 0 for others.

        Args:
            nats: (targets,) losses.
            count: Rows of the step.
        """
        owner = self.rows[self.places // self.ids.shape[1]]
        real = self.rows != FILLER
        return np.stack(
            [
                np.bincount(owner, nats * self.weights, count),
                np.bincount(owner, self.weights, count),
                np.bincount(self.rows[real], self.tokens[real], count),
            ]
        )


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

    def batch(self, picked: np.ndarray, numbers: np.ndarray) -> Batch:
        """Packed sequences as one batch.

        Args:
            picked: (sequences, 2) source and number of each.
            numbers: (rows,) which row of the step each is, FILLER for those after the sequences.
        """
        ...

    def topic(self, source: int, sequence: int) -> str | None:
        """What it is about, where that is known."""
        ...

    def count(self, source: int) -> int:
        """How many sequences the source has."""
        ...


def batch_of(rows: Sequence[Row], numbers: Sequence[int] | np.ndarray) -> Batch:
    """Rows of equal length as one batch.

    Args:
        rows: At least one.
        numbers: Which row of the step each is; FILLER for none.
    """
    length = len(rows[0].ids)
    ids = np.stack([row.ids for row in rows])
    weights = np.stack([row.weights for row in rows])
    bounds = np.concatenate([*(row.starts + number * length for number, row in enumerate(rows)), [ids.size]])
    positions, places, targets, kept = _laid_out(ids.ravel(), weights.ravel(), bounds)
    return Batch(
        ids=ids,
        positions=positions.reshape(ids.shape),
        bounds=bounds.astype(np.int32),
        longest=int(np.diff(bounds).max()),
        places=places,
        targets=targets,
        weights=kept,
        rows=np.array(numbers, np.int64),
        tokens=np.array([row.tokens for row in rows], np.int64),
    )


def row_by_row(rows: Rows, picked: np.ndarray, numbers: np.ndarray) -> Batch:
    """What `Rows.batch` gives, put together from rows."""
    found = [rows.row(source, sequence) for source, sequence in picked.tolist()]
    return batch_of([*found, *[_filler(rows.sequence_length)] * (len(numbers) - len(found))], numbers)


def _filler(length: int) -> Row:
    return Row(np.zeros(length, np.int64), np.zeros(1, np.int64), np.zeros(length, np.float32), 0)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _laid_out(
    ids: np.ndarray, weights: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions of all tokens; places, targets and weights of those that predict: one pass, where numpy makes six."""
    positions = np.empty(len(ids), np.int64)
    for document in range(len(bounds) - 1):
        first = bounds[document]
        for i in range(first, bounds[document + 1]):
            positions[i] = i - first
    count = np.count_nonzero(weights)
    places, targets, kept = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.float32)
    n = 0
    for i in range(len(weights)):
        if weights[i] != 0:
            places[n], targets[n], kept[n] = i, ids[i + 1], weights[i]
            n += 1
    return positions, places, targets, kept


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
