"""Documents packed for the trainer's own objective, so that a guard measures in the loop what the loop computes."""

from collections.abc import Sequence

import numpy as np
import torch

from curricula.difficulty import Window, windows_of
from curricula.loader import batches_of
from curricula.objective import Objective
from curricula.parallel import World
from curricula.rows import FILLER, Batch, Row, row_by_row
from curricula.validation import evaluating, on_device

_NOBODY = -1


class Pieces:
    """Rows of framed documents, cut in the windows of `mixer retention` and packed side by side; see
    `curricula.rows.Rows`.

    Args:
        documents: Ids of each document behind its frame token.
        length: Tokens of a row.
    """

    def __init__(self, documents: Sequence[np.ndarray], length: int) -> None:
        self.names, self.sequence_length = ("retention",), length
        self.documents = len(documents)
        self.vocabulary = 1 + max(int(ids.max()) for ids in documents)
        windows = [
            window
            for number, ids in enumerate(documents)
            if len(ids) > 1
            for window in windows_of(number, len(ids), length, 1, is_last_filled=True)
        ]
        self._rows = [self._row(documents, part) for part in _packed(windows, length)]

    def _row(self, documents: Sequence[np.ndarray], part: Sequence[Window]) -> tuple[Row, np.ndarray]:
        ids, weights = np.zeros(self.sequence_length, np.int64), np.zeros(self.sequence_length, np.float32)
        owners = np.full(self.sequence_length, _NOBODY, np.int64)
        starts, at = [], 0
        for window in part:
            size = window.end - window.start
            ids[at : at + size] = documents[window.document][window.start : window.end]
            # A place's weight is that of the token it predicts: what only gives context is not predicted again.
            weights[at + window.first - window.start - 1 : at + size - 1] = 1.0
            owners[at : at + size] = window.document
            starts.append(at)
            at += size
        starts += [at] if at < self.sequence_length else []
        return Row(ids, np.array(starts, np.int64), weights, at), owners

    def row(self, source: int, sequence: int) -> Row:
        """The packed row."""
        return self._rows[sequence][0]

    def batch(self, picked: np.ndarray, numbers: np.ndarray) -> Batch:
        """Packed rows as one batch."""
        return row_by_row(self, picked, numbers)

    def topic(self, source: int, sequence: int) -> str | None:
        """Rows hold documents of several slices."""
        return None

    def count(self, source: int) -> int:
        """How many rows there are."""
        return len(self._rows)

    def owners(self, batch: Batch) -> np.ndarray:
        """(targets,) the document that each target of a batch belongs to."""
        rows = batch.rows[batch.places // self.sequence_length]
        assert not (rows == FILLER).any(), "a filling row has no targets"
        table = np.stack([owners for _, owners in self._rows])
        return np.asarray(table[rows, batch.places % self.sequence_length])


def _packed(windows: Sequence[Window], length: int) -> list[list[Window]]:
    """Windows in rows, longest first, each in the first row with room."""
    rows: list[list[Window]] = []
    room: list[int] = []
    for window in sorted(windows, key=lambda own: (own.start - own.end, own.document, own.start)):
        size = window.end - window.start
        place = next((number for number, free in enumerate(room) if free >= size), None)
        if place is None:
            place = len(rows)
            rows.append([])
            room.append(length)
        rows[place].append(window)
        room[place] -= size
    return rows


@torch.no_grad()
def bits_of(objective: Objective, pieces: Pieces, *, world: World, micro_batch: int) -> np.ndarray:
    """(documents,) bits that the model needs for each; every process gets all of it.

    Args:
        objective: The model with its loss; goes on training afterwards.
        pieces: The documents.
        world: The processes, which share the work.
        micro_batch: Rows at once.
    """
    picked = np.stack([np.zeros(pieces.count(0), np.int64), np.arange(pieces.count(0))], axis=1)
    found = np.zeros(pieces.documents)
    with evaluating(objective):
        for batch in batches_of(pieces, picked, rank=world.rank, size=world.size, micro_batch=micro_batch):
            _, nats = objective(on_device(batch, world.device))
            found += np.bincount(pieces.owners(batch), nats.double().cpu().numpy(), pieces.documents)
    return np.asarray(world.sum(found) / np.log(2))
