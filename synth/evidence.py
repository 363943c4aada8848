"""What an answer may rest on: quotes and names that stand in the page, and equations that hold.

Generators retouch what they quote: other dashes and quotation marks, other case, a dropped comma. So a quote is looked
for as it is, then with those differences taken out, then with a few characters wrong; but never with a wrong number.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from synth.candidate import Check, Pair

CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_ASCII = "a-zA-Z0-9,.;:!?()"
_MARKS = r"\u0300-\u036f\u3099\u309a"
# Marks are taken eight at a time: putting a long run of them in canonical order costs quadratic time.
_PIECE = re.compile(
    rf"\s++|[{_ASCII}]+(?: [{_ASCII}]+)*(?![{_MARKS}])|[\u4e00-\u9fa5]+(?![{_MARKS}])|.[{_MARKS}]{{0,8}}", re.DOTALL
)
_SAME = {
    ord(char): '"'
    for char in "'`\u00b4\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb"
    "\u300c\u300d\u300e\u300f\u301d\u301e"
}
_SAME |= {ord(char): "-" for char in "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"}
_SAME |= dict.fromkeys([0xAD, 0xFEFF, 0x2060, *range(0x200B, 0x2010)], "")
_IS_CJK = re.compile(f"[{CJK}]")
_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
_KEPT = set("\u00b2\u00b3\u00b9\u2070\u00bc\u00bd\u00be") | {chr(code) for code in range(0x2074, 0x207A)}
_KEPT |= {chr(code) for code in range(0x2150, 0x215F)}
"""Raised figures and fractions stay: NFKC would make 6\u00bd into 61/2 and 10\u00b2 into 102."""
_DIGITS = re.compile(r"\d+")
LEAST_SIMILARITY = 0.9
_LEAST_FUZZY_CHARS = 12
_MOST_FUZZY_WORK = 2e10
"""Page length times quote length squared; about a second in the worst case that rapidfuzz 3.14 was tried on (one
letter throughout). Beyond it no fuzzy match is tried."""
_BESIDE = 200
_LEAST_WORDS = {"en": 4, "zh": 5}

_CAPITAL = r"[A-Z\u00c0-\u00de][\w&.]*+"
_NAME = re.compile(rf"\b{_CAPITAL}(?:[ -](?:(?:of|and|the|for) )?{_CAPITAL})*+")
_LATIN = re.compile(r"[A-Za-z][A-Za-z0-9&]+")
_QUOTED = re.compile(r"[《〈「『“\"]([^《》〈〉「」『』“”\"]{1,60})[》〉」』”\"]")
_NOT_NAMES = frozenset(["the", "a", "an", "of", "and", "for", "i", "in", "on", "at", "to", "by", "or", "as", "s"])
_SIGNS = {"\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-", "**": "^"}
_SIGNS |= {"\\times": "*", "\\cdot": "*", "\\div": "/", "$": "", "\u20ac": "", "\u00a3": ""}
_SIDE = r"[-\d.,+*/^()% ]{1,120}"
_EQUATION = re.compile(rf"{_SIDE}(?:[=\u2248]{_SIDE})+")
# An exponent is a plain number up to 20, and never a power itself: what is computed stays small.
_BIG_POWER = re.compile(r"\^(?! ?\(?-?(?:1?\d|20)(?![\d.])\)?(?! *\^))")


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a page, `page[start:end]`, and how alike it is to what was looked for, in [0, 1]."""

    start: int
    end: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Plain:
    """A text with typography taken out, and the way back.

    Args:
        text: Lower case, NFKC, one space for each run of white space, none next to a CJK character.
        pieces: (n + 1, 2) int64: where each piece starts in `text` and in the original, then both lengths.
    """

    text: str
    pieces: np.ndarray

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The part of the original that `text[start:end]` came from; `start < end`."""
        return self._place(start)[0], self._place(end - 1)[1]

    def _place(self, position: int) -> tuple[int, int]:
        number = int(np.searchsorted(self.pieces[:-1, 0], position, side="right")) - 1
        (plain, source), (plain_end, source_end) = self.pieces[number].tolist(), self.pieces[number + 1].tolist()
        if plain_end - plain != source_end - source:
            return source, source_end
        return source + position - plain, source + position - plain + 1


@lru_cache(maxsize=16)
def plain(text: str) -> Plain:
    """The text with typography taken out; the last few are remembered, as a page has many pairs."""
    pieces, places, length = [], [], 0
    for match in _PIECE.finditer(text):
        piece = _plain_piece(match, text)
        pieces.append(piece)
        places.append((length, match.start()))
        length += len(piece)
    places.append((length, len(text)))
    return Plain("".join(pieces), np.array(places, np.int64))


def _plain_piece(match: re.Match[str], text: str) -> str:
    piece = match.group()
    if piece.isspace():
        return "" if _IS_CJK.search(text, max(0, match.start() - 1), match.end() + 1) else " "
    if len(piece) > 1 and piece.isascii():
        return piece.lower()
    if piece in _KEPT:
        return piece
    return unicodedata.normalize("NFKC", piece.translate(_SAME)).lower()


def plain_words(text: str) -> list[str]:
    """Words of the plain text as `mixer.dedup.words` tells them apart, in linear time on any text."""
    return _WORD.findall(plain(text).text)


def align(quote: str, page: str) -> Span | None:
    """Where the quote stands in the page, or None.

    First as it is, then with typography taken out, then by the best fuzzy match of at least `LEAST_SIMILARITY`
    that has the quote's digits. No fuzzy match is tried for a quote below twelve characters, for one longer than
    the page, or where it would take more than about a second.
    """
    start = page.find(quote) if quote.strip() else -1
    if start >= 0:
        return Span(start, start + len(quote), 1.0)
    wanted = plain(quote).text.strip(' "')
    if not wanted:
        return None
    whole = plain(page)
    start = whole.text.find(wanted)
    if start >= 0:
        return Span(*whole.original(start, start + len(wanted)), 1.0)
    return _fuzzy(wanted, whole) if can_be_fuzzy(wanted, whole.text) else None


def can_be_fuzzy(wanted: str, page: str) -> bool:
    """Whether a fuzzy match of these plain texts means something and costs no more than about a second."""
    return _LEAST_FUZZY_CHARS <= len(wanted) <= len(page) and len(page) * len(wanted) ** 2 <= _MOST_FUZZY_WORK


def _fuzzy(wanted: str, whole: Plain) -> Span | None:
    from rapidfuzz import fuzz

    found = fuzz.partial_ratio_alignment(wanted, whole.text, score_cutoff=100 * LEAST_SIMILARITY)
    if found is None or found.dest_end <= found.dest_start:
        return None
    # A digit at the edge may stand just outside the window, which is as long as the quote.
    near = whole.text[max(0, found.dest_start - 8) : found.dest_end + 8]
    if not set(_DIGITS.findall(wanted)) <= set(_DIGITS.findall(near)):
        return None
    return Span(*whole.original(found.dest_start, found.dest_end), found.score / 100)


def evidence(pair: Pair, page: str) -> Check:
    """Whether all quotes of the pair stand in the page; the score is the lowest similarity.

    Where the answer stands (inside a quote, in the page but not in a quote, or nowhere) is told in the detail only:
    an answer may be worked out from its evidence.
    """
    if not pair.evidence:
        return Check("evidence", passed=False, score=0.0, detail="no quotes")
    least = _LEAST_WORDS.get(pair.language, 4)
    spans = []
    for quote in pair.evidence:
        if len(plain_words(quote)) < least:
            return Check("evidence", passed=False, score=0.0, detail=f"too short: {quote[:40]!r}")
        span = align(quote, page)
        if span is None:
            return Check("evidence", passed=False, score=0.0, detail=_why_not(quote, page))
        spans.append(span)
    score = min(span.similarity for span in spans)
    return Check("evidence", passed=True, score=score, detail=_where(pair.answer, page, spans))


def _why_not(quote: str, page: str) -> str:
    wanted, whole = plain(quote).text.strip(' "'), plain(page).text
    reason = "not in the page" if can_be_fuzzy(wanted, whole) else "not in the page word for word, fuzzy not tried"
    return f"{reason}: {quote[:40]!r}"


def _where(answer: str, page: str, spans: list[Span]) -> str:
    wanted = plain(answer).text.strip(' ".,;:!?\u3002')
    if wanted and any(wanted in plain(page[span.start : span.end]).text for span in spans):
        return "answer inside a quote"
    near = (page[max(0, span.start - _BESIDE) : span.end + _BESIDE] for span in spans)
    if wanted and any(wanted in plain(text).text for text in near):
        return "answer beside a quote"
    return "answer not in the quotes"


def missing_names(text: str, page: str, question: str, language: str) -> list[str]:
    """Names in the text that neither the page nor the question holds.

    English: acronyms and runs of capitalised words, less the word that opens a sentence; each word must be there, in
    any case and with any ending behind its fifth letter, or the acronym be the initials of a name. Chinese: words in
    Latin letters, and what stands in quotation marks or book-title marks.
    """
    if language == "zh":
        held = (plain(page).text, plain(question).text)
        named = _QUOTED.findall(text) + _LATIN.findall(text)
        return [name for name in named if not any(plain(name).text.strip() in one for one in held)]
    found = []
    for match in _NAME.finditer(text):
        parts = re.split("[ -]", match.group())
        before = text[max(0, match.start() - 20) : match.start()].rstrip(" \"'\u201c\u2018(*-")
        is_acronym = len(parts[0]) > 1 and parts[0].isupper()
        named = parts[1:] if (not before or before[-1] in ".!?:;\n") and not is_acronym else parts
        if not all(_is_known(part, page, question) for part in named):
            found.append(match.group())
    return found


def _is_known(part: str, *texts: str) -> bool:
    known = [_name_words(text) for text in texts]

    def is_held(word: str) -> bool:
        forms = {word, word[: max(5, min(len(word) - 2, 20))] + "*"}
        return any(not forms.isdisjoint(one) for one in known)

    if is_held(part.replace(".", "").lower()):
        return True
    return all(word in _NOT_NAMES or is_held(word) for word in plain_words(part))


@lru_cache(maxsize=16)
def _name_words(text: str) -> frozenset[str]:
    """Words, beginnings of words marked with an asterisk, and the initials of names."""
    held = set(plain_words(text))
    starts = {word[:size] + "*" for word in held for size in range(5, min(len(word), 20) + 1)}
    initials = (
        "".join(part[0] for part in re.split("[ -]", name) if part[0].isupper()) for name in _NAME.findall(text)
    )
    return frozenset(held | starts | {letters.lower() for letters in initials})


def equations(text: str) -> Iterator[tuple[list[str], list[Fraction], bool]]:
    """Yield the sides, their values and whether they agree, for each equation between numbers in a text.

    A side that is a bare number may be the rounded value of the first side.
    """
    text = unicodedata.normalize("NFKC", text)
    for sign, ascii_sign in _SIGNS.items():
        text = text.replace(sign, ascii_sign)
    for match in _EQUATION.finditer(re.sub(r"(?<=\d) ?x ?(?=\d)", "*", text)):
        sides = [_trimmed(side) for side in re.split("[=\u2248]", match.group())]
        values = [value for side in sides if (value := calculate(side)) is not None]
        if len(values) == len(sides) and is_sum(sides[0]):
            agree = all(_agree(values[0], value, side) for value, side in zip(values, sides, strict=True))
            yield sides, values, agree


def is_sum(side: str) -> bool:
    """Whether something is computed on this side of an equation."""
    return re.search(r"[\d)%] ?[-+*/^] ?[\d(]", side) is not None


def _trimmed(side: str) -> str:
    """One side of an equation without the end of the sentence before it or the start of the next."""
    side = max(re.split(r"[.,] ", side.strip(" .,")), key=len).strip()
    return side if side.count("(") == side.count(")") else side.strip("() ")


def _agree(exact: Fraction, stated: Fraction, side: str) -> bool:
    decimals = len(side.rstrip("% ").partition(".")[2]) + 2 * side.endswith("%")
    # A leading dash is more often a list's than a sign.
    return abs(abs(exact) - abs(stated)) <= (0 if is_sum(side) else Fraction(1, 2 * 10**decimals))


def calculate(expression: str) -> Fraction | None:
    """The value of an expression of numbers, `+ - * / ^ ( )` and percent signs; None if it is no such, or too big."""
    expression = re.sub(r"(?<=\d),(?=\d{3})", "", expression).replace("%", "/100")
    if len(expression) > 120 or not re.fullmatch(r"[-0-9.+*/^() ]*[0-9][-0-9.+*/^() ]*", expression):
        return None
    if re.search(r"[*/] *[*/]", expression) or expression.count("^") > 2 or _BIG_POWER.search(expression):
        return None
    from sympy import Float, Integer, Rational
    from sympy.parsing.sympy_parser import auto_number, parse_expr, rationalize

    names = {"Integer": Integer, "Float": Float, "Rational": Rational}
    try:
        # sympy compiles what it parses, but only figures and signs come this far.
        value = parse_expr(expression.replace("^", "**"), {}, (auto_number, rationalize), names)
    except Exception:  # Each kind of mistake in the expression raises another error.
        return None
    return Fraction(int(value.p), int(value.q)) if isinstance(value, Rational) and value.is_finite else None
