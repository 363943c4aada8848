"""From a position to the next batch: a pure function of one integer, the number of sequences trained on so far.

Nothing is drawn, buffered or read ahead, so a resume needs the position alone, and it is proved by the hash of the next
step. A step takes whole sequences, never past the end of a stage; each of several processes takes every n-th of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from curricula.rows import FILLER, Batch, Rows
from mixer.errors import ShardError
from mixer.ordering import digest_of

_CHECKED = 1 << 20


@dataclass(frozen=True, slots=True)
class Track:
    """The sequences of one stage.

    Args:
        name: The stage's.
        sequences: How many there are.
        order: Gives (sequences, 2) int32, source and sequence; None while it is not there yet.
        is_open: Whether what was trained on before decides its order: a later round, or sequences that come again.
    """

    name: str
    sequences: int
    order: Callable[[], np.ndarray | None]
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Sequences of one optimizer step: `first` to `first + count` of a stage; `position` counts those before it."""

    stage: int
    name: str
    first: int
    count: int
    position: int


def batches_of(rows: Rows, picked: np.ndarray, *, rank: int, size: int, micro_batch: int) -> Iterator[Batch]:
    """Yield what one of `size` processes computes of some sequences; as many batches for each of them.

    Args:
        rows: Where sequences come from.
        picked: (count, 2) source and sequence.
        rank: This process, which takes every `size`-th.
        size: How many processes there are.
        micro_batch: Rows of a batch.
    """
    most = -(-len(picked) // size)
    mine = np.full(most, FILLER)
    own = np.arange(rank, len(picked), size)
    mine[: len(own)] = own
    for first in range(0, most, micro_batch):
        numbers = mine[first : first + micro_batch]
        yield rows.batch(picked[numbers[numbers != FILLER]], numbers)


class Loader:
    """Steps and batches of a training.

    Args:
        rows: Where sequences come from.
        tracks: The stages, in their order.
        per_step: Sequences of a step; the last of a stage may have fewer.
    """

    def __init__(self, rows: Rows, tracks: Sequence[Track], *, per_step: int) -> None:
        self.rows, self.tracks, self.per_step = rows, tuple(tracks), per_step
        self._firsts = np.cumsum([0, *(track.sequences for track in tracks)])
        self._orders: dict[int, np.ndarray] = {}

    @property
    def sequences(self) -> int:
        """Sequences of all stages."""
        return int(self._firsts[-1])

    def step(self, position: int) -> Step | None:
        """The step that begins at a position; None at the end."""
        if position >= self.sequences:
            return None
        stage = int(np.searchsorted(self._firsts, position, side="right")) - 1
        count = min(self.per_step, int(self._firsts[stage + 1]) - position)
        return Step(stage, self.tracks[stage].name, position - int(self._firsts[stage]), count, position)

    def first(self, stage: int) -> int:
        """The position at which a stage begins."""
        return int(self._firsts[stage])

    def picked(self, step: Step, *, most: int | None = None) -> np.ndarray:
        """(count, 2) source and sequence of a step's rows, or of `most` rows of its stage from there on."""
        return np.asarray(self.order(step.stage)[step.first : step.first + (most or step.count)])

    def batches(self, step: Step, *, rank: int = 0, size: int = 1, micro_batch: int) -> Iterator[Batch]:
        """Yield what one of `size` processes computes in a step."""
        return batches_of(self.rows, self.picked(step), rank=rank, size=size, micro_batch=micro_batch)

    def digest(self, position: int) -> str:
        """A hash of all that the step at a position reads; equal on any number of processes.

        Empty at the end, and where the order of the stage that comes next is not there yet, or may be made anew.
        """
        step = self.step(position)
        if step is None or not self.has_order(step.stage) or (step.first == 0 and self.tracks[step.stage].is_open):
            return ""
        found = xxhash.xxh3_128()
        for source, sequence in self.picked(step).tolist():
            row = self.rows.row(source, sequence)
            found.update(np.array([step.stage, step.first, source, sequence], "<i8").tobytes())
            for part in (row.ids, row.starts, row.weights):
                found.update(np.ascontiguousarray(part).tobytes())
        return found.hexdigest()

    def fingerprint(self, stage: int) -> str:
        """A hash of a stage's whole order."""
        return digest_of(self.order(stage))

    def replace(self, stage: int, order: np.ndarray) -> None:
        """Read this order of a stage from now on, instead of the Run's.

        Raises:
            ShardError: It is of another length, or names sequences that are not there.
        """
        self._orders[stage] = self._checked(self.tracks[stage], order)

    def has_order(self, stage: int) -> bool:
        """Whether a stage's order is there."""
        return stage in self._orders or self.tracks[stage].order() is not None

    def order(self, stage: int) -> np.ndarray:
        """(sequences, 2) int32 source and sequence of each place of a stage.

        Raises:
            ShardError: It is not there yet, or is of another plan.
        """
        if stage not in self._orders:
            track = self.tracks[stage]
            order = track.order()
            if order is None:
                raise ShardError(
                    f"order/{track.name}.npy: no such file, expected the order of stage `{track.name}`",
                    hint="run mixer build, or mixer adapt where the stage is a later round",
                )
            self._orders[stage] = self._checked(track, order)
        return self._orders[stage]

    def _checked(self, track: Track, order: np.ndarray) -> np.ndarray:
        if order.shape != (track.sequences, 2):
            raise ShardError(
                f"order/{track.name}.npy: got {order.shape} rows and columns, expected ({track.sequences}, 2)",
                hint="the plan is another one; run mixer build again",
            )
        counts = np.array([self.rows.count(source) for source in range(len(self.rows.names))])
        for first in range(0, len(order), _CHECKED):
            source, sequence = np.asarray(order[first : first + _CHECKED]).T
            known = (source >= 0) & (source < len(counts))
            wrong = ~known | (sequence < 0) | (sequence >= counts[np.where(known, source, 0)])
            if wrong.any():
                place = int(wrong.argmax())
                raise ShardError(
                    f"order/{track.name}.npy: got source {source[place]}, sequence {sequence[place]:,},"
                    " expected one of the Run's shards",
                    hint="the shards are others; run mixer build again",
                )
        return order
