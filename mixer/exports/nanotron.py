"""datatrove's `.ds` with `.index` and `.metadata`, as nanotron reads it: a folder a stage, one file in it.

`DatatroveFolderDataset(seq_len)` cuts windows of seq_len + 1 ids that do not overlap, so nanotron's sequence length is
ours less one. Its Nanoset shuffles the windows of a stage by a seed and cannot be told not to: premixed, the rows are
laid out so that the shuffle by `shuffle_seed` ends in the training order.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mixer.exports.folder import Folder
from mixer.exports.rows import Rows
from mixer.exports.target import Told, checked, document_lengths, flat, small_dtype
from mixer.readers.flat import blocks, ends_places, mapped, metadata_of
from mixer.recipe.exports import Export

FILE = "00000_00000_shuffled.ds"
staged = True
dtype = small_dtype


def place(rows: int, seed: int | None) -> np.ndarray:
    """Which row each window holds so that nanotron, shuffling by `seed`, meets the rows in order; (rows,) int64.

    Source: `Nanoset.build_nanoset_index`, nanotron 2025.
    """
    order = np.empty(rows, np.int64)
    order[_shuffle(rows, seed)] = np.arange(rows)
    return order


def _shuffle(rows: int, seed: int | None) -> np.ndarray:
    windows = np.arange(rows)
    if seed is not None:
        np.random.RandomState(seed).shuffle(windows)
    return windows


def write(rows: Rows, folder: Folder, name: str, export: Export) -> None:
    """Write `NAME/00000_00000_shuffled.ds`, `.index` and `.metadata`."""
    ids = checked(dtype(rows.facts.vocab_size), rows.facts)
    blended = export.mode == "blended"
    placed = rows if blended else rows.ordered(place(len(rows), export.shuffle_seed))
    flat(folder, f"{name}/{FILE}", placed, ids)
    if f"{name}/{FILE}.index" not in folder:
        with folder.file(f"{name}/{FILE}.index") as out:
            end = 0
            for lengths in document_lengths(placed, merge=blended):
                ends = end + np.cumsum(lengths)
                out.write(ends.astype("<u8"))
                end = int(ends[-1]) if len(ends) else end
    count = len(rows) * rows.facts.sequence_length
    folder.text(f"{name}/{FILE}.metadata", metadata(rows.shards.tokenizer, ids.itemsize, count))


def metadata(tokenizer: str, token_bytes: int, count: int) -> str:
    """The three lines of `.metadata`, without a newline at the end."""
    return f"{tokenizer}|{token_bytes}\n{count}\n{metric(count)}"


def metric(count: int) -> str:
    """A token count as the reference writer's `humanize.metric(count, unit="T")` puts it.

    Example:
        >>> metric(40_100), metric(7), metric(1_234_567)
        ('40.1 kT', '7.00 T', '1.23 MT')
    """
    power = max(0, len(str(count)) - 1)
    shown = f"{count / 10 ** (power - power % 3):.{2 - power % 3}f}"
    if len(shown.replace(".", "")) > 3:  # 9.999 rounds to a digit more
        power += 1
        shown = f"{count / 10 ** (power - power % 3):.{2 - power % 3}f}"
    return f"{shown} {_PREFIXES[power // 3]}T"


_PREFIXES = ("", *"kMGTPE")


def read(folder: Path, name: str, told: Told) -> Iterator[np.ndarray]:
    """Yield the windows of a stage in the order in which Nanoset gives them out; blended, in that of the file."""
    path = folder / name / FILE
    _, size = metadata_of(path.with_name(f"{FILE}.metadata"))
    ids = mapped(path, np.dtype(f"<u{size}"))
    length = told["sequence_length"]
    windows = ids[: len(ids) // length * length].reshape(-1, length)
    for part in blocks(_shuffle(len(windows), None if told["mode"] == "blended" else told["shuffle_seed"]), 1 << 11):
        yield windows[part]


def documents(folder: Path, name: str, told: Told) -> Iterator[np.ndarray] | None:
    """Yield the documents' lengths from `.index`, in the order of the file."""
    del told
    return (ends - starts for starts, ends in ends_places(folder / name / f"{FILE}.index"))
