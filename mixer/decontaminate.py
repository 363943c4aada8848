"""Benchmark text in a corpus: found by n-grams, confirmed word by word, and cut out.

An n-gram of 5 words that few items have points at a place in an item; the words around it are then compared one by
one, so a changed, added or missing word does not hide the rest. A place counts when it holds enough of the item
(`ngram` words, or half of it where that is more, or all but one word of a short one) and enough of its telling words:
what every exam says ("which of the following is true") is no evidence. The question or the passage must be there. An
answer or a single choice never counts; all choices together do, in any order. A CJK character is half a word. A
question that tells too little alone needs its choices or its answer behind it (`mixer.asked`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import orjson
import xxhash

from mixer import ngrams
from mixer.asked import ARRAYS as ASKED
from mixer.asked import Asked
from mixer.benchmark import PARTS, Item, needed, parts, questions
from mixer.errors import SourceError
from mixer.run import staged

VERSION = 2
"""Raise it when the same items would give other hits."""

_ITEM, _OPTIONS = PARTS.index("item"), PARTS.index("options")
_MOST_LISTS = 2
"""Choices that more items than this share say nothing about one of them."""
_REACH = 60
"""Words compared on either side of an n-gram: more than suffice for the longest item."""
_MOST_LISTED = 96
"""Tokens of the longest list of choices that is looked for."""
_CHUNK = 1024
_Place = tuple[int, int, int, int]
"""Part, first token, last token, half words found."""
_ARRAYS = ("found_by", "words", "bounds", "owner", "kind", "grams", "places", "sums", "sum_owner", "sum_size")


@dataclass(frozen=True, slots=True)
class Hit:
    """Where a text holds a benchmark item.

    Args:
        start: First character in the text.
        end: One past the last.
        item: Its id.
        benchmark: Where the item is from.
        share: Of the words of the part, how many stand there.
        part: One of `mixer.benchmark.PARTS`.
    """

    start: int
    end: int
    item: str
    benchmark: str
    share: float
    part: str


@dataclass(frozen=True, eq=False)
class Index:
    """Everything that is looked for, as arrays; `build` makes it, `load` reads it back.

    Args:
        ngram: Words of an item that must stand together, where it has more.
        names: Id and benchmark of each item.
        found_by: A bit for each of PARTS by which an item can be found; 0 where it is too short or says too little.
        words: The tokens of all parts, one part after the other.
        bounds: Where each part begins, and the end of the last.
        owner: The item of each part.
        kind: Which of PARTS it is.
        grams: The n-grams that point at few parts, sorted.
        places: Where in `words` each begins.
        sums: Of each item's choices, the sum of the tokens, which their order does not change; sorted.
        sum_owner: The item of each.
        sum_size: How many tokens it has.
        asked: The questions that tell too little alone.
    """

    ngram: int
    names: tuple[tuple[str, str], ...]
    found_by: np.ndarray
    words: np.ndarray
    bounds: np.ndarray
    owner: np.ndarray
    kind: np.ndarray
    grams: np.ndarray
    places: np.ndarray
    sums: np.ndarray
    sum_owner: np.ndarray
    sum_size: np.ndarray
    asked: Asked

    @classmethod
    def build(cls, items: Iterable[Item], ngram: int = 13) -> "Index":
        """The index of all items; of parts with the same words the first stands for all.

        Args:
            items: From one benchmark or many.
            ngram: At least 5. A larger one asks for more of an item, so it finds fewer and errs less.
        """
        if ngram < ngrams.SEED_WORDS:
            raise ValueError(f"ngram: got {ngram}, expected at least {ngrams.SEED_WORDS}")
        names, looked_for, asked = [], [], []
        for number, item in enumerate(items):
            names.append((item.id, item.benchmark))
            looked_for.append({PARTS.index(name): run for name, run in parts(item).items()})
            asked += [(number, PARTS.index(name), one) for name, one in questions(item).items()]
        found_by = np.zeros(len(names), np.uint8)
        arrays = _runs(looked_for, found_by) | _lists(looked_for, found_by)
        return cls(ngram, tuple(names), found_by, **arrays, asked=Asked.build(asked, found_by))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides which hits are found."""
        state = xxhash.xxh3_128(orjson.dumps([VERSION, self.ngram, self.names]))
        for array in self._arrays().values():
            state.update(np.ascontiguousarray(array).tobytes())
        return state.hexdigest()

    def _arrays(self) -> dict[str, np.ndarray]:
        own = {name: getattr(self, name) for name in _ARRAYS}
        return own | {f"asked_{name}": getattr(self.asked, name) for name in ASKED}

    @cached_property
    def findable(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """By (benchmark, id): the parts by which each item can be found; none where it cannot."""
        return {
            (benchmark, own): tuple(name for i, name in enumerate(PARTS) if bits >> i & 1)
            for (own, benchmark), bits in zip(self.names, self.found_by.tolist(), strict=True)
        }

    def find(self, text: str) -> list[Hit]:
        """Every place in the text that holds an item, in order."""
        every = ngrams.tokens(text)
        kept = np.flatnonzero(every)
        run = every[kept]
        # A question with its choices in their own order is found twice.
        found = {place[:3]: place for place in (*self._parts_in(run), *self.asked.find(run))}
        if not (places := [*found.values(), *self._lists_in(run, kept)]):
            return []
        spans = ngrams.offsets(text)[kept]
        hits = [
            Hit(int(spans[first, 0]), int(spans[last, 1]), *self.names[item], share, PARTS[kind])
            for item, kind, first, last, share in places
        ]
        return sorted(hits, key=lambda hit: (hit.start, hit.end, hit.benchmark, hit.item, hit.part))

    def save(self, folder: Path) -> None:
        """Write the index whole, as `arrays.npz` and `index.json`."""
        with staged(folder) as scratch:
            np.savez(scratch / "arrays.npz", allow_pickle=False, **self._arrays())
            head = {"version": VERSION, "ngram": self.ngram, "names": self.names}
            (scratch / "index.json").write_bytes(orjson.dumps(head))

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """Read what `save` wrote.

        Raises:
            SourceError: There is no index, or another version wrote it.
        """
        hint = "build it again from the benchmark files"
        try:
            head = orjson.loads((folder / "index.json").read_bytes())
            if head["version"] != VERSION:
                raise SourceError(f"{folder}: got version {head['version']}, expected {VERSION}", hint=hint)
            names = tuple((own, benchmark) for own, benchmark in head["names"])
            with np.load(folder / "arrays.npz", allow_pickle=False) as file:
                asked = Asked(**{name: file[f"asked_{name}"] for name in ASKED})
                return cls(int(head["ngram"]), names, **{name: file[name] for name in _ARRAYS}, asked=asked)
        except (OSError, EOFError, KeyError, TypeError, ValueError, BadZipFile) as error:
            raise SourceError(f"{folder}: got no whole index ({error}), expected one", hint=hint) from error

    @cached_property
    def _sizes(self) -> tuple[np.ndarray, ...]:
        """Of each part, in half words: its size, how much must be there, how much that tells, whether all of it."""
        size, telling = (ngrams.summed(counts, self.bounds) for counts in ngrams.weights(self.words))
        return size, *needed(size, telling, self.kind, self.ngram)

    @cached_property
    def _part(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.owner)), np.diff(self.bounds))

    @cached_property
    def _grams(self) -> ngrams.Lookup:
        return ngrams.Lookup(self.grams)

    @cached_property
    def _sums(self) -> tuple[ngrams.Lookup, np.ndarray]:
        return ngrams.Lookup(self.sums), np.unique(self.sum_size)

    def _parts_in(self, run: np.ndarray) -> Iterator[tuple[int, int, int, int, float]]:
        at, left, count = self._grams(ngrams.grams(run))
        if not len(at):
            return
        place = self.places[ngrams.ragged(left, count)]
        part, shift = self._part[place], np.repeat(at, count) - place
        order = np.lexsort((place, shift, part))
        place, part, shift = place[order], part[order], shift[order]
        # N-grams of one part that are as far apart in the text as in the item are one place.
        first = np.flatnonzero(ngrams.changes(part, shift))
        last = np.append(first[1:], len(place)) - 1
        found: list[_Place] = []
        for i in range(0, len(first), _CHUNK):
            a, b = first[i : i + _CHUNK], last[i : i + _CHUNK]
            found += self._confirmed(run, part[a], shift[a], place[a], place[b])
        for number, begin, end, score in _best(found):
            share = score / int(self._sizes[0][number])
            yield int(self.owner[number]), int(self.kind[number]), begin, end, share

    def _confirmed(
        self, run: np.ndarray, part: np.ndarray, shift: np.ndarray, first: np.ndarray, last: np.ndarray
    ) -> Iterator[_Place]:
        """The places that hold enough of their part."""
        _, needed, needed_telling, whole = self._sizes
        # Of a question with choices nearly all must be there, and choices much alike share their n-grams.
        reach = np.where(self.kind[part] == _ITEM, len(self.words), _REACH)
        start = np.maximum(self.bounds[part], first - reach)
        count = np.minimum(self.bounds[part + 1], last + ngrams.SEED_CHARS + reach) - start
        owner, place = np.repeat(np.arange(len(part)), count), ngrams.ragged(start, count)
        stands = ngrams.aligned(run, place + shift[owner], self.words[place], owner, whole[part][owner])
        bounds = np.concatenate([[0], np.cumsum(count)])
        score, telling = (ngrams.summed(counts * (stands >= 0), bounds) for counts in ngrams.weights(self.words[place]))
        for i in np.flatnonzero((score >= needed[part]) & (telling >= needed_telling[part])).tolist():
            there = stands[bounds[i] : bounds[i + 1]]
            there = there[there >= 0]
            yield int(part[i]), int(there.min()), int(there.max()), int(score[i])

    def _lists_in(self, run: np.ndarray, kept: np.ndarray) -> Iterator[tuple[int, int, int, int, float]]:
        """Lists of choices; one begins a line or stands behind a letter, which `kept` leaves out."""
        begins = np.concatenate([[0], np.flatnonzero(kept[1:] > kept[:-1] + 1) + 1])
        lookup, sizes = self._sums
        total = np.zeros(len(run) + 1, np.uint64)
        np.cumsum(run, out=total[1:])
        for i in range(0, len(begins) if len(sizes) else 0, _CHUNK):
            first = begins[i : i + _CHUNK, None]
            sums = total[np.minimum(first + sizes, len(run))] - total[first]
            at, key, _ = lookup(sums.ravel())
            for begin, size, number in zip(first[at // len(sizes), 0], sizes[at % len(sizes)], key, strict=True):
                if size == self.sum_size[number] and begin + size <= len(run):
                    yield int(self.sum_owner[number]), _OPTIONS, int(begin), int(begin + size) - 1, 1.0


def _best(found: Iterable[_Place]) -> list[_Place]:
    """Of places of the same part that overlap, the one that holds most."""
    kept: list[_Place] = []
    for place in sorted(found):
        if not kept or kept[-1][0] != place[0] or kept[-1][2] < place[1]:
            kept.append(place)
        elif kept[-1][3] < place[3]:
            kept[-1] = place
    return kept


def _runs(looked_for: Sequence[dict[int, np.ndarray]], found_by: np.ndarray) -> dict[str, np.ndarray]:
    """All parts but the choices, one after the other, with their n-grams; marks in `found_by` those that have any."""
    first: dict[tuple[int, bytes], tuple[int, int]] = {}
    uses = []
    for number, runs in enumerate(looked_for):
        for kind, run in runs.items():
            if kind != _OPTIONS:
                part, _ = first.setdefault((kind, run.tobytes()), (len(first), number))
                uses.append((number, kind, part))
    runs_of = [np.frombuffer(run, np.uint64) for _, run in first]
    words = np.concatenate([np.empty(0, np.uint64), *runs_of])
    bounds = np.cumsum([0, *map(len, runs_of)])
    seeds, places = ngrams.rare(words, bounds)
    seeded = np.isin(np.arange(len(first)), np.searchsorted(bounds, places, "right") - 1)
    for number, kind, part in uses:
        found_by[number] |= int(seeded[part]) << kind
    owner = np.array([number for _, number in first.values()], np.int64)
    kinds = np.array([kind for kind, _ in first], np.uint8)
    return {"words": words, "bounds": bounds, "owner": owner, "kind": kinds, "grams": seeds, "places": places}


def _lists(looked_for: Sequence[dict[int, np.ndarray]], found_by: np.ndarray) -> dict[str, np.ndarray]:
    """The sums of the choices that few items share; marks in `found_by` whose."""
    owners: dict[tuple[int, int], list[int]] = {}
    for number, runs in enumerate(looked_for):
        if _OPTIONS in runs and len(runs[_OPTIONS]) <= _MOST_LISTED:
            owners.setdefault((int(runs[_OPTIONS].sum()), len(runs[_OPTIONS])), []).append(number)
    lists = sorted((total, size, own) for (total, size), own in owners.items() if len(own) <= _MOST_LISTS)
    for _, _, own in lists:
        found_by[own] |= 1 << _OPTIONS
    return {
        "sums": np.array([total for total, _, _ in lists], np.uint64),
        "sum_owner": np.array([own[0] for _, _, own in lists], np.int64),
        "sum_size": np.array([size for _, size, _ in lists], np.int64),
    }
