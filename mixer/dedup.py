"""Duplicates, within and across sources: found by hashes, confirmed on the text, removed with a witness.

Exact: same text once case, width, punctuation and space are normalised; this also catches texts too short for an
n-gram. Near: MinHash bands propose pairs; the shorter of two goes only if a document that itself stays holds at
least `threshold` of its n-grams. So nothing is removed through a chain of others, and nothing that is not still
there in the witness. Price: the n-grams of all candidates are computed once more. A group of look-alikes proposes a
bounded number of pairs a document, so templated text costs linear time; it can hide a duplicate, never lose a text.
"""

import re
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import xxhash
from rensa import RMinHash

from mixer.recipe.recipe import Dedup, NearDedup

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_MINHASH_SEED = 1
VERSION = 1
"""Raise it when the same signatures would give other removals."""
_NEIGHBOURS = 4
_NONE = np.empty(0, np.uint64)


class _WordHashes(dict[str, int]):
    """Word -> 64-bit hash, remembered: words repeat, hashing each anew would cost more than everything else here."""

    def __missing__(self, word: str) -> int:
        if len(self) > 1_000_000:
            self.clear()
        value = self[word] = xxhash.xxh3_64_intdigest(word.encode())
        return value


_word_hash = _WordHashes()


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; a CJK character is a word of its own.

    Example:
        >>> words("Don't stop: CO₂ 水分")
        ['don', 't', 'stop', 'co2', '水', '分']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def shingles(text: str, ngram: int) -> np.ndarray:
    """The hashes of a text's n-grams, sorted, each once; uint64. Empty below `ngram` words."""
    return _shingles(words(text), ngram)


def _shingles(tokens: Sequence[str], ngram: int) -> np.ndarray:
    if len(tokens) < ngram:
        return _NONE
    hashes = np.fromiter(map(_word_hash.__getitem__, tokens), np.uint64, len(tokens))
    rolled = np.zeros(len(tokens) - ngram + 1, np.uint64)
    for shift in range(ngram):
        rolled = rolled * np.uint64(0x9E3779B97F4A7C15) + hashes[shift : shift + len(rolled)]
    return np.unique(rolled ^ (rolled >> np.uint64(29)))


def containment(part: np.ndarray, whole: np.ndarray) -> float:
    """Share of `part`'s n-grams that `whole` holds; both as `shingles` gives them."""
    return len(np.intersect1d(part, whole, assume_unique=True)) / len(part) if len(part) else 0.0


class Signer:
    """Collects the signatures of one unit's documents, in order."""

    def __init__(self, rules: Dedup) -> None:
        self._near = rules.near
        self._exact: list[int] = []
        self._bands: list[np.ndarray] = []

    def add(self, text: str) -> None:
        """Sign one document."""
        tokens = words(text)
        # Text without a single word (formulas, drawings) is told apart by its bare characters.
        key = " ".join(tokens) or "".join(text.split())
        self._exact.append(xxhash.xxh3_128_intdigest(key.encode()))
        if self._near:
            self._bands.append(_bands(_shingles(tokens, self._near.ngram), len(key), self._near))

    def exact(self) -> np.ndarray:
        """(documents, 2) uint64: a 128-bit hash of each normalised text."""
        mask = 2**64 - 1
        return np.array([(h >> 64, h & mask) for h in self._exact], np.uint64).reshape(-1, 2)

    def bands(self) -> np.ndarray:
        """(documents, bands + 1) uint64: the length in characters, then band hashes; zeros below one n-gram."""
        width = self._near.bands + 1 if self._near else 0
        return np.array(self._bands, np.uint64).reshape(-1, width) if width else np.empty((0, 0), np.uint64)


def _bands(grams: np.ndarray, size: int, rules: NearDedup) -> np.ndarray:
    out = np.zeros(rules.bands + 1, np.uint64)
    out[0] = size
    if len(grams):
        offsets = np.array([0, len(grams)], np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(grams, offsets, rules.bands * rules.rows, _MINHASH_SEED)
        values = np.array(matrix.to_rows()[0], np.uint32).reshape(rules.bands, rules.rows)
        out[1:] = [xxhash.xxh3_64_intdigest(band.tobytes(), seed=i) or 1 for i, band in enumerate(values)]
    return out


@dataclass(frozen=True, slots=True)
class Removal:
    """One document that a kept one makes redundant; `document` and `witness` are positions over all units."""

    document: int
    witness: int
    step: str
    containment: float


def find(units: Sequence[Path], rules: Dedup) -> list[Removal]:
    """The documents to remove, each with its kept witness, sorted by position.

    Args:
        units: Folders of cleaned units; positions count their documents in this order.
        rules: The recipe's.
    """
    if not units:
        return []
    exact = np.concatenate([np.load(unit / "exact.npy") for unit in units])
    removed = find_exact(exact) if rules.exact else []
    if rules.near:
        gone = np.zeros(len(exact), bool)
        gone[[removal.document for removal in removed]] = True
        removed = [*removed, *_find_near(units, gone, rules.near)]
    return _settle(removed)


def find_exact(hashes: np.ndarray) -> list[Removal]:
    """Every document whose hash an earlier one has; the first of each group is the witness."""
    order = np.lexsort((np.arange(len(hashes)), hashes[:, 1], hashes[:, 0]))
    same = np.zeros(len(order), bool)
    same[1:] = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    return [Removal(int(order[i]), int(order[first[i]]), "exact_dedup", 1.0) for i in np.flatnonzero(same)]


def _find_near(units: Sequence[Path], gone: np.ndarray, rules: NearDedup) -> list[Removal]:
    sizes = _column(units, 0).astype(np.int64)
    # Longer documents first: of two, the shorter one is asked whether the longer one holds it.
    by_size = np.lexsort((np.arange(len(sizes)), -sizes))
    rank = np.empty(len(sizes), np.int64)
    rank[by_size] = np.arange(len(sizes))
    pairs = np.empty((0, 2), np.int64)
    for band in range(1, rules.bands + 1):
        column = _column(units, band)
        column[gone] = 0
        pairs = np.unique(np.concatenate([pairs, candidates(column, rank)]), axis=0)
    if not len(pairs):
        return []
    with tempfile.TemporaryFile(dir=units[0].parent) as spill:
        grams = _grams_of(units, np.unique(by_size[pairs]), rules.ngram, spill)
        return _verify(pairs, by_size, grams, rules.threshold)


def _column(units: Sequence[Path], number: int) -> np.ndarray:
    """One column of every unit's signatures; files are opened one at a time, however many units there are."""
    return np.concatenate([np.load(unit / "bands.npy", mmap_mode="r")[:, number].copy() for unit in units])


def candidates(column: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Pairs of ranks (later, earlier) whose documents share a band value; 0 means no signature.

    Each document is paired with the longest few of its group and with its nearest few in length.
    """
    members = np.flatnonzero(column)
    order = members[np.lexsort((rank[members], column[members]))]
    values, ranks = column[order], rank[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(order) else np.empty(0, np.int64)
    start = np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    place = np.arange(len(order))
    found = []
    for step in range(1, _NEIGHBOURS + 1):
        for other in (place - step, start + step - 1):
            ok = (other >= start) & (other < place)
            found.append(np.stack([ranks[ok], ranks[other[ok]]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


class _Grams:
    """N-grams of the candidates, spilled to a file and read back as needed, so memory does not grow with them."""

    def __init__(self, data: np.ndarray, starts: dict[int, tuple[int, int]]) -> None:
        self._data, self._starts = data, starts

    def __getitem__(self, document: int) -> np.ndarray:
        start, stop = self._starts[document]
        return self._data[start:stop]


def _grams_of(units: Sequence[Path], documents: np.ndarray, ngram: int, spill: object) -> _Grams:
    starts: dict[int, tuple[int, int]] = {}
    end = 0
    for document, text in texts_of(units, documents):
        grams = shingles(text, ngram)
        grams.tofile(spill)  # type: ignore[arg-type]
        starts[document] = (end, end + len(grams))
        end += len(grams)
    spill.flush()  # type: ignore[attr-defined]
    data = np.memmap(spill, np.uint64, "r", shape=(end,)) if end else _NONE  # type: ignore[call-overload]
    return _Grams(data, starts)


def texts_of(units: Sequence[Path], documents: np.ndarray) -> Iterator[tuple[int, str]]:
    """Yield (position, text) of the wanted documents, reading each unit once, a row group at a time."""
    first = 0
    for unit in units:
        with pq.ParquetFile(unit / "documents.parquet") as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                wanted = documents[(documents >= first) & (documents < first + rows)] - first
                if len(wanted):
                    texts = file.read_row_group(group, columns=["text"])["text"].take(wanted)
                    yield from zip((wanted + first).tolist(), texts.to_pylist(), strict=True)
                first += rows


def _verify(pairs: np.ndarray, by_size: np.ndarray, grams: _Grams, threshold: float) -> list[Removal]:
    """Ask, longest document first, whether one that stays holds it; a removed document is never a witness."""
    removed: dict[int, Removal] = {}
    cuts = np.flatnonzero(np.r_[True, pairs[1:, 0] != pairs[:-1, 0], True])
    for start, stop in pairwise(cuts):
        document = int(by_size[pairs[start, 0]])
        own = grams[document]
        others = [int(by_size[rank]) for rank in pairs[start:stop, 1]]
        held = [(containment(own, grams[other]), -other) for other in others if other not in removed]
        best, witness = max(held, default=(0.0, 0))
        if best >= threshold:
            removed[document] = Removal(document, -witness, "near_dedup", best)
    return list(removed.values())


def _settle(removed: Sequence[Removal]) -> list[Removal]:
    """An exact duplicate of a document that went as a near one is itself a near duplicate of that one's witness."""
    near = {removal.document: removal for removal in removed if removal.step == "near_dedup"}
    settled = [
        Removal(r.document, near[r.witness].witness, "near_dedup", near[r.witness].containment)
        if r.witness in near
        else r
        for r in removed
    ]
    return sorted(settled, key=lambda removal: removal.document)


def frame(removed: Sequence[Removal]) -> pl.DataFrame:
    """Removals as a table: document, witness, step, containment."""
    return pl.DataFrame(
        [(r.document, r.witness, r.step, r.containment) for r in removed],
        schema={"document": pl.Int64, "witness": pl.Int64, "step": pl.String, "containment": pl.Float64},
        orient="row",
    )
