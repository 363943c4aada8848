"""Lines of JSON for trainers that tokenize by themselves (LLaMA-Factory, Axolotl, torchtitan): a document a line.

No token frames the text: these trainers add their own end of text, and a second one must not be there.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mixer.exports.folder import Folder
from mixer.exports.rows import Rows
from mixer.exports.target import Told, lines
from mixer.recipe.exports import Export

FILE_BYTES = 1 << 30
staged = True


def dtype(vocab_size: int) -> np.dtype:
    """Bytes: there are no ids."""
    del vocab_size
    return np.dtype(np.uint8)


def write(rows: Rows, folder: Folder, name: str, export: Export) -> None:
    """Write `NAME-00000.jsonl` and so on, a blended source as one; a file ends after the line that fills it."""
    # Where a file ends is known only when it is reached: an attempt that was killed begins the set again.
    limit = export.file_bytes or (FILE_BYTES if export.mode == "premixed" else sys.maxsize)
    source = lines(rows)
    number, block = 0, next(source, b"")
    while block or not number:
        with folder.file(f"{name}-{number:05d}.jsonl") as out:
            while block and out.bytes < limit:
                cut = block.find(b"\n", max(0, limit - out.bytes - 1)) + 1 or len(block)
                out.write(block[:cut])
                block = block[cut:] or next(source, b"")
        number += 1


def texts(folder: Path, name: str, told: Told) -> Iterator[tuple[str, str, str]]:
    """Yield id, text and source of every line, in order."""
    del told
    for path in sorted(path for path in folder.glob("*.jsonl") if path.stem.rpartition("-")[0] == name):
        with path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                yield row["id"], row["text"], row["source"]


def read(folder: Path, name: str, told: Told) -> Iterator[np.ndarray]:
    """Yield nothing: there are no ids."""
    del folder, name, told
    return iter(())


def documents(folder: Path, name: str, told: Told) -> Iterator[np.ndarray] | None:
    """None: a document is a line."""
    del folder, name, told
    return None
