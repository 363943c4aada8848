"""Worked examples to show a model before it writes about a page: near the page in meaning, and sure to be right.

Source: Xie et al., NAACL 2024, arXiv 2311.08921, who show a model its own self-consistent answers to the texts nearest
to the one at hand, for named entities.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mixer.dedup import words
from mixer.embed import Embed
from mixer.run import digest
from synth.candidate import Pair

_NEAREST = 50


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A pair that passed every check, and the passage it was written from.

    Args:
        pair: The pair.
        passage: The text it follows from; what nearness is measured on.
        source: The document or book that the passage is from.
        confidence: How sure verification was, in [0, 1].
    """

    pair: Pair
    passage: str
    source: str
    confidence: float

    @property
    def text_for_matching(self) -> str:
        return self.passage


def choose(
    page_text: str, pool: Sequence[Demonstration], embed: Embed, *, count: int = 2, per_source: int = 1
) -> list[Demonstration]:
    """At most `count` demonstrations, the most confident of the 50 nearest to the page, best first; fewer where the
    50 come from too few sources.

    The same pool gives the same choice in any order: equals are told apart by a hash of their content. None comes
    from the page itself, whose words would give its answers away.

    Args:
        page_text: The page that pairs are to be written for.
        pool: What there is to choose from.
        embed: The sentence encoder; it reads the first 512 tokens.
        count: Most demonstrations to return.
        per_source: Most of them from one source.

    Raises:
        ValueError: `count` is negative or `per_source` below one.
    """
    if count < 0 or per_source < 1:
        raise ValueError(f"demonstrations: got count {count}, per_source {per_source}, expected at least 0 and 1")
    others = sorted((item for item in pool if not _is_of(item, page_text)), key=_hash)
    if not others or not count:
        return []
    rows = embed([page_text, *(item.text_for_matching for item in others)])
    # Rounded, so that the last bits, which differ from machine to machine, do not decide between equals.
    close = (rows[1:] @ rows[0]).round(5).tolist()
    nearest = sorted(range(len(others)), key=lambda i: (-close[i], i))[:_NEAREST]
    ranked = sorted(nearest, key=lambda i: (-others[i].confidence, -close[i], i))
    return _capped([others[i] for i in ranked], count, per_source)


def _is_of(item: Demonstration, page_text: str) -> bool:
    """Whether the passage stands on the page, or the page in the passage, whatever case, punctuation and space."""
    page, passage = _bare(page_text), _bare(item.passage)
    return passage in page or page in passage


@lru_cache(10_000)
def _bare(text: str) -> str:
    return f" {' '.join(words(text))} "


def _hash(item: Demonstration) -> str:
    pair = item.pair
    return digest([pair.question, pair.answer, pair.kind, pair.language, item.passage, item.source, item.confidence])


def _capped(ranked: Sequence[Demonstration], count: int, per_source: int) -> list[Demonstration]:
    taken: Counter[str] = Counter()
    chosen: list[Demonstration] = []
    for item in ranked:
        if len(chosen) < count and taken[item.source] < per_source:
            taken[item.source] += 1
            chosen.append(item)
    return chosen
