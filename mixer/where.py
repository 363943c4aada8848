"""The `where` of a recipe's source: an expression over score columns that says which Documents stay.

Conditions joined by `and`, `or`, `not` and parentheses: a column that is true or false; comparisons, chained too, as in
`1 < perplexity <= 60`; `in` and `not in` with a list in `(...)` or `[...]`. Values: `1_000`, `-2.5`, `1e3`, `'text'`,
`"text"` (a quote inside is written twice), `true`, `false`. Like compares with like; only numbers have an order.

A missing value (null, and NaN, which polars would put above every number) makes a comparison neither true nor false,
as in SQL; what is not true at the very end does not stay: none of `x < 5`, `x != 5`, `not x < 5` keeps a missing `x`.
"""

import difflib
import math
import operator
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    import polars as pl

MAX_WORDS = 2000
MAX_DEPTH = 50
_AROUND = 60
_KINDS = {float: "a number", str: "text", bool: "true or false"}
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_SIGNS = {**_ORDER, "==": operator.eq, "!=": operator.ne}
_WORDS = ("and", "or", "not", "in", "true", "false")
# A lone surrogate ends no text: polars could not take it.
_TOKEN = re.compile(
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


def _code(text: str) -> str:
    return f"`{_one_line(text if len(text) <= _AROUND else text[: _AROUND - 3] + '...')}`"


@dataclass(frozen=True, slots=True)
class _Operand:
    """A column, by its name, or a value; a bool column is a condition too."""

    value: float | str | bool
    kind: type
    is_column: bool

    def expression(self) -> "pl.Expr":
        import polars as pl

        if not self.is_column:
            return pl.lit(self.value)
        column = pl.col(str(self.value))
        return column.fill_nan(None) if self.kind is float else column

    def canonical(self) -> str:
        if self.is_column:
            return str(self.value)
        if isinstance(self.value, str):
            quote = '"' if "'" in self.value and '"' not in self.value else "'"
            return quote + self.value.replace(quote, quote * 2) + quote
        if isinstance(self.value, bool):
            return str(self.value).lower()
        return str(int(self.value)) if self.value.is_integer() and abs(self.value) < 1e16 else repr(self.value)


@dataclass(frozen=True, slots=True)
class _Node:
    """Parts under `and`, `or`, `not`, `in` or `not in`; or the operands of a `chain`, with the signs between them."""

    word: str
    parts: tuple["_Node | _Operand", ...]
    signs: tuple[str, ...] = ()

    def expression(self) -> "pl.Expr":
        import polars as pl

        parts = [part.expression() for part in self.parts]
        if self.word == "not":
            return ~parts[0]
        if self.word in ("in", "not in"):
            found = pl.any_horizontal([parts[0] == value for value in parts[1:]])
            return found if self.word == "in" else ~found
        if self.word == "chain":
            parts = [_SIGNS[sign](*pair) for sign, pair in zip(self.signs, pairwise(parts), strict=True)]
        # One flat node, not a `&` a part: a long expression would be a deep one for polars.
        return pl.any_horizontal(parts) if self.word == "or" else pl.all_horizontal(parts)

    def canonical(self) -> str:
        # Only the parentheses that the text needed too, so that what was within MAX_DEPTH stays within it.
        loose = {"and": ("or",), "not": ("or", "and")}.get(self.word, ())
        texts = [
            f"({part.canonical()})" if isinstance(part, _Node) and part.word in loose else part.canonical()
            for part in self.parts
        ]
        if self.word == "not":
            return f"not {texts[0]}"
        if self.word in ("in", "not in"):
            return f"{texts[0]} {self.word} [{', '.join(texts[1:])}]"
        if self.word == "chain":
            return " ".join([texts[0], *(f"{sign} {text}" for sign, text in zip(self.signs, texts[1:], strict=True))])
        return f" {self.word} ".join(texts)


@dataclass(frozen=True, slots=True)
class Where:
    """A checked expression: its `text` as the recipe has it, and the `names` of the columns it uses, sorted."""

    text: str
    names: tuple[str, ...]
    _root: _Node | _Operand = field(repr=False)

    def expression(self) -> "pl.Expr":
        """Whether each row stays: true or false, never null, over a frame that has the columns `names`."""
        return self._root.expression().fill_null(value=False)

    def canonical(self) -> str:
        """The same expression with one spacing, one way of quoting and no parentheses to spare; for fingerprints."""
        return self._root.canonical()


def parse(text: str, types: Mapping[str, type]) -> Where:
    """The checked expression of a text; raises WhereError where it cannot be read or asks what cannot be asked.

    Args:
        text: Such as `perplexity < 60 and topic == 'physics'`.
        types: Column name -> `float`, `str` or `bool`.

    Example:
        >>> parse('(perplexity<6e1)and topic=="physics"', {"perplexity": float, "topic": str}).canonical()
        "perplexity < 60 and topic == 'physics'"
    """
    return _Parser(text, types).whole()


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def _split(text: str) -> list[_Token]:
    found = (match for match in _TOKEN.finditer(text) if match.lastgroup != "space")
    tokens = [_Token(str(match.lastgroup), match[0], match.start()) for match in islice(found, MAX_WORDS + 1)]
    if len(tokens) > MAX_WORDS:
        raise _wrong(text, tokens[-1], f"at most {MAX_WORDS} words and signs")
    return [*tokens, _Token("end", "", len(text))]


def _wrong(text: str, token: _Token, expected: str) -> WhereError:
    got = _code(token.text) if token.text else "the end"
    if token.kind == "other" and token.text in "'\"":
        expected = f"another {got} to end the text (inside it, a quote is written twice)"
    elif token.kind == "other" and (meant := _MEANT.get(unicodedata.normalize("NFKC", token.text))):
        expected = _code(meant)
    return WhereError(f"got {got}, expected {expected}", text, token.position)


class _Parser:
    """Recursive descent over the tokens: `or` holds `and`, which holds `not`, parentheses and comparisons."""

    def __init__(self, text: str, types: Mapping[str, type]) -> None:
        self._text, self._types = text, types
        self._tokens = iter(_split(text))
        self._token = next(self._tokens)
        self._used: set[str] = set()

    def whole(self) -> Where:
        root = self._joined("or", 0)
        if self._token.kind != "end":
            self._refuse("`and`, `or` or the end")
        return Where(self._text, tuple(sorted(self._used)), root)

    def _pass(self) -> str:
        passed, self._token = self._token, next(self._tokens)
        return passed.text

    def _accept(self, *texts: str) -> str:
        """The next token if it is one of these, and then passes it; else empty."""
        return self._pass() if self._token.text in texts else ""

    def _refuse(self, expected: str) -> NoReturn:
        raise _wrong(self._text, self._token, expected)

    def _joined(self, word: str, depth: int) -> _Node | _Operand:
        parts: list[_Node | _Operand] = []
        while not parts or self._accept(word):
            parts.append(self._joined("and", depth) if word == "or" else self._single(depth))
        return parts[0] if len(parts) == 1 else _Node(word, tuple(parts))

    def _single(self, depth: int) -> _Node | _Operand:
        if depth == MAX_DEPTH and self._token.text in ("not", "("):
            self._refuse(f"at most {MAX_DEPTH} levels of parentheses and `not`")
        if self._accept("not"):
            return _Node("not", (self._single(depth + 1),))
        if not self._accept("("):
            return self._relation(self._operand())
        inner = self._joined("or", depth + 1)
        return inner if self._accept(")") else self._refuse("`and`, `or` or `)`")

    def _relation(self, left: _Operand) -> _Node | _Operand:
        if left.is_column and self._token.text in ("in", "not"):
            return self._member(left)
        parts = [left]
        signs: list[str] = []
        while self._token.text in _SIGNS:
            if self._token.text in _ORDER and left.kind is not float:
                self._refuse(f"`==`, `!=` or `in` after {_code(left.canonical())}: only numbers have an order")
            signs.append(self._pass())
            parts.append(self._beside(parts[-1], self._operand))
        if not signs and not (left.is_column and left.kind is bool):
            self._refuse(f"a comparison after {_code(left.canonical())}")
        return _Node("chain", tuple(parts), tuple(signs)) if signs else left

    def _member(self, column: _Operand) -> _Node:
        word = "not in" if self._accept("not") else "in"
        if not self._accept("in"):
            self._refuse("`in`")
        closing = {"(": ")", "[": "]"}.get(self._accept("(", "[")) or self._refuse("a list in `(...)` or `[...]`")
        values: dict[float | str, _Operand] = {}
        while not values or (self._accept(",") and self._token.text != closing):
            value = self._beside(column, self._literal)
            values[value.value] = value
        if not self._accept(closing):
            self._refuse(f"`,` or {_code(closing)}")
        return _Node(word, (column, *(values[value] for value in sorted(values))))

    def _beside(self, left: _Operand, read: Callable[[], _Operand]) -> _Operand:
        """The operand that `read` finds next; refused beside one of another kind, and where both are values."""
        token, right = self._token, read()
        if not (left.is_column or right.is_column):
            raise _wrong(self._text, token, f"a column, as {_code(left.canonical())} is a value too")
        if left.kind is not right.kind:
            raise _wrong(self._text, token, f"{_KINDS[left.kind]}, as {_code(left.canonical())} is")
        return right

    def _operand(self) -> _Operand:
        name = self._token.text
        if self._token.kind != "name" or name in _WORDS:
            return self._literal("a column or a value")
        if name not in self._types:
            self._refuse(self._offer(name))
        self._pass()
        self._used.add(name)
        return _Operand(name, self._types[name], is_column=True)

    def _offer(self, name: str) -> str:
        # A word of the grammar is offered for another case of itself only: `notes` is no misspelt `not`.
        words = (word for word in _WORDS if word == name.lower())
        by_lower = {known.lower(): known for known in (*self._types, *words)}
        if near := difflib.get_close_matches(name.lower(), by_lower, n=1):
            return _code(by_lower[near[0]])
        if name[0].isdigit():
            return "a number such as 1_000, -2.5 or 1e3"
        return f"a column ({', '.join(sorted(self._types)) or 'none is known'}), or text in quotes"

    def _literal(self, expected: str = "a value (text in quotes)") -> _Operand:
        token = self._token
        value: float | str | bool = token.text == "true"
        if token.kind == "number":
            value = float(token.text)
        elif token.kind == "text":
            value = token.text[1:-1].replace(token.text[0] * 2, token.text[0])
        elif token.text not in ("true", "false"):
            self._refuse(expected)
        if value in (math.inf, -math.inf):
            self._refuse("a number below 1.8e308")
        self._pass()
        return _Operand(value, type(value), is_column=False)
