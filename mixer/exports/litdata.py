"""litdata's chunks for its `TokensLoader`: an item is one sequence, a chunk holds whole sequences.

`TokensLoader(block_size=sequence_length)` cuts a chunk into windows whatever its items are, and drops what is left at
its end: nothing, here. Documents end at the end-of-text token alone.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mixer.exports.folder import Folder
from mixer.exports.rows import Rows
from mixer.exports.target import Told, agree, checked, parts
from mixer.recipe.exports import Export
from mixer.run import digest

FILE_BYTES = 1 << 26
CODES = {"<u2": "no_header_tensor:20", "<i4": "no_header_tensor:15"}
"""torch has no uint32 to speak of: wider vocabularies are int32."""
_SPEC = '[1, {"type": null, "context": null, "children_spec": []}]'
"""How litdata writes down that an item is one tensor."""
staged = False


def dtype(vocab_size: int) -> np.dtype:
    """uint16 where every id fits, else int32."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<i4")


def write(rows: Rows, folder: Folder, name: str, export: Export) -> None:
    """Write `NAME/chunk-0-0.bin` and so on, and `NAME/index.json`."""
    ids = checked(dtype(rows.facts.vocab_size), rows.facts)
    length = rows.facts.sequence_length
    limit = export.file_bytes or FILE_BYTES
    chunks = []
    for number, part in parts(rows, (limit - 8) // (length * ids.itemsize + 4)):
        file = f"chunk-0-{number}.bin"
        head = _head(len(part), length * ids.itemsize)
        if f"{name}/{file}" not in folder:
            with folder.file(f"{name}/{file}") as out:
                out.write(head)
                for block in part.tokens():
                    out.write(block.astype(ids, copy=False))
        size = len(head) + len(part) * length * ids.itemsize
        chunks.append({"chunk_bytes": size, "chunk_size": len(part), "dim": len(part) * length, "filename": file})
    # Readers keep a copy under this stamp: it must change with the content, and with nothing else.
    stamp = digest([folder.files[f"{name}/{chunk['filename']}"]["xxh3_128"] for chunk in chunks])
    index = {"chunks": chunks, "config": _config(ids, limit), "updated_at": stamp}
    folder.text(f"{name}/index.json", json.dumps(index, sort_keys=True))


def _head(items: int, size: int) -> bytes:
    """Count, then the offset of every item and of the end."""
    return struct.pack("<I", items) + (4 + 4 * (items + 1) + size * np.arange(items + 1)).astype("<u4").tobytes()


def _config(ids: np.dtype, limit: int) -> dict[str, object]:
    return {
        "chunk_bytes": limit,
        "chunk_size": None,
        "compression": None,
        "data_format": [CODES[ids.str]],
        "data_spec": _SPEC,
        "encryption": None,
        "item_loader": "TokensLoader",
    }


def read(folder: Path, name: str, told: Told) -> Iterator[np.ndarray]:
    """Yield the windows of `sequence_length` ids of every chunk, as `TokensLoader` cuts them."""
    index = json.loads((folder / name / "index.json").read_text("utf-8"))
    ids = np.dtype(next(kind for kind, code in CODES.items() if [code] == index["config"]["data_format"]))
    for chunk in index["chunks"]:
        path = folder / name / chunk["filename"]
        agree(path, "bytes", path.stat().st_size, chunk["chunk_bytes"])
        at = 4 * (2 + chunk["chunk_size"])
        windows = chunk["dim"] // told["sequence_length"]
        yield np.memmap(path, ids, "r", offset=at, shape=(windows, told["sequence_length"]))


def documents(folder: Path, name: str, told: Told) -> Iterator[np.ndarray] | None:
    """None: items only size a chunk, documents end at the end-of-text token alone."""
    del folder, name, told
    return None
