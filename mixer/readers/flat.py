"""Flat files of token ids, and where the file beside them says that documents end.

Megatron-LM's `.bin` with `.idx`, datatrove's `.ds` with `.index`, OLMo-core's `.npy` with `.csv.gz`, or any file of ids
whose documents end at a token. Places are tokens from the start of the file, and come in blocks: neither the ids nor
their index is ever held whole.
"""

import gzip
import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from mixer.readers.streams import DamagedError

MAGIC = b"MMIDIDX\x00\x00"
CODES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
"""Megatron's codes for whole numbers; 6 and 7 are floats."""
_HEAD = struct.Struct("<9sQBQQ")
_NUMPY = b"\x93NUMPY"
_CSV_LINES = 1 << 16

Places = Iterator[tuple[np.ndarray, np.ndarray]]
"""Blocks of documents: where each starts, and the token after its last."""
Index = tuple[np.dtype, np.ndarray, np.ndarray, np.ndarray]


def mapped(path: Path, dtype: np.dtype, offset: int = 0) -> np.ndarray:
    """A file's numbers from a byte on, by memory map."""
    if path.stat().st_size <= offset:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r", offset=offset))


def blocks(ids: np.ndarray, step: int = 1 << 22) -> Iterator[np.ndarray]:
    """An array in pieces, so that no more of it is held than needed."""
    for first in range(0, len(ids), step):
        yield ids[first : first + step]


def ids_of(path: Path, dtype: np.dtype) -> np.ndarray:
    """All ids of a file without a header, or of an `.npy` that numpy saved, whose header says what it holds.

    Raises:
        DamagedError: Its size is no multiple of an id's, or its header names another dtype, or no flat whole numbers.
    """
    with path.open("rb") as file:
        if file.read(len(_NUMPY)) == _NUMPY:
            return _saved(path, dtype)
    if path.stat().st_size % dtype.itemsize:
        raise DamagedError(f"{path.stat().st_size:,} bytes are no whole number of {dtype.name} ids")
    return mapped(path, dtype)


def _saved(path: Path, dtype: np.dtype) -> np.ndarray:
    try:
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        # numpy reads the header as Python: a damaged one raises whatever its tokenizer and parser do.
        raise DamagedError(f"bad numpy header: {error}") from error
    if ids.ndim != 1 or ids.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise DamagedError(f"numpy's header says {ids.dtype.name} of {ids.ndim} dimensions, expected {dtype.name} of 1")
    return np.asarray(ids)


def read_index(path: Path) -> Index:
    """What an `.idx` says: dtype of the ids, lengths, byte offsets, first sequence of each document and of none.

    Raises:
        DamagedError: It is no such index, of another version or dtype, or cut.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or not head.startswith(MAGIC):
        raise DamagedError(f"{path.name} does not begin with {MAGIC[:7].decode()}")
    _, version, code, sequences, documents = _HEAD.unpack(head)
    if version != 1 or code not in CODES:
        raise DamagedError(f"{path.name} is of version {version} and dtype {code}, expected 1 and whole numbers")
    sizes = (_HEAD.size, 4 * sequences, 8 * sequences, 8 * documents)
    ends = [sum(sizes[: i + 1]) for i in range(4)]
    if path.stat().st_size != ends[-1]:
        raise DamagedError(f"{path.name} has {path.stat().st_size:,} bytes, expected {ends[-1]:,}")
    lengths = mapped(path, np.dtype("<i4"), ends[0])[:sequences]
    offsets = mapped(path, np.dtype("<i8"), ends[1])[:sequences]
    return np.dtype(CODES[code]), lengths, offsets, mapped(path, np.dtype("<i8"), ends[2])


def index_places(index: Index) -> Places:
    """Yield the documents of an `.idx`, which may be several sequences each.

    Raises:
        DamagedError: Its numbers contradict one another.
    """
    dtype, lengths, offsets, starts = index
    for first in range(0, len(starts) - 1, 1 << 20):
        edges = np.asarray(starts[first : first + (1 << 20) + 1])
        if edges[0] < 0 or edges[-1] > len(lengths) or (np.diff(edges) < 0).any():
            raise DamagedError("the index's documents are not in order")
        its = slice(int(edges[0]), int(edges[-1]))
        ends = offsets[its] // dtype.itemsize + lengths[its]
        begins = np.r_[offsets[its] // dtype.itemsize, ends[-1:] if len(ends) else 0]
        if (offsets[its] % dtype.itemsize).any() or (begins[1:] != ends).any() or (lengths[its] < 0).any():
            raise DamagedError("the index's sequences do not follow one another")
        yield begins[edges[:-1] - edges[0]], begins[edges[1:] - edges[0]]


def metadata_of(path: Path) -> tuple[str, int | None]:
    """The tokenizer that a `.ds.metadata` names, and the bytes of an id, where it says so.

    Raises:
        DamagedError: It says neither 2 nor 4.
    """
    line = path.read_text("utf-8", "replace").partition("\n")[0]
    name, bar, size = line.rpartition("|")
    if not bar:
        return line, None
    if size not in ("2", "4"):
        raise DamagedError(f"{path.name} says {size!r} bytes an id, expected 2 or 4")
    return name, int(size)


def ends_places(path: Path) -> Places:
    """Yield the documents of a `.ds.index`: where each ends.

    Raises:
        DamagedError: It is cut.
    """
    if path.stat().st_size % 8:
        raise DamagedError(f"{path.name} has {path.stat().st_size:,} bytes, expected 8 a document")
    before = 0
    for part in blocks(mapped(path, np.dtype("<u8"))):
        ends = part.astype(np.int64)
        yield np.r_[before, ends[:-1]], ends
        before = int(ends[-1])


def offsets_places(path: Path) -> Places:
    """Yield the documents of a `document_offsets.npy`: where each starts, and the end of the last.

    Raises:
        DamagedError: It is no such array.
    """
    offsets = _saved(path, np.dtype("<i8"))
    for first in range(0, len(offsets) - 1, 1 << 22):
        edges = offsets[first : first + (1 << 22) + 1]
        yield edges[:-1], edges[1:]


def csv_places(path: Path) -> Places:
    """Yield the documents of a `.csv.gz`: `start,end` a line, and more that is not looked at.

    Raises:
        DamagedError: A line is none of that kind.
    """
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as lines:
        while part := list(islice(lines, _CSV_LINES)):
            try:
                found = np.array([line.rstrip("\r\n").split(",")[:2] for line in part], np.int64)
            except ValueError as error:
                raise DamagedError(f"{path.name}: {error}") from error
            yield found[:, 0], found[:, 1]


def eos_places(ids: np.ndarray, eos: int) -> Places:
    """Yield the documents that end at a token, which is their last; what follows the last one is a document too."""
    start, first = 0, 0
    for part in blocks(ids):
        ends = first + 1 + np.flatnonzero(part == eos)
        first += len(part)
        if len(ends):
            yield np.r_[start, ends[:-1]], ends
            start = int(ends[-1])
    if start < len(ids):
        yield np.array([start]), np.array([len(ids)])
