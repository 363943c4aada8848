"""llm.c's and modded-nanogpt's shards: a header of 256 int32, then ids.

Their windows step by batch x length and look one id further, and the end-of-text token stands before a document. So
each file opens with one: in window k the targets are then our sequence k, whole, and nothing is doubled. A Run whose
documents open with BOS instead gets one after the last row, and its sequences are the inputs.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mixer.exports.folder import Folder
from mixer.exports.rows import Facts, Rows
from mixer.exports.target import Told, agree, checked, flat, parts, small_dtype
from mixer.readers.flat import blocks, mapped
from mixer.recipe.exports import Export

FILE_BYTES = 1 << 30
MAGIC = {2: (20240520, 1), 4: (20240801, 7)}
_HEADER = 256
_MOST_TOKENS = 2**31 - 1
staged = True
dtype = small_dtype


def write(rows: Rows, folder: Folder, name: str, export: Export) -> None:
    """Write `NAME_000000.bin` and so on."""
    ids = checked(dtype(rows.facts.vocab_size), rows.facts)
    length = rows.facts.sequence_length
    room = min(export.file_bytes or FILE_BYTES, _MOST_TOKENS * ids.itemsize) - 4 * _HEADER - ids.itemsize
    for number, part in parts(rows, room // (length * ids.itemsize)):
        head = np.zeros(_HEADER, "<i4")
        head[:3] = *MAGIC[ids.itemsize], len(part) * length + 1
        before, after = frame(rows.facts)
        flat(
            folder,
            f"{name}_{number:06d}.bin",
            part,
            ids,
            head=head.tobytes() + np.array(before, ids).tobytes(),
            tail=np.array(after, ids).tobytes(),
        )


def frame(facts: Facts) -> tuple[list[int], list[int]]:
    """The one id that a file has more than its rows: before the first, or after the last."""
    if facts.eos is not None or facts.bos is None:
        return [facts.padding], []
    return [], [facts.bos]


def read(folder: Path, name: str, told: Told) -> Iterator[np.ndarray]:
    """Yield our sequences: the targets of each window, or its inputs where the frame is at the end."""
    for path in sorted(path for path in folder.glob("*.bin") if path.stem.rpartition("_")[0] == name):
        head = np.fromfile(path, "<i4", _HEADER)
        magic = tuple(head[:2].tolist())
        agree(path, "magic number and version", magic, magic if magic in MAGIC.values() else MAGIC[2])
        size = next(size for size, known in MAGIC.items() if known == magic)
        ids = mapped(path, np.dtype(f"<u{size}"), 4 * _HEADER)
        agree(path, "ids", len(ids), int(head[2]))
        rows = ids[1:] if told["frame"] == "before" else ids[:-1]
        yield from blocks(rows.reshape(-1, told["sequence_length"]), 1 << 11)


def documents(folder: Path, name: str, told: Told) -> Iterator[np.ndarray] | None:
    """None: documents begin at the end-of-text token alone."""
    del folder, name, told
    return None
