"""MosaicML streaming's MDS: a sample is one sequence, column `tokens`, of fixed size; shards of bounded size.

Documents end at the end-of-text token inside the row; llm-foundry finds them by `eos_token_id`.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mixer.exports.folder import Folder
from mixer.exports.rows import Rows
from mixer.exports.target import Told, agree, checked, parts, small_dtype
from mixer.recipe.exports import Export

FILE_BYTES = 1 << 26
"""The reference writer's own limit."""
staged = False
dtype = small_dtype


def config(ids: np.dtype, sequence_length: int, size_limit: int) -> dict[str, Any]:
    """What a shard says of itself."""
    return {
        "column_encodings": [f"ndarray:{ids.name}:{sequence_length}"],
        "column_names": ["tokens"],
        "column_sizes": [sequence_length * ids.itemsize],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": size_limit,
        "version": 2,
    }


def write(rows: Rows, folder: Folder, name: str, export: Export) -> None:
    """Write `NAME/shard.00000.mds` and so on, and `NAME/index.json`."""
    ids, limit = checked(dtype(rows.facts.vocab_size), rows.facts), export.file_bytes or FILE_BYTES
    about = config(ids, rows.facts.sequence_length, limit)
    text = json.dumps(about, sort_keys=True).encode()
    size = rows.facts.sequence_length * ids.itemsize
    # The reference writer starts a shard when sample and offset would pass the limit; its header counts one offset.
    room = (limit - 8 - len(text)) // (size + 4)
    shards = []
    for number, part in parts(rows, room):
        file = f"shard.{number:05d}.mds"
        head = _head(len(part), size, text)
        if f"{name}/{file}" not in folder:
            with folder.file(f"{name}/{file}") as out:
                out.write(head)
                for block in part.tokens():
                    out.write(block.astype(ids, copy=False))
        raw = {"basename": file, "bytes": len(head) + len(part) * size, "hashes": {}}
        shards.append(about | {"raw_data": raw, "samples": len(part), "zip_data": None})
    folder.text(f"{name}/index.json", json.dumps({"shards": shards, "version": 2}, sort_keys=True))


def _head(samples: int, size: int, text: bytes) -> bytes:
    """Count, the offset of every sample and of the end, configuration."""
    first = 4 + 4 * (samples + 1) + len(text)
    return struct.pack("<I", samples) + (first + size * np.arange(samples + 1)).astype("<u4").tobytes() + text


def read(folder: Path, name: str, told: Told) -> Iterator[np.ndarray]:
    """Yield the rows of every shard that `index.json` names."""
    del told
    for shard in json.loads((folder / name / "index.json").read_text("utf-8"))["shards"]:
        path = folder / name / shard["raw_data"]["basename"]
        agree(path, "bytes", path.stat().st_size, shard["raw_data"]["bytes"])
        with path.open("rb") as file:
            (samples,) = struct.unpack("<I", file.read(4))
            offsets = np.frombuffer(file.read(4 * (samples + 1)), "<u4")
        agree(path, "samples", samples, shard["samples"])
        _, kind, length = shard["column_encodings"][0].split(":")
        shape = (samples, int(length))
        sizes = set(np.diff(offsets.astype(np.int64)).tolist())
        agree(path, "bytes of samples", sizes, {shape[1] * np.dtype(kind).itemsize})
        yield np.memmap(path, np.dtype(kind), "r", offset=int(offsets[0]), shape=shape)


def documents(folder: Path, name: str, told: Told) -> Iterator[np.ndarray] | None:
    """None: documents end at the end-of-text token alone."""
    del folder, name, told
    return None
