"""Questions that were asked already, each with the earlier one that stays; what templates say is not compared.

Generated questions share openings, and by their n-grams alone all that begin "According to the passage, what is" look
alike. So template text is taken off first, the given one and what many questions open with. Only what is left is
compared: word for word where it is short, by n-grams both ways where it is long. Questions with different numbers or
signs of calculation are different questions. Candidates come from an index that misses none: two sets that share most
of their n-grams share one of their rarest few (prefix filter; Chaudhuri, Ganti and Kaushik, ICDE 2006).
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixer.dedup import containment, shingles, words
from mixer.embed import Embed

_NGRAM = 3
_FEWEST = 8
"""Below as many n-grams one changed word decides too much: only the same words are the same question."""
_COMMON = 10
"""Questions that must share an opening, and go on differently, before it counts as a template."""
_LONGEST_OPENING = 16
_SAME_MEANING = 0.95
_SIGN = re.compile(r"(?<![^\W\d])-|[^\w\s-]")
"""A hyphen that does not join words, or anything else that is no word."""


@dataclass(frozen=True, slots=True)
class _Question:
    key: str
    numbers: tuple[str, ...]
    whole: np.ndarray
    rest: np.ndarray


def duplicates(
    questions: Sequence[str], templates: Sequence[str] = (), embed: Embed | None = None, threshold: float = 0.8
) -> dict[int, tuple[int, float]]:
    """Index of each question to remove -> index of a kept earlier one, and the share that they have in common.

    The share is that of the n-grams of the one with more of them, so neither says much that the other does not. It
    is at least `threshold` for every removed question and the witness named, never by way of a third; 1.0 where the
    words are the same.

    Args:
        questions: In order of preference: of two, the earlier one stays.
        templates: Text that says nothing of the question, such as "According to the passage,"; taken off both ends
            whatever its case and punctuation.
        embed: A second opinion, for English: if given, only questions at a cosine of at least 0.95 are the same.
        threshold: Share of n-grams in common.

    Raises:
        ValueError: The threshold is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: got {threshold}, expected above 0 and at most 1")
    parsed = _parse(questions, templates)
    counts = Counter(gram for question in parsed for gram in question.rest.tolist())
    known: dict[str, tuple[int, float]] = {}
    index: defaultdict[int, list[int]] = defaultdict(list)
    removed: dict[int, tuple[int, float]] = {}
    for number, question in enumerate(parsed):
        if question.key in known:
            removed[number] = known[question.key]
            continue
        rare = _rarest(question.rest, counts, threshold)
        near = sorted({other for gram in rare for other in index[gram]})
        found = _witnesses(question, {other: parsed[other] for other in near}, threshold)
        same = next((held for held in found if _means_same(questions[number], questions[held[0]], embed)), None)
        if same:
            removed[number] = known[question.key] = same
            continue
        known[question.key] = number, 1.0
        for gram in rare:
            index[gram].append(number)
    return removed


def _parse(questions: Sequence[str], templates: Sequence[str]) -> list[_Question]:
    known = sorted({tuple(words(template)) for template in templates} - {()}, key=lambda part: (-len(part), part))
    bare = [_strip(words(question), known) for question in questions]
    openings = _openings(bare)
    parsed = []
    for text, tokens in zip(questions, bare, strict=True):
        rest = tokens[_opening(tokens, openings) :]
        whole, left = (shingles(" ".join(part), _NGRAM) for part in (tokens, rest))
        numbers = tuple(token for token in tokens if any(char.isdigit() for char in token)) + _signs(text)
        # A question without a word is told apart by its bare characters.
        key = " ".join([*(tokens or ["".join(text.split())]), *_signs(text)])
        parsed.append(_Question(key, numbers, whole, left if len(left) >= _FEWEST else left[:0]))
    return parsed


def _signs(text: str) -> tuple[str, ...]:
    """The signs of calculation, which are no words: 2 + 3 and 2 - 3 are different questions."""
    plain = unicodedata.normalize("NFKC", text).replace("\u2212", "-")
    return tuple(char for char in _SIGN.findall(plain) if char in "-*/^" or unicodedata.category(char) == "Sm")


def _strip(tokens: list[str], known: Sequence[tuple[str, ...]]) -> list[str]:
    """Takes templates off both ends until none is left; a question that is nothing else stays as it is."""
    for part in known:
        size = len(part)
        if len(tokens) > size and tuple(tokens[:size]) == part:
            return _strip(tokens[size:], known)
        if len(tokens) > size and tuple(tokens[-size:]) == part:
            return _strip(tokens[:-size], known)
    return tokens


def _openings(questions: Sequence[Sequence[str]]) -> set[tuple[str, ...]]:
    """What many questions open with and go on from in different ways."""
    counts: Counter[tuple[str, ...]] = Counter()
    for tokens in {tuple(question) for question in questions}:
        counts.update(tokens[:size] for size in range(1, min(len(tokens), _LONGEST_OPENING + 1) + 1))
    branches = Counter(opening[:-1] for opening in counts if len(opening) > 1)
    return {opening for opening, found in branches.items() if found >= _COMMON}


def _opening(tokens: Sequence[str], openings: set[tuple[str, ...]]) -> int:
    """Length of the longest known opening of these words."""
    longest = min(len(tokens), _LONGEST_OPENING)
    return next((size for size in range(longest, 0, -1) if tuple(tokens[:size]) in openings), 0)


def _rarest(grams: np.ndarray, counts: Mapping[int, int], threshold: float) -> list[int]:
    """The n-grams of which any question that has `threshold` of all in common must share one."""
    ordered = sorted(grams.tolist(), key=lambda gram: (counts[gram], gram))
    # Rounded down a hair: a product such as 7.000000000000001 must not ask for eight.
    return ordered[: len(ordered) - math.ceil(threshold * len(ordered) - 1e-9) + 1]


def _witnesses(question: _Question, others: Mapping[int, _Question], threshold: float) -> list[tuple[int, float]]:
    """Others that have enough in common with it, the best and then the earliest first."""
    shares = [(index, _share(question, other)) for index, other in others.items()]
    return sorted((held for held in shares if held[1] >= threshold), key=lambda held: (-held[1], held[0]))


def _share(one: _Question, other: _Question) -> float:
    """Of the text with and without its common opening, the smaller share: an opening must not make two alike."""
    if one.numbers != other.numbers:
        return 0.0
    parts = ((one.whole, other.whole), (one.rest, other.rest))
    return min(containment(*sorted(part, key=len, reverse=True)) for part in parts)


def _means_same(one: str, other: str, embed: Embed | None) -> bool:
    if embed is None:
        return True
    rows = embed([one, other])
    return bool(rows[0] @ rows[1] >= _SAME_MEANING)
