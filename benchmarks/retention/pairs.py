"""Question-answer pairs with known answers, from the exercises of a textbook; and the same with some answers wrong."""

import re
from collections.abc import Iterator, Sequence

from curricula.order import seed_of

Pair = tuple[str, str]

_EXERCISE = re.compile(
    r'<div data-type="exercise"[^>]*>\s*<div data-type="problem"[^>]*>(.*?)</div>'
    r'\s*<div data-type="solution"[^>]*>(.*?)</div>',
    re.DOTALL,
)
_CHOICE = re.compile(r"^\d+\. +(.+)$", re.MULTILINE)
_LETTER = re.compile(r"([A-Za-z])\W?")
_ATTRIBUTES = re.compile(r"^\{:.*\}$", re.MULTILINE)
_MARKUP = re.compile(r"[<>\[\]{}]")
_ESCAPED = re.compile(r"\\(.)")


def pairs_of(text: str) -> Iterator[Pair]:
    """Yield question and answer of each exercise that is words alone.

    A letter as answer becomes the choice that it names, and the choices go. Exercises with formulas, figures or links
    are left out: what they ask about is not there.

    Args:
        text: A section of an OpenStax textbook as kramdown.
    """
    for problem, solution in _EXERCISE.findall(text):
        question, answer = (_ATTRIBUTES.sub("", part).strip() for part in (problem, solution))
        choices = _CHOICE.findall(question)
        if choices and (letter := _LETTER.fullmatch(answer)):
            place = ord(letter[1].lower()) - ord("a")
            answer = choices[place] if place < len(choices) else ""
        question = _CHOICE.sub("", question)
        if question.strip() and answer and not _MARKUP.search(question + answer):
            yield _plain(question), _plain(answer)


def swapped(pairs: Sequence[Pair], share: float) -> list[Pair]:
    """The pairs, a share of which have the answer of another of these, chosen by hash of the question.

    Args:
        pairs: Questions and their answers.
        share: How many get a wrong answer.
    """
    by_hash = sorted(range(len(pairs)), key=lambda place: seed_of(0, "swapped", pairs[place][0]))
    chosen = by_hash[: round(share * len(pairs))]
    answers = dict(zip(chosen, [pairs[place][1] for place in [*chosen[1:], *chosen[:1]]], strict=True))
    return [(question, answers.get(place, answer)) for place, (question, answer) in enumerate(pairs)]


def _plain(markdown: str) -> str:
    return re.sub(r"\s+", " ", _ESCAPED.sub(r"\1", markdown.replace("*", ""))).strip()
