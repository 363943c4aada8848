"""Shards: packed sequences of one source on disk, checked as they are written, read by memory map.

`shards/<source>/00000.bin` holds sequences back to back, little-endian, `sequence_length` ids each;
`00000.spans.parquet` says which piece of which document fills which place, `document` counting the rows of
`documents/<source>/*.parquet` in name order; `index.json` names both, with counts and hashes.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixer.errors import ShardError
from mixer.layout import Group
from mixer.pack import Packing, join, pack
from mixer.run import read_json, sha256, write_json
from mixer.tokens import Encoder
from mixer.types import Shard

VERSION = 2
"""Raise it when the same documents would be packed otherwise."""

_SHARD_TOKENS = 1 << 25
_BLOCK_TOKENS = 1 << 22
"""Filled, checked and written at once; decides how much memory packing takes."""
_OPEN_FILES = 256


class TokenFiles:
    """The encoded documents of a source: unit after unit, read piece by piece.

    Not by memory map: packing reads in random order, and a process would end up with every page of every file.

    Args:
        folders: One a unit, each with `tokens.bin` and `lengths.npy`.
        dtype: Of the ids.
    """

    def __init__(self, folders: Sequence[Path], dtype: np.dtype) -> None:
        lengths = [np.load(folder / "lengths.npy") for folder in folders]
        self.lengths = np.concatenate(lengths) if lengths else np.empty(0, np.int64)
        self._unit = np.repeat(np.arange(len(lengths)), [len(part) for part in lengths])
        self._start = np.concatenate([np.cumsum(part) - part for part in lengths]) if lengths else self.lengths
        # Opened when needed and kept a while: a source may have more units than a process may open files.
        self._open = lru_cache(_OPEN_FILES)(lambda unit: (folders[unit] / "tokens.bin").open("rb", buffering=0))
        self._dtype = dtype

    def read(self, document: int, start: int, length: int) -> np.ndarray:
        """Ids `start` to `start + length` of one document."""
        size = self._dtype.itemsize
        file = self._open(int(self._unit[document]))
        found = os.pread(file.fileno(), length * size, int(self._start[document] + start) * size)
        return np.frombuffer(found, self._dtype)


def write(
    folder: Path,
    tokens: TokenFiles,
    groups: Sequence[Group],
    encoder: Encoder,
    *,
    source: str,
    sequence_length: int,
    packing: str,
) -> dict[str, Any]:
    """Pack one source into shards below `folder`; returns what `index.json` says.

    Args:
        folder: An empty folder.
        tokens: The source's encoded documents.
        groups: The documents, by row, in the order to pack them.
        encoder: Whose frame every shard is checked against.
        source: Its name, for messages.
        sequence_length: Tokens a sequence.
        packing: `concat_and_chunk` or `best_fit`.

    Raises:
        ShardError: A shard breaks the frame: an id outside the vocabulary, or a control token inside a document.
    """
    packed, parts = _packed(tokens.lengths, groups, sequence_length, packing)
    step = max(1, _SHARD_TOKENS // sequence_length)
    shards = []
    for number, first in enumerate(range(0, packed.sequences, step)):
        count = min(step, packed.sequences - first)
        lo, hi = np.searchsorted(packed.sequence, [first, first + count])
        spans = pl.DataFrame(
            {
                "sequence": packed.sequence[lo:hi],
                "offset": packed.offset[lo:hi].astype(np.uint32),
                "length": packed.length[lo:hi].astype(np.uint32),
                "document": packed.document[lo:hi],
                "document_start": packed.document_start[lo:hi],
            }
        )
        name = f"{number:05d}"
        spans.write_parquet(folder / f"{name}.spans.parquet", compression="zstd", statistics=False)
        with (folder / f"{name}.bin").open("wb") as out:
            for begin, sequences, part in _blocks(spans, first, count, sequence_length):
                ids = _fill(part, tokens, begin, sequences * sequence_length, sequence_length, encoder)
                _check(ids, part, tokens.lengths, begin, sequence_length, encoder, f"shards/{source}/{name}.bin")
                ids.tofile(out)
        shards.append(
            Shard(
                file=f"{name}.bin",
                sequences=count,
                first_sequence=first,
                sha256=sha256(folder / f"{name}.bin"),
                spans=f"{name}.spans.parquet",
                spans_sha256=sha256(folder / f"{name}.spans.parquet"),
            )
        )
    index = _index(shards, packed, tokens, encoder, sequence_length, packing) | {"parts": parts}
    write_json(folder / "index.json", index)
    return index


def _packed(
    lengths: np.ndarray, groups: Sequence[Group], sequence_length: int, packing: str
) -> tuple[Packing, list[dict[str, Any]]]:
    """All groups packed, one after the other, and where each of them lies."""
    packings: list[Packing] = []
    parts: list[dict[str, Any]] = []
    first = 0
    for group in groups:
        begin = first
        for rows in group.runs:
            own = pack(lengths[rows], sequence_length=sequence_length, packing=packing)
            packings.append(replace(own, document=rows[own.document], sequence=own.sequence + first))
            first += own.sequences
        part = {"topic": group.topic, "held_out": group.held_out}
        parts.append(part | {"first_sequence": begin, "sequences": first - begin})
    return join(packings), parts


def _blocks(
    spans: pl.DataFrame, first: int, count: int, sequence_length: int
) -> Iterator[tuple[int, int, pl.DataFrame]]:
    """A shard's spans in runs of whole sequences: number of the first, how many, and the spans."""
    step = max(1, _BLOCK_TOKENS // sequence_length)
    for begin in range(first, first + count, step):
        end = min(begin + step, first + count)
        lo, hi = np.searchsorted(spans["sequence"].to_numpy(), [begin, end])
        yield begin, end - begin, spans[int(lo) : int(hi)]


def _fill(
    spans: pl.DataFrame, tokens: TokenFiles, first: int, size: int, sequence_length: int, encoder: Encoder
) -> np.ndarray:
    ids = np.full(size, _padding(encoder), encoder.dtype)
    at = (spans["sequence"] - first) * sequence_length + spans["offset"]
    columns = (at, spans["document"], spans["document_start"], spans["length"])
    for place, document, start, length in zip(*(c.to_list() for c in columns), strict=True):
        ids[place : place + length] = tokens.read(document, start, length)
    return ids


def _padding(encoder: Encoder) -> int:
    return encoder.eos or 0


def _check(
    ids: np.ndarray,
    spans: pl.DataFrame,
    lengths: np.ndarray,
    first: int,
    sequence_length: int,
    encoder: Encoder,
    name: str,
) -> None:
    """Every id is in the vocabulary, and control tokens stand exactly where documents begin and end."""
    if int(ids.max(initial=0)) >= encoder.vocab_size:
        raise ShardError(f"{name}: got id {ids.max()}, expected less than {encoder.vocab_size}", hint=_REBUILD)
    at = ((spans["sequence"] - first) * sequence_length + spans["offset"]).to_numpy()
    document, start, length = (spans[c].to_numpy().astype(np.int64) for c in ("document", "document_start", "length"))
    expected = np.zeros(len(ids), bool)
    if encoder.bos is not None:
        expected[at[start == 0]] = True
    if encoder.eos is not None:
        expected[(at + length - 1)[start + length == lengths[document]]] = True
    control = np.zeros(encoder.vocab_size, bool)
    control[[*encoder.special]] = True
    wrong = np.flatnonzero((control[ids] != expected) & _inside(at, length, len(ids)))
    if len(wrong):
        raise ShardError(
            f"{name}: got id {ids[wrong[0]]} at place {wrong[0]}, expected control tokens only around documents",
            hint=_REBUILD,
        )


def _inside(at: np.ndarray, length: np.ndarray, size: int) -> np.ndarray:
    """Which places some span fills; the rest is padding."""
    gaps = at - np.r_[0, (at + length)[:-1]] if len(at) else at
    runs = np.stack([gaps, length], axis=1).ravel()
    inside = np.repeat(np.tile([False, True], len(at)), runs)
    return np.concatenate([inside, np.zeros(size - len(inside), bool)])


_REBUILD = "remove the Run's .cache folder and build again; if it stays, please report it"


def _index(
    shards: Sequence[Shard],
    packed: Packing,
    tokens: TokenFiles,
    encoder: Encoder,
    sequence_length: int,
    packing: str,
) -> dict[str, Any]:
    return {
        "dtype": encoder.dtype.name,
        "sequence_length": sequence_length,
        "packing": packing,
        "tokenizer": encoder.digest,
        "vocab_size": encoder.vocab_size,
        "bos": encoder.bos,
        "eos": encoder.eos,
        "padding": _padding(encoder),
        "documents": len(tokens.lengths),
        "document_tokens": int(tokens.lengths.sum()),
        "sequences": packed.sequences,
        "left_out_tokens": packed.left_out,
        "padding_tokens": packed.sequences * sequence_length - int(packed.length.sum()),
        "shards": [asdict(shard) for shard in shards],
    }


def index_of(folder: Path) -> dict[str, Any]:
    """What `index.json` says of a source's shards.

    Raises:
        ShardError: There is none.
    """
    index: dict[str, Any] | None = read_json(folder / "index.json")
    if index is None:
        raise ShardError(f"{folder}: got no index.json, expected a source's shards", hint="run mixer build")
    return index


class Sequences:
    """The packed sequences of one source, by number: `sequences[i]` is (sequence_length,) ids.

    `maps` holds its files, (sequences, sequence_length) each, and `firsts` the number of each one's first sequence.

    Raises:
        ShardError: The folder holds no shards, or a file's size is not what its index says.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        index = index_of(folder)
        self.sequence_length: int = index["sequence_length"]
        self._dtype = np.dtype(index["dtype"])
        self.firsts: list[int] = [shard["first_sequence"] for shard in index["shards"]]
        self.maps = [self._open(folder, shard) for shard in index["shards"]]
        self._sequences: int = index["sequences"]

    def _open(self, folder: Path, shard: dict[str, Any]) -> np.ndarray:
        path, shape = folder / shard["file"], (shard["sequences"], self.sequence_length)
        expected = shape[0] * shape[1] * self._dtype.itemsize
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise ShardError(f"{path}: got {size:,} bytes, expected {expected:,}", hint=_REBUILD)
        # As a plain array: a memmap does bookkeeping at every slice.
        return np.asarray(np.memmap(path, self._dtype, "r", shape=shape))

    def __len__(self) -> int:
        return self._sequences

    def __getitem__(self, sequence: int) -> np.ndarray:
        if not 0 <= sequence < self._sequences:
            raise IndexError(sequence)
        shard = bisect_right(self.firsts, sequence) - 1
        ids: np.ndarray = self.maps[shard][sequence - self.firsts[shard]]
        return ids
