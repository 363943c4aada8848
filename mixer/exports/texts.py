"""The documents of a source as lines of JSON, by number.

They are laid out once in a scratch file and copied from there: a training order asks for them at random, and they do
not fit in memory.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq

_BATCH_ROWS = 1000
_NEWLINE = orjson.OPT_APPEND_NEWLINE


class Texts:
    """The documents of one source as lines of JSON, by row number.

    Args:
        tables: `documents/<source>/*.parquet`, in order.
        scratch: The file to lay them out in.
    """

    def __init__(self, tables: Sequence[Path], scratch: Path) -> None:
        sizes = []
        with scratch.open("wb") as out:
            for table in tables:
                with pq.ParquetFile(table) as file:
                    for batch in file.iter_batches(_BATCH_ROWS, columns=["id", "text", "source"]):
                        sizes += [out.write(orjson.dumps(row, option=_NEWLINE)) for row in batch.to_pylist()]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._lines = np.memmap(scratch, np.uint8, "r") if sizes else np.empty(0, np.uint8)

    def line(self, document: int) -> np.ndarray:
        """One document: id, text and source as a line of JSON, in bytes."""
        return self._lines[self._ends[document - 1] if document else 0 : self._ends[document]]
