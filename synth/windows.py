"""A page in parts that fit a prompt, cut where sentences end, and the passages worth asking about."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mixer.run import digest
from synth.standalone import points_elsewhere

_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])|(?<=[。！？；])[”’」』）]*|\n+")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|cf|vs|Fig|Figs|Eq|Eqs|Dr|Mr|Mrs|Ms|Prof|St|No|approx|al|[A-Z])\.$")
_WORD = re.compile(r"[^\W\d_]{2,}")
_HAN = re.compile(r"[\u3400-\u9fff]")
_STATEMENT = re.compile(
    r"(?:(?:The|A|An|Most|Many|All|Some) )?(?!(?:It|This|These|That|Those|They|We|You|He|She|There|Here|If|In|When)\b)"
    r"[A-Z]?[\w’'-]+(?: [\w’'-]+){0,5} "
    r"(?:is|are|was|were|refers to|means|consists? of|contains?|forms?|makes?|causes?)\b"
    r"|[\u3400-\u9fff]{2,12}(?:是|指|由|为|包括)"
)


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a page: `page[start:end]`."""

    start: int
    end: int


def sentences(text: str, start: int = 0, end: int | None = None) -> list[Window]:
    """The sentences of `text[start:end]`, without the space between them; line ends are sentence ends too.

    Example:
        >>> text = "Cats purr. See Fig. 3 for it.  Dogs don't!"
        >>> [text[s.start : s.end] for s in sentences(text)]
        ['Cats purr.', 'See Fig. 3 for it.', "Dogs don't!"]
    """
    end = len(text) if end is None else end
    found, first = [], start
    for cut in _END.finditer(text, start, end):
        if "\n" not in cut[0] and _ABBREVIATION.search(text, max(first, cut.start() - 8), cut.start()):
            continue
        found.append(_trimmed(text, first, cut.end()))
        first = cut.end()
    found.append(_trimmed(text, first, end))
    return [sentence for sentence in found if sentence.end > sentence.start]


def _trimmed(text: str, start: int, end: int) -> Window:
    part = text[start:end]
    return Window(start + len(part) - len(part.lstrip()), end - (len(part) - len(part.rstrip())))


def windows(text: str, limit: int) -> list[Window]:
    """The page in parts of at most `limit` characters, cut between sentences, or inside one that is longer."""
    parts: list[Window] = []
    for sentence in sentences(text):
        pieces = [Window(at, min(at + limit, sentence.end)) for at in range(sentence.start, sentence.end, limit)]
        for piece in pieces:
            if parts and piece.end - parts[-1].start <= limit:
                parts[-1] = Window(parts[-1].start, piece.end)
            else:
                parts.append(piece)
    return parts


def passages(text: str, window: Window) -> list[Window]:
    """The sentences of a window that state enough to ask about: no headings, questions, lists, or words on a figure."""
    return [found for found in sentences(text, window.start, window.end) if _is_worth(text[found.start : found.end])]


def _is_worth(sentence: str) -> bool:
    if points_elsewhere(sentence) or sentence.rstrip("\"'”)")[-1:] in {"?", "？"}:
        return False
    if len(_HAN.findall(sentence)) >= 12:
        return len(sentence) <= 300
    words = _WORD.findall(sentence)
    letters = sum(map(len, words))
    return 8 <= len(words) <= 80 and letters >= 0.6 * len(sentence.replace(" ", "")) and sentence[-1] in ".!\"'”)"


def is_statement(sentence: str) -> bool:
    """Whether a sentence says what something is or does, so that it can be asked about: it begins with its subject.

    Example:
        >>> is_statement("A mutex is a lock that one thread holds."), is_statement("If so, it is released.")
        (True, False)
    """
    return _STATEMENT.match(sentence) is not None


def choose(items: Sequence[Window], count: int, *names: object) -> list[Window]:
    """At most `count` of the items, by hash of the names and the place, in page order."""
    ranked = sorted(items, key=lambda item: digest([*map(str, names), item.start, item.end]))
    return sorted(ranked[:count], key=lambda item: item.start)
