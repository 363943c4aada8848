"""Questions that tell too little alone: found where the words that belong to them follow, in any order.

"Which of these is correct?" stands in many an exam, "Who wrote Hamlet?" in any text about him. Such a question counts
where it stands word for word and its choices, or its answer where it has none, follow closely. Choices may come in any
order, with any marks between them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from mixer import ngrams

_KEYS = (1, 3, 5)
"""How many tokens at the end of a question are looked up: the most that it has of these."""
ARRAYS = ("words", "bounds", "split", "reach", "spare", "owner", "kind")


class Question(NamedTuple):
    """One question to look for.

    Args:
        asked: Its tokens, in order.
        wanted: Tokens that must follow, in any order.
        reach: Among how many tokens behind it.
        spare: Half words of them that may be missing.
    """

    asked: np.ndarray
    wanted: np.ndarray
    reach: int
    spare: int


@dataclass(frozen=True, eq=False)
class Asked:
    """All such questions, as arrays.

    Args:
        words: Of each question its own tokens, then those wanted behind it.
        bounds: Where each begins, and the end of the last.
        split: How many tokens of each are the question's own.
        reach: As in `Question`.
        spare: As in `Question`.
        owner: Number of its item.
        kind: Number of its part.
    """

    words: np.ndarray
    bounds: np.ndarray
    split: np.ndarray
    reach: np.ndarray
    spare: np.ndarray
    owner: np.ndarray
    kind: np.ndarray

    @classmethod
    def build(cls, questions: Sequence[tuple[int, int, Question]], found_by: np.ndarray) -> "Asked":
        """Those that can be found, and a mark in `found_by` for each.

        Args:
            questions: Number of the item, number of the part, and the question; of equal ones the first stands for all.
            found_by: Of each item, a bit for each part.
        """
        first: dict[tuple[int, bytes, bytes], tuple[int, Question]] = {}
        for number, kind, one in questions:
            # A lone "is" would be looked up at every second word.
            if len(one.asked) >= _KEYS[1] or ngrams.weights(one.asked[-1:])[1].any():
                first.setdefault((kind, one.asked.tobytes(), np.sort(one.wanted).tobytes()), (number, one))
                found_by[number] |= 1 << kind
        kept = [(kind, number, one) for (kind, _, _), (number, one) in first.items()]
        runs = [run for _, _, one in kept for run in (one.asked, one.wanted)]
        return cls(
            words=np.concatenate([np.empty(0, np.uint64), *runs]),
            bounds=np.cumsum([0, *(len(one.asked) + len(one.wanted) for _, _, one in kept)]),
            split=np.array([len(one.asked) for _, _, one in kept], np.int64),
            reach=np.array([one.reach for _, _, one in kept], np.int64),
            spare=np.array([one.spare for _, _, one in kept], np.int64),
            owner=np.array([number for _, number, _ in kept], np.int64),
            kind=np.array([kind for kind, _, _ in kept], np.uint8),
        )

    def find(self, run: np.ndarray) -> Iterator[tuple[int, int, int, int, float]]:
        """Item, part, first and last token, and share of the words, of each place in a text."""
        for size, (lookup, members) in self._keys.items():
            at, left, count = lookup(ngrams.rolled(run, size))
            number = members[ngrams.ragged(left, count)]
            stop = np.repeat(at, count) + size
            for one, end in zip(*self._standing(run, number, stop), strict=True):
                yield from self._followed(run, int(one), int(end))

    @cached_property
    def _keys(self) -> dict[int, tuple[ngrams.Lookup, np.ndarray]]:
        """Size of a key -> the keys, sorted, and the question of each."""
        sizes = np.array(_KEYS)[np.searchsorted(_KEYS, self.split, "right") - 1]
        found = {}
        for size in np.unique(sizes).tolist():
            members = np.flatnonzero(sizes == size)
            ends = self.bounds[members] + self.split[members]
            keys = ngrams.rolled(self.words, size)[ends - size]
            order = np.argsort(keys, kind="stable")
            found[size] = (ngrams.Lookup(keys[order]), members[order])
        return found

    def _standing(self, run: np.ndarray, number: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of these questions do stand word for word before where they should end."""
        size = self.split[number]
        place = ngrams.ragged(self.bounds[number], size)
        is_there = ngrams.same(run, ngrams.ragged(stop - size, size), self.words[place])
        whole = ngrams.summed(is_there, np.concatenate([[0], np.cumsum(size)])) == size
        return number[whole], stop[whole]

    def _followed(self, run: np.ndarray, number: int, stop: int) -> Iterator[tuple[int, int, int, int, float]]:
        split, begin, end = int(self.split[number]), int(self.bounds[number]), int(self.bounds[number + 1])
        wanted = self.words[begin + split : end]
        missing = Counter(wanted.tolist())
        last = stop
        for place, word in enumerate(run[stop : stop + int(self.reach[number])].tolist(), stop):
            if missing[word] > 0:
                missing[word] -= 1
                last = place
        lost = _weight(np.array(list((+missing).elements()), np.uint64))
        if lost <= self.spare[number]:
            share = 1 - lost / _weight(self.words[begin:end])
            yield int(self.owner[number]), int(self.kind[number]), stop - split, last, share


def _weight(run: np.ndarray) -> int:
    return int(ngrams.weights(run)[0].sum())
