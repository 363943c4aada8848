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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NoReturn

from mixer.where_tokens import Token, code, split, wrong

if TYPE_CHECKING:
    import polars as pl

MAX_DEPTH = 50
_KINDS = {float: "a number", str: "text", bool: "true or false"}
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_SIGNS = {**_ORDER, "==": operator.eq, "!=": operator.ne}
_WORDS = ("and", "or", "not", "in", "true", "false")


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


def parse(text: str, types: Mapping[str, type], known: Mapping[str, Collection[str]] | None = None) -> Where:
    """The checked expression of a text; raises WhereError where it cannot be read or asks what cannot be asked.

    Args:
        text: Such as `perplexity < 60 and topic == 'physics'`.
        types: Column name -> `float`, `str` or `bool`.
        known: Column name -> the texts that it can hold, where these are known; any other is refused.

    Example:
        >>> parse('(perplexity<6e1)and topic=="physics"', {"perplexity": float, "topic": str}).canonical()
        "perplexity < 60 and topic == 'physics'"
    """
    return _Parser(text, types, known or {}).whole()


class _Parser:
    """Recursive descent over the tokens: `or` holds `and`, which holds `not`, parentheses and comparisons."""

    def __init__(self, text: str, types: Mapping[str, type], known: Mapping[str, Collection[str]]) -> None:
        self._text, self._types, self._known = text, types, known
        self._tokens = iter(split(text))
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
        raise wrong(self._text, self._token, expected)

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
                self._refuse(f"`==`, `!=` or `in` after {code(left.canonical())}: only numbers have an order")
            signs.append(self._pass())
            parts.append(self._beside(parts[-1], self._operand))
        if not signs and not (left.is_column and left.kind is bool):
            self._refuse(f"a comparison after {code(left.canonical())}")
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
            self._refuse(f"`,` or {code(closing)}")
        return _Node(word, (column, *(values[value] for value in sorted(values))))

    def _beside(self, left: _Operand, read: Callable[[], _Operand]) -> _Operand:
        """The operand that `read` finds next; refused beside one of another kind, and where both are values."""
        token = self._token
        if token.kind == "name" and left.is_column and left.kind is str and token.text not in (*self._types, *_WORDS):
            self._refuse(f"text in quotes, {code(repr(token.text))}")
        right = read()
        if not (left.is_column or right.is_column):
            raise wrong(self._text, token, f"a column, as {code(left.canonical())} is a value too")
        if left.kind is not right.kind:
            raise wrong(self._text, token, f"{_KINDS[left.kind]}, as {code(left.canonical())} is")
        self._check_known(*((left, right) if left.is_column else (right, left)), token)
        return right

    def _check_known(self, column: _Operand, value: _Operand, token: Token) -> None:
        texts = self._known.get(str(column.value)) if column.is_column and not value.is_column else None
        if texts is not None and value.value not in texts:
            near = difflib.get_close_matches(str(value.value), list(map(str, texts)), n=1)
            raise wrong(self._text, token, code(repr(near[0])) if near else f"one of {', '.join(map(repr, texts))}")

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
            return code(by_lower[near[0]])
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
