r"""Benchmark text cut out of a document, in whole sentences and lines, with what beside it is of the same item.

Where a question stands, its choices, its answer and a worked solution mostly follow: a cut that left them would leave
an answer without its question. So it goes on over pieces whose telling words are nearly all the item's own, and over a
line that says which answer is right.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mixer.benchmark import Item
from mixer.decontaminate import Hit
from mixer.ngrams import tokens, weights

_BOUND = re.compile(r"(?<!\b[A-Z])[.!?…]+[\"'”’)\]]*(?:[ \t]+|(?=\s))|[。！？；]+[”’」』）]*|\n")
"""Where a sentence or a line ends; a single capital before a full stop is a letter of a list, or an initial."""
_ANSWER = re.compile(
    r"\W*(?:the\s+)?(?:correct\s+|right\s+|final\s+)?(?:answer|solution|explanation|rationale|答案|解析|解答)"
    r"[*_]*(?:\s*[:：]|\s+is\b|为|是)",
    re.IGNORECASE,
)
_CHOSEN = re.compile(r"\W*[A-Ja-j1-9]\W*")
_OWN = 0.8
"""Share of the telling words of a piece that are the item's, from which on it is part of it."""


def cut(text: str, hits: Sequence[Hit], items: Mapping[tuple[str, str], Item] | None = None) -> str:
    """The text without the sentences and lines that hold the hits; away from the cuts nothing changes.

    Args:
        text: The document.
        hits: Where it holds items.
        items: By (benchmark, id): those whose own words beside a hit go too.
    """
    bounds = [0, *(match.end() for match in _BOUND.finditer(text)), len(text)]
    known = {name: _words(item) for name, item in (items or {}).items()}
    rest, done = "", 0
    for first, last in _apart(bounds, text, hits, known):
        rest, done = _joined(rest, text[done : bounds[first]]) if done else text[: bounds[first]], bounds[last]
    return _joined(rest, text[done:]) if hits else text


def _apart(
    bounds: Sequence[int], text: str, hits: Sequence[Hit], known: Mapping[tuple[str, str], np.ndarray]
) -> Iterator[tuple[int, int]]:
    """From which to which bound to cut; none overlap or touch."""
    spans = []
    for hit in hits:
        first, last = bisect_right(bounds, hit.start) - 1, bisect_left(bounds, hit.end)
        words = known.get((hit.benchmark, hit.item))
        if words is not None:
            first, last = _before(bounds, text, first, words), _after(bounds, text, last, words)
        spans.append((first, last))
    begin = end = -1
    for first, last in sorted(spans):
        if begin >= 0 and first > end:
            yield begin, end
            begin = -1
        begin, end = (first if begin < 0 else begin), max(end, last)
    if begin >= 0:
        yield begin, end


def _after(bounds: Sequence[int], text: str, last: int, words: np.ndarray) -> int:
    for place in range(last, len(bounds) - 1):
        piece = text[bounds[place] : bounds[place + 1]]
        is_own = True if _ANSWER.match(piece) or _CHOSEN.fullmatch(piece) else _is_own(piece, words)
        if is_own is False:
            break
        last = place + 1 if is_own else last
    return last


def _before(bounds: Sequence[int], text: str, first: int, words: np.ndarray) -> int:
    for place in range(first - 1, -1, -1):
        is_own = _is_own(text[bounds[place] : bounds[place + 1]], words)
        if is_own is False:
            break
        first = place if is_own else first
    return first


def _is_own(piece: str, words: np.ndarray) -> bool | None:
    """Whether a piece is of the item; None where it has no words."""
    run = tokens(piece)
    run = run[run > 0]
    if not len(run):
        return None
    is_known, (_, telling) = np.isin(run, words), weights(run)
    return bool((is_known * telling).sum() >= _OWN * telling.sum() if telling.any() else is_known.all())


def _words(item: Item) -> np.ndarray:
    return np.unique(tokens("\n".join((item.passage, item.question, *item.choices, item.answer))))


def _joined(left: str, right: str) -> str:
    """What stood before and after a cut, with one blank line between them at most."""
    if not left.strip() or not right.strip():
        return left.rstrip() + right.lstrip("\n") if right.strip() else left.rstrip()
    opening = len(right) - len(right.lstrip("\n"))
    closing = len(left) - len(left.rstrip("\n"))
    # Of a line that is gone its end goes too.
    return left + right[min(opening, max(closing > 0, opening + closing - 2)) :]
