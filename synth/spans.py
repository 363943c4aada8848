"""The words of a passage that a question can ask for: numbers with their units, names, terms; chosen, not invented."""

import re
from collections.abc import Iterator

from mixer.run import digest
from synth.candidate import QuestionType

_UNIT = r"(?:\s?(?:%|°\s?[CFK]?|[a-zA-Zµμ]{1,12}\b(?:/[a-z]+)?))?"
_NUMBER = re.compile(
    rf"(?<![\w.,-])(?:about |some |over |nearly )?\d[\d,]*(?:\.\d+)?{_UNIT}"
    r"|\d[\d,.]*\s?(?:%|万|亿)?[\u3400-\u9fff]{0,2}"
)
_NAME = re.compile(
    r"(?<=[a-z,;:] )(?:[A-Z][\w’'-]+|[A-Z]{2,})(?: (?:of |the )?[A-Z][\w’'-]+)*|《[^》]{1,30}》|“[^”]{2,30}”"
)
_WORD = re.compile(r"[A-Za-z][A-Za-z’'-]*")
_STOP_WORDS = """
a an the and or but nor so yet if then than that this these those it its they them their he she his her
we our you your i is are was were be been being am do does did has have had having will would can could
may might must shall should not no of in on at by for to from with without into onto over under between
among through during before after above below up down out off about as also only very much many more
most less least such same other another each every all any both few some which who whom whose what when
where why how there here because while although though since until unless however therefore thus hence
just even still already often usually always never again called known used using use make makes made
like one two first second new per via let us see example figure table
"""
_STOP = frozenset(_STOP_WORDS.split())
_MOST_WORDS = 4
_LEAST_CHARS = 5


def answer_of(passage: str, kind: QuestionType, language: str, *names: object) -> str | None:
    """The span of the passage to ask for, by hash of the names, or None where the passage offers none of that kind."""
    found = list(dict.fromkeys(candidates(passage, kind, language)))
    if not found:
        return None
    return min(found, key=lambda span: digest([*map(str, names), span]))


def candidates(passage: str, kind: QuestionType, language: str) -> Iterator[str]:
    """Spans of a passage that can be the answer to a question of this type.

    Example:
        >>> list(candidates("Water boils at 100 °C at the level of the sea in Lisbon.", "numeric", "en"))
        ['100 °C']
    """
    if kind == "numeric":
        yield from (match[0].strip() for match in _NUMBER.finditer(passage))
        return
    yield from (match[0].strip("“”") for match in _NAME.finditer(passage))
    yield from _chinese_terms(passage) if language == "zh" else _terms(passage)


def _terms(passage: str) -> Iterator[str]:
    """Runs of up to four words without a stop word or a mark between them."""
    for clause in re.split(r"[^\w’' -]+", passage):
        run: list[str] = []
        for word in [*clause.split(), ""]:
            if _WORD.fullmatch(word) and word.lower() not in _STOP and not word.lower().endswith("ly"):
                run.append(word)
                continue
            if run and sum(map(len, run)) >= _LEAST_CHARS and 2 <= len(run) <= _MOST_WORDS:
                yield " ".join(run)
            run = []


def _chinese_terms(passage: str) -> Iterator[str]:
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    for word in jieba.lcut(passage):
        if len(word) >= 3 and all("\u3400" <= character <= "\u9fff" for character in word):
            yield word
