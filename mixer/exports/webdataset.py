"""WebDataset shards: a sample is one sequence, `KEY.npy` with its ids and `KEY.json` with where it comes from.

Tar as USTAR with fixed times and owners, so that equal samples are equal bytes. Documents: `lengths` in the JSON.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mixer.exports.folder import Folder, Output
from mixer.exports.rows import Rows
from mixer.exports.target import Told, checked, parts, small_dtype
from mixer.recipe.exports import Export

FILE_BYTES = 1 << 28
staged = True
dtype = small_dtype
_BLOCK = 512


def write(rows: Rows, folder: Folder, name: str, export: Export) -> None:
    """Write `NAME-000000.tar` and so on."""
    ids = checked(dtype(rows.facts.vocab_size), rows.facts)
    # Header, array, header, about a block of JSON; two empty blocks end a file.
    sample = 4 * _BLOCK + rows.facts.sequence_length * ids.itemsize
    first, room = 0, (export.file_bytes or FILE_BYTES) - 2 * _BLOCK
    for number, part in parts(rows, room // sample):
        if f"{name}-{number:06d}.tar" not in folder:
            with folder.file(f"{name}-{number:06d}.tar") as out:
                for key, (array, about) in enumerate(_samples(part, ids), start=first):
                    _member(out, f"{key:012d}.json", json.dumps(about).encode())
                    _member(out, f"{key:012d}.npy", _npy(array))
                out.write(bytes(2 * _BLOCK))
        first += len(part)


def _samples(rows: Rows, ids: np.dtype) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Each row's ids, and what the JSON says of it."""
    for pairs, tokens, found in zip(rows.pairs(), rows.tokens(), rows.pieces(), strict=True):
        cuts = np.searchsorted(found.sequence, np.arange(1, len(pairs)))
        lengths, padding = np.split(found.length, cuts), np.split(found.padding, cuts)
        for i, (source, sequence) in enumerate(pairs.tolist()):
            about = {"source": rows.shards.names[source], "sequence": sequence, "lengths": lengths[i].tolist()}
            if padding[i].any():
                about["padding"] = np.flatnonzero(padding[i]).tolist()
            yield tokens[i].astype(ids, copy=False), about


def _npy(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, array, allow_pickle=False)
    return held.getvalue()


def _member(out: Output, name: str, content: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(content)
    about.mode = 0o444
    out.write(about.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % _BLOCK))


def _members(folder: Path, name: str, ending: str) -> Iterator[bytes]:
    for path in sorted(path for path in folder.glob("*.tar") if path.stem.rpartition("-")[0] == name):
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and member.name.endswith(ending):
                    yield file.read()


def read(folder: Path, name: str, told: Told) -> Iterator[np.ndarray]:
    """Yield the rows."""
    del told
    for content in _members(folder, name, ".npy"):
        yield np.load(io.BytesIO(content), allow_pickle=False)


def documents(folder: Path, name: str, told: Told) -> Iterator[np.ndarray] | None:
    """Yield each row's lengths."""
    del told
    return (np.array(json.loads(content)["lengths"]) for content in _members(folder, name, ".json"))


def columns(folder: Path, name: str, told: Told) -> dict[str, Iterator[np.ndarray]]:
    """The source and the number of each row, and which of its lengths are of padding."""
    del told

    def about() -> Iterator[dict[str, Any]]:
        return map(json.loads, _members(folder, name, ".json"))

    return {
        "source": (np.array([each["source"]], object) for each in about()),
        "sequence": (np.array([each["sequence"]]) for each in about()),
        "padding": (np.isin(np.arange(len(each["lengths"])), each.get("padding", [])) for each in about()),
    }
