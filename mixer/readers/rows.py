"""What every kind of row shares: which rows are ours, and how the fields of one become a Page."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mixer.recipe.sources import Columns, Files, HtmlSource, HubSource, JsonlSource, ParquetSource, Source
from mixer.types import Failure, Format, Page, Skipped

Tabular = HtmlSource | JsonlSource | ParquetSource | HubSource

_MISSING = object()
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Part:
    """Which rows of a file are read: those with `row % stripes == stripe`."""

    stripe: int
    stripes: int

    def owns(self, row: int) -> bool:
        """Whether the row with this number is ours."""
        return row % self.stripes == self.stripe


class BadRowError(Exception):
    """The row cannot become a Page; the text is the reason."""


def page(row: object, name: str, source: Tabular) -> Page | Skipped | Failure:
    """The Page that a row holds; Skipped where its text is empty or null, Failure where the row is wrong."""
    columns = source.columns
    markup: Format = "html" if isinstance(source, HtmlSource) else source.format
    try:
        if not isinstance(row, Mapping):
            raise BadRowError(f"not an object: {type(row).__name__}")
        content = _content(row, columns.text, markup)
        if not content:
            return Skipped(name, "empty text")
        return Page(
            id=name if columns.id is None else _id(row, columns.id),
            content=content,
            format=markup,
            url=_string(_first(row, columns.url)),
            metadata=_metadata(row, columns, source),
        )
    except BadRowError as bad:
        return Failure(name, str(bad))


def printable(name: str) -> str:
    """The name without control characters, line separators and what UTF-8 cannot write."""
    return _UNPRINTABLE.sub("_", name)


def declared(source: Files) -> dict[str, str]:
    """The metadata that the recipe states for a whole source."""
    stated = {"licence": source.licence, "language": source.language}
    return {key: value for key, value in stated.items() if value}


def _metadata(row: Mapping[str, Any], columns: Columns, source: Source) -> dict[str, str]:
    fields = {column: column for column in columns.keep}
    fields |= {"licence": columns.licence, "language": columns.language}
    found = {key: _string(_first(row, path)) for key, path in fields.items()}
    return {key: value for key, value in found.items() if value} | declared(source)


def _id(row: Mapping[str, Any], column: str) -> str:
    value = _first(row, column)
    if value is None or value == "":
        raise BadRowError(f"missing field: {column}")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRowError(f"not an id: {column} is {type(value).__name__}")
    return str(_string(value))


def _content(row: Mapping[str, Any], columns: str | Sequence[str], markup: Format) -> str | bytes:
    """The text fields, joined; empty where none of them holds anything."""
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    pieces = [piece for name in names for piece in _pieces(row, name)]
    if markup == "html" and len(pieces) == 1:
        return pieces[0]
    texts = [_decoded(piece, names) for piece in pieces]
    if markup == "html" and len(texts) > 1:
        return "\n".join(f"<div>{text}</div>" for text in texts)
    return "\n\n".join(texts)


def _pieces(row: Mapping[str, Any], name: str) -> Iterator[str | bytes]:
    for value in find(row, name):
        if value is _MISSING:
            raise BadRowError(f"missing field: {name}")
        if value is None:
            continue
        if not isinstance(value, str | bytes):
            raise BadRowError(f"not a string: {name} is {type(value).__name__}")
        if isinstance(value, str):
            _check_encodable(value, name)
        if value.strip():
            yield value


def _check_encodable(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRowError(f"bad text: {name} has a lone surrogate at character {error.start}") from None


def _decoded(piece: str | bytes, names: Sequence[str]) -> str:
    if isinstance(piece, str):
        return piece
    try:
        return piece.decode()
    except UnicodeDecodeError as error:
        raise BadRowError(f"bad text: {', '.join(names)}: invalid utf-8 at byte {error.start}") from None


def find(row: Mapping[str, Any], path: str) -> list[Any]:
    """The values at a dotted path; a list on the way fans out, and a field of that very name goes first.

    Example:
        >>> find({"answers": [{"html": "a"}, {"html": "b"}]}, "answers.html")
        ['a', 'b']
    """
    return list(_walk(row, [path] if path in row else path.split(".")))


def _walk(value: Any, keys: list[str]) -> Iterator[Any]:
    # A stack instead of recursion: hostile JSON nests a thousand lists.
    waiting = [(value, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, list):
            waiting += [(item, depth) for item in reversed(value)]
        elif depth == len(keys):
            yield value
        elif isinstance(value, Mapping) and keys[depth] in value:
            waiting.append((value[keys[depth]], depth + 1))
        else:
            yield _MISSING


def _first(row: Mapping[str, Any], path: str) -> Any:
    found = [value for value in find(row, path) if value is not _MISSING]
    if len(found) > 1:
        return found
    return found[0] if found else None


def _string(value: Any) -> str | None:
    """A short fact as text that can be written as UTF-8; None where there is none."""
    if value is None or value == "":
        return None
    try:
        text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode().strip('"')
    except orjson.JSONEncodeError:
        text = f"({type(value).__name__})"
    return text.encode("utf-8", "replace").decode()
