"""The words and signs of a `where` expression, each with its place, and how a wrong one is told."""

import re
import unicodedata
from itertools import islice
from typing import NamedTuple

MAX_WORDS = 2000
_AROUND = 60
# A lone surrogate ends no text: polars could not take it.
_PATTERN = re.compile(
    r"""(?P<space>\s+)
    | (?P<number>-?(?:[0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![\w.-]))
    | (?P<text>'(?:[^'\ud800-\udfff]++|'')*+'|"(?:[^"\ud800-\udfff]++|"")*+")
    | (?P<name>\w[\w.-]*)
    | (?P<sign><=|>=|==|!=|[<>()\[\],])
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_MEANT = {"=": "==", "&": "and", "|": "or", "!": "not", "≤": "<=", "≥": ">=", "≠": "!="}
_MEANT |= dict.fromkeys("“”", '"') | dict.fromkeys("‘’", "'") | {sign: sign for sign in "<>()[],"}


class WhereError(ValueError):
    """What is wrong with an expression, in one line (`message`), and at which offset of it (`position`)."""

    def __init__(self, message: str, text: str, position: int) -> None:
        super().__init__(message, text, position)
        self.message, self.text, self.position = message, text, position

    def __str__(self) -> str:
        start = max(0, self.position - _AROUND)
        before = ("..." if start else "") + _one_line(self.text[start : self.position])
        after = _one_line(self.text[self.position : self.position + _AROUND])
        # A Chinese character is two columns wide, and so must the blank under it be.
        blanks = ("\u3000" if unicodedata.east_asian_width(letter) in "WF" else " " for letter in before)
        return f"{self.message}\n{before}{after}\n{''.join(blanks)}^"


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def code(text: str) -> str:
    """The text as code for a message, on one line and not too long."""
    return f"`{_one_line(text if len(text) <= _AROUND else text[: _AROUND - 3] + '...')}`"


class Token(NamedTuple):
    """What it is (a group of the pattern, or `end`), its text and its offset."""

    kind: str
    text: str
    position: int


def split(text: str) -> list[Token]:
    """The tokens of an expression, the last of them its end; raises WhereError for too many."""
    found = (match for match in _PATTERN.finditer(text) if match.lastgroup != "space")
    tokens = [Token(str(match.lastgroup), match[0], match.start()) for match in islice(found, MAX_WORDS + 1)]
    if len(tokens) > MAX_WORDS:
        raise wrong(text, tokens[-1], f"at most {MAX_WORDS} words and signs")
    return [*tokens, Token("end", "", len(text))]


def wrong(text: str, token: Token, expected: str) -> WhereError:
    """The error that a token is not what was expected; names what a foreign sign was meant to be."""
    got = code(token.text) if token.text else "the end"
    if token.kind == "other" and token.text in "'\"":
        expected = f"another {got} to end the text (inside it, a quote is written twice)"
    elif token.kind == "other" and (meant := _MEANT.get(unicodedata.normalize("NFKC", token.text))):
        expected = code(meant)
    return WhereError(f"got {got}, expected {expected}", text, token.position)
