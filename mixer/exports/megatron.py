"""Megatron-LM's `.bin/.idx`, as `IndexedDataset` reads it and `GPTDataset` cuts it.

`GPTDataset` shuffles the entries of the index, cuts the stream into windows of sequence_length (and the next token),
and shuffles the windows; neither can be turned off. Premixed, an entry is one of our sequences, so that every window is
one, and the entries are laid out so that the two shuffles by `shuffle_seed` end in the training order; a last entry of
padding lends the last window its next token. Blended, an entry is a document, as Megatron's own tools write it.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mixer.exports.folder import Folder, Output
from mixer.exports.rows import Rows
from mixer.exports.target import Told, agree, checked, document_lengths, flat, without_padding
from mixer.readers.flat import CODES, MAGIC, blocks, mapped, read_index
from mixer.recipe.exports import Export

staged = False


def dtype(vocab_size: int) -> np.dtype:
    """uint16 below 65,500 ids, else int32: the rule of Megatron's `preprocess_data`; it knows no uint32."""
    return np.dtype("<u2" if vocab_size < 65_500 else "<i4")


def place(rows: int, seed: int | None) -> np.ndarray:
    """Which row each entry holds so that Megatron, shuffling by `seed`, meets the rows in order; `rows` is padding.

    Args:
        rows: How many there are, padding not counted.
        seed: Megatron's `--seed`; None leaves the rows in order.

    Returns:
        (rows + 1,) int64.

    Source: `GPTDataset._build_document_sample_shuffle_indices`, megatron-core 0.16.1, one epoch.
    """
    if seed is None:
        return np.arange(rows + 1)
    entries, windows = _shuffles(rows, seed)
    order = np.empty(rows + 1, np.int64)
    order[entries[windows]] = np.arange(rows)
    order[entries[-1]] = rows
    return order


def _shuffles(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Megatron's document index of rows + 1 entries, and its shuffle index of rows windows."""
    random = np.random.RandomState(seed)
    entries, windows = np.arange(rows + 1, dtype=np.int32), np.arange(rows, dtype=np.uint32)
    random.shuffle(entries)
    random.shuffle(windows)
    return entries, windows


def write(rows: Rows, folder: Folder, name: str, export: Export) -> None:
    """Write `NAME.bin` and `NAME.idx`."""
    ids = checked(dtype(rows.facts.vocab_size), rows.facts)
    if export.mode == "premixed":
        placed = rows.ordered(place(len(rows), export.shuffle_seed))
        flat(folder, f"{name}.bin", placed, ids)
        lengths = np.broadcast_to(np.int32(rows.facts.sequence_length), len(placed))
        if f"{name}.idx" not in folder:
            with folder.file(f"{name}.idx") as out:
                write_index(out, lengths, ids)
    elif f"{name}.idx" not in folder:
        _write_documents(rows, folder, name, ids)


def _write_documents(rows: Rows, folder: Folder, name: str, ids: np.dtype) -> None:
    """An entry a document; padding is left out, and a document cut by the end of a sequence is whole again."""
    with folder.file(f"{name}.bin") as out:
        for block in without_padding(rows):
            out.write(block.astype(ids))
    held = rows.shards.scratch / "lengths"
    with held.open("wb") as file:
        for lengths in document_lengths(rows, merge=True, padding=False):
            lengths.astype("<i4").tofile(file)
    with folder.file(f"{name}.idx") as out:
        write_index(out, mapped(held, np.dtype("<i4")), ids)


def write_index(out: Output, lengths: np.ndarray, ids: np.dtype) -> None:
    """Write an `.idx`: one sequence a document, `lengths` tokens each, of ids of a dtype."""
    code = next(code for code, known in CODES.items() if np.dtype(known) == ids)
    out.write(MAGIC + struct.pack("<QBQQ", 1, code, len(lengths), len(lengths) + 1))
    for part in blocks(lengths):
        out.write(part.astype("<i4"))
    end = 0
    for part in blocks(lengths):
        ends = end + np.cumsum(part.astype(np.int64) * ids.itemsize)
        out.write(np.r_[end, ends[:-1]].astype("<i8"))
        end = int(ends[-1])
    for part in blocks(np.arange(len(lengths) + 1)):
        out.write(part.astype("<i8"))


def read(folder: Path, name: str, told: Told) -> Iterator[np.ndarray]:
    """Yield what `GPTDataset` gives out, window after window without the next token; blended, the documents."""
    ids, lengths, offsets, starts = read_index(folder / f"{name}.idx")
    agree(folder / f"{name}.idx", "entries of documents", int(starts[-1]), len(lengths))
    stream = mapped(folder / f"{name}.bin", ids)
    if told["mode"] == "blended":
        yield from blocks(stream)
        return
    length = told["sequence_length"]
    agree(folder / f"{name}.idx", "lengths", set(np.unique(lengths).tolist()), {length})
    agree(folder / f"{name}.bin", "ids", len(stream), len(lengths) * length)
    windows, rows = stream.reshape(-1, length), len(lengths) - 1
    seed = told["shuffle_seed"]
    entries, shuffle = (np.arange(rows + 1), np.arange(rows)) if seed is None else _shuffles(rows, seed)
    for part in blocks(entries[shuffle], 1 << 11):
        strays = int((offsets[part] != part.astype(np.int64) * length * ids.itemsize).sum())
        agree(folder / f"{name}.idx", "entries out of place", strays, 0)
        yield windows[part]


def documents(folder: Path, name: str, told: Told) -> Iterator[np.ndarray] | None:
    """Yield the entries' lengths of a blended export; premixed, documents end at the end-of-text token alone."""
    if told["mode"] == "premixed":
        return None
    return blocks(read_index(folder / f"{name}.idx")[1])
