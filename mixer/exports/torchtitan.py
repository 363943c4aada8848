"""torchtitan's memory-mapped pair: `tokens.bin` (uint32) and `document_offsets.npy`, one more offset than documents.

The rows stand one after the other, so a source over them can serve fixed rows of sequence_length and start positions
anew at every offset; the configuration beside the files has that source.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mixer.exports.folder import Folder
from mixer.exports.rows import Rows
from mixer.exports.target import Told, agree, checked, document_lengths, flat
from mixer.readers.flat import blocks, mapped
from mixer.recipe.exports import Export

staged = False


def dtype(vocab_size: int) -> np.dtype:
    """uint32: what torchtitan's example reads."""
    del vocab_size
    return np.dtype("<u4")


def write(rows: Rows, folder: Folder, name: str, export: Export) -> None:
    """Write `NAME/tokens.bin` and `NAME/document_offsets.npy`."""
    flat(folder, f"{name}/tokens.bin", rows, checked(dtype(rows.facts.vocab_size), rows.facts))
    if f"{name}/document_offsets.npy" in folder:
        return
    held = rows.shards.scratch / "lengths"
    with held.open("wb") as file:
        for lengths in document_lengths(rows, merge=export.mode == "blended"):
            lengths.tofile(file)
    found = mapped(held, np.dtype(np.int64))
    with folder.file(f"{name}/document_offsets.npy") as out:
        header = {"descr": "<i8", "fortran_order": False, "shape": (len(found) + 1,)}
        np.lib.format.write_array_header_1_0(out, header)  # type: ignore[no-untyped-call]
        out.write(np.zeros(1, "<i8"))
        end = 0
        for part in blocks(found):
            ends = end + np.cumsum(part)
            out.write(ends.astype("<i8"))
            end = int(ends[-1])


def read(folder: Path, name: str, told: Told) -> Iterator[np.ndarray]:
    """Yield the rows."""
    ids = mapped(folder / name / "tokens.bin", np.dtype("<u4"))
    yield from blocks(ids.reshape(-1, told["sequence_length"]), 1 << 11)


def documents(folder: Path, name: str, told: Told) -> Iterator[np.ndarray] | None:
    """Yield the documents' lengths from the offsets."""
    del told
    offsets = np.load(folder / name / "document_offsets.npy", mmap_mode="r")
    agree(folder / name / "document_offsets.npy", "first offset", int(offsets[0]), 0)
    return (np.diff(offsets[first : first + (1 << 22) + 1]) for first in range(0, len(offsets) - 1, 1 << 22))
