"""How near a document lies to descriptions of labels: to each as a whole, and to the nearest of its phrases."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from curricula.scores.linear import read_arrays
from mixer.run import digest


@dataclass(frozen=True, eq=False, slots=True)
class Phrases:
    """The phrases of all labels' descriptions.

    Attributes:
        vectors: (phrases, dimensions) float32, each of length one, those of a label together.
        starts: (labels,) the first row of each label.
    """

    vectors: np.ndarray
    starts: np.ndarray

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        """(rows, labels): the cosine of each row with the phrase of each label that lies nearest to it."""
        return np.asarray(np.maximum.reduceat(rows @ self.vectors.T, self.starts, axis=1))

    @property
    def fingerprint(self) -> str:
        """A hash of every vector, and of which label it belongs to."""
        return digest([xxhash.xxh3_128_hexdigest(self.vectors.tobytes()), self.starts.tolist()])

    def save(self, path: Path) -> None:
        """Write one .npz; equal phrases give equal bytes."""
        with path.open("wb") as file:
            np.savez(file, vectors=self.vectors, starts=self.starts)


def load(path: Path) -> Phrases:
    """What `Phrases.save` wrote.

    Raises:
        SourceError: Not there, or damaged.
    """
    found = read_arrays(path, ("vectors", "starts"))
    return Phrases(found["vectors"], found["starts"])


def pooled(rows: np.ndarray, counts: Sequence[int], phrases: Phrases | None = None) -> np.ndarray:
    """(documents, dimensions) float32 unit vectors: the mean direction of each document's windows.

    With phrases a column a label follows: the mean over the windows of the cosine with the nearest of its phrases.

    Args:
        rows: The embedded windows of all documents, in order.
        counts: How many windows each document has.
        phrases: Those of the descriptions.
    """
    number = np.array(counts, np.int64)
    starts = np.cumsum(number) - number
    found = [unit(np.add.reduceat(rows, starts, axis=0))]
    if phrases is not None:
        found.append(np.add.reduceat(phrases.nearest(rows), starts, axis=0) / number[:, None])
    return np.asarray(np.concatenate(found, axis=1), np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one; what points nowhere, as opposite directions in sum do, stays as it is."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.finfo(np.float32).tiny))
