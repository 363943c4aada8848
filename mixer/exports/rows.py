"""The sequences of a Run in the order in which an export writes them: tokens and pieces of documents, in blocks.

Everything is read by memory map; a block of a few million tokens is all that is held.
"""

import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numba
import numpy as np
from numba.typed import List

from mixer.errors import ShardError
from mixer.exports.spans import Pieces, Spans, pieces
from mixer.exports.texts import Texts
from mixer.shard import Sequences, index_of

BLOCK_TOKENS = 1 << 20
_SPARE_FILES = 256
CLOSING = -1
"""Stands for a source where a sequence of nothing but padding is meant."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What all shards of a Run have in common."""

    sequence_length: int
    dtype: np.dtype
    vocab_size: int
    bos: int | None
    eos: int | None
    padding: int
    packing: str
    tokenizer: str


class Shards:
    """The packed sequences of a Run's sources.

    Args:
        run: The Run folder.
        names: The sources, in the recipe's order.
        scratch: Where spans and texts are laid out when they are first asked for.
        tokenizer: What the recipe calls its tokenizer.

    Raises:
        ShardError: Shards are missing, damaged, or were packed for different tokenizers or lengths.
    """

    def __init__(self, run: Path, names: Sequence[str], scratch: Path, tokenizer: str) -> None:
        self.names, self.tokenizer, self.scratch = tuple(names), tokenizer, scratch
        self._run = run
        self._folders = {name: run / "shards" / name for name in names}
        self._spans: dict[str, Spans] = {}
        self._texts: dict[str, Texts] = {}
        self.index: Mapping[str, dict[str, Any]] = {name: index_of(folder) for name, folder in self._folders.items()}
        self.facts = _agreed(self.index)
        _allow_files(sum(len(index["shards"]) for index in self.index.values()))
        sequences = [Sequences(folder) for folder in self._folders.values()]
        self._files = List()
        for source in sequences:
            for file in source.maps:
                self._files.append(np.asarray(file))
        # Where a file's sequences begin when all sources stand one after the other.
        counts = np.cumsum([0, *(len(source) for source in sequences)])
        self._first_of_source = counts[:-1]
        firsts = [counts[i] + first for i, source in enumerate(sequences) for first in source.firsts]
        self._first_of_file = np.array(firsts, np.int64)

    def ids(self, pairs: np.ndarray) -> np.ndarray:
        """Token ids of (source, sequence) pairs, (n, sequence_length), in the dtype of the shards."""
        out = np.empty((len(pairs), self.facts.sequence_length), self.facts.dtype)
        real = np.flatnonzero(pairs[:, 0] != CLOSING)
        if len(real) < len(pairs):
            out[pairs[:, 0] == CLOSING] = self.facts.padding
        place = self._first_of_source[pairs[real, 0]] + pairs[real, 1]
        file = np.searchsorted(self._first_of_file, place, side="right") - 1
        if len(real):
            _gather(self._files, file, place - self._first_of_file[file], real, out)
        return out

    def spans(self, name: str) -> Spans:
        """The spans of one source, laid out on first use."""
        if name not in self._spans:
            self._spans[name] = Spans(self._folders[name], self.index[name], self.scratch / f"{name}.spans")
        return self._spans[name]

    def document_tables(self, name: str) -> list[Path]:
        """The files of one source's documents, in order."""
        return sorted((self._run / "documents" / name).glob("*.parquet"))

    def texts(self, name: str) -> Texts:
        """The documents of one source as lines of JSON, laid out on first use."""
        if name not in self._texts:
            self._texts[name] = Texts(self.document_tables(name), self.scratch / f"{name}.texts")
        return self._texts[name]

    def pieces(self, pairs: np.ndarray, follows: np.ndarray) -> Pieces:
        """The pieces of (source, sequence) pairs; `follows` says which pair goes on where the one before ended."""
        which, records = [np.empty(0, np.int64)], []
        for number, name in enumerate(self.names):
            of_source = np.flatnonzero(pairs[:, 0] == number)
            mine, found = self.spans(name).of(pairs[of_source, 1])
            which.append(of_source[mine])
            records.append(found)
        return pieces(np.concatenate(which), np.concatenate(records), follows, self.facts.sequence_length)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _gather(files: Any, file: np.ndarray, row: np.ndarray, target: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(file)):
        found, filled = files[file[i]][row[i]], out[target[i]]
        # Looked up before the loop, or the compiler would not make it wide.
        for place in range(len(filled)):
            filled[place] = found[place]


def _allow_files(wanted: int) -> None:
    """Let this process hold as many files open: a memory map holds one, and the usual limit is 1,024."""
    now, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked = wanted + _SPARE_FILES
    if now < asked:
        resource.setrlimit(resource.RLIMIT_NOFILE, (asked if limit < 0 else min(asked, limit), limit))


def _agreed(index: Mapping[str, dict[str, Any]]) -> Facts:
    """The facts that all sources share."""
    keys = ("sequence_length", "vocab_size", "bos", "eos", "padding", "packing", "tokenizer", "dtype")
    first = next(iter(index))
    for name, found in index.items():
        for key in keys:
            if found[key] != index[first][key]:
                raise ShardError(
                    f"shards/{name}: {key}: got {found[key]}, expected {index[first][key]} as in shards/{first}",
                    hint="run mixer build",
                )
    return Facts(**{key: index[first][key] for key in keys[:-1]}, dtype=np.dtype(index[first]["dtype"]))


class Span:
    """Sequences `first` to `first + count` of one source, sliced like an array of pairs."""

    def __init__(self, source: int, first: int, count: int) -> None:
        self._source, self._first, self._count = source, first, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, part: slice) -> np.ndarray:
        first, end, _ = part.indices(self._count)
        sequence = np.arange(self._first + first, self._first + end, dtype=np.int32)
        return np.stack([np.full(len(sequence), self._source, np.int32), sequence], axis=1)


class Rows:
    """Sequences in some order.

    Args:
        shards: Where they lie.
        parts: (source, sequence) pairs, (n, 2) int32: arrays, memory maps or `Span`s, one after the other.
        order: If given, row i is row `order[i]` of the parts (arrays alone, then); one past the last stands for a row
            of padding.
    """

    def __init__(self, shards: Shards, parts: Sequence[Any], order: np.ndarray | None = None) -> None:
        self.shards, self.facts = shards, shards.facts
        self._parts = [part for part in parts if len(part)]
        self._ends = np.cumsum([len(part) for part in self._parts], dtype=np.int64)
        self._order = order

    def __len__(self) -> int:
        if self._order is not None:
            return len(self._order)
        return int(self._ends[-1]) if len(self._ends) else 0

    def ordered(self, order: np.ndarray) -> Self:
        """The same rows, row i being row `order[i]`."""
        return type(self)(self.shards, self._parts, order)

    def slice(self, first: int, count: int) -> Self:
        """Rows `first` to `first + count` of these."""
        if self._order is not None:
            return type(self)(self.shards, self._parts, self._order[first : first + count])
        found, begin = [], 0
        for part in self._parts:
            low, high = max(0, first - begin), min(len(part), first + count - begin)
            if low < high:
                found.append(part[low:high])
            begin += len(part)
        return type(self)(self.shards, found)

    @property
    def block_rows(self) -> int:
        """Rows that are read at once."""
        return max(1, BLOCK_TOKENS // self.facts.sequence_length)

    def pairs(self, first: int = 0) -> Iterator[np.ndarray]:
        """Yield (source, sequence) pairs from row `first` on, in blocks that end at multiples of `block_rows`."""
        while first < len(self):
            end = min(len(self), (first // self.block_rows + 1) * self.block_rows)
            yield self._pairs(first, end)
            first = end

    def tokens(self, first: int = 0) -> Iterator[np.ndarray]:
        """Yield ids in blocks, (n, sequence_length), each checked against the vocabulary.

        Raises:
            ShardError: An id is not in the vocabulary.
        """
        for pairs in self.pairs(first):
            ids = self.shards.ids(pairs)
            if int(ids.max(initial=0)) >= self.facts.vocab_size:
                raise ShardError(
                    f"shards: got id {ids.max()}, expected less than {self.facts.vocab_size}",
                    hint="a shard is damaged: remove the Run's .cache folder and build again",
                )
            yield ids

    def pieces(self) -> Iterator[Pieces]:
        """Yield the pieces of the same blocks as `tokens` does."""
        before = np.array([[CLOSING, CLOSING]])
        for pairs in self.pairs():
            previous = np.concatenate([before, pairs[:-1]])
            same, steps = pairs[:, 0] == previous[:, 0], pairs[:, 1] - previous[:, 1]
            yield self.shards.pieces(pairs, same & (steps == 1))
            before = pairs[-1:]

    def _pairs(self, first: int, end: int) -> np.ndarray:
        if self._order is None:
            return np.concatenate([part[:] for part in self.slice(first, end - first)._parts])
        wanted = self._order[first:end]
        out = np.full((len(wanted), 2), CLOSING, np.int32)
        part_of = np.searchsorted(self._ends, wanted, side="right")
        for number, part in enumerate(self._parts):
            mine = np.flatnonzero(part_of == number)
            begin = int(self._ends[number]) - len(part)
            out[mine] = part[wanted[mine] - begin]
        return out
