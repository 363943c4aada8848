"""Whether a question can be read without its page: it points at nothing elsewhere, and repeats no phrase."""

import re

from mixer.dedup import words
from synth.candidate import Check, Pair

_THINGS = "problem|figure|table|section|chapter|example|exercise|passage|text|page|article|image|diagram|equation"
_POINTS = re.compile(
    rf"\b(?:this|these|the following|the (?:above|preceding|previous|next)|the given) (?:{_THINGS})s?\b|\bthe passage\b"
    r"|\b(?:fig|figs|eq|eqs|sec|tab)\.\s*\(?\d|\b(?:figure|table|section|chapter|equation|exercise) \d"
    r"|\[(?:link|\d{1,3}|citation needed)\]|\b(?:shown|described|discussed|mentioned|defined) (?:above|below|earlier)\b"
    r"|如[上下]?[图表](?=[\d所中])|(?<!日)[该本上下][图表](?=[中所示])|第[一二三四五六七八九十\d]+[图表章题]"
    r"|(?<![日基样])本[文节章](?=[中将的,，。])|[这该本]道?[题段](?=[中目话文])",
    re.IGNORECASE,
)
_RUN = {"en": 5, "zh": 8}


def standalone(pair: Pair) -> Check:
    """The check `standalone`: question and answer point at no figure, link or passage; the question repeats no phrase.

    Example:
        >>> standalone(Pair("What does Fig. 12 show?", "a sphere")).detail
        "points at 'Fig. 1'"
    """
    for text in (pair.question, pair.answer):
        if found := points_elsewhere(text):
            return Check("standalone", passed=False, score=0.0, detail=f"points at {found!r}")
    if repeats(pair.question, _RUN.get(pair.language, 5)):
        return Check("standalone", passed=False, score=0.0, detail="the question repeats itself")
    return Check("standalone", passed=True, score=1.0)


def points_elsewhere(text: str) -> str:
    """The first words that point at something a reader of this text alone does not have; empty where there are none."""
    found = _POINTS.search(text)
    return found[0].strip() if found else ""


def repeats(text: str, run: int = 5) -> bool:
    """Whether so many words (Chinese: characters) in a row come twice.

    Example:
        >>> repeats("What is the difference between a mutex lock and a mutex lock?")
        False
        >>> repeats("What is the answer to the question What is the answer to the question?")
        True
    """
    held = words(text)
    runs = [tuple(held[i : i + run]) for i in range(len(held) - run + 1)]
    return len(set(runs)) < len(runs)
