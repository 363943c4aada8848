"""Rows of benchmark files: JSON Lines, CSV with a header line, or a tar of such files; each with where it stands.

What cannot be read is an error and never left out, or an item would be trained on unseen. Of a tar's members only those
that are plainly no data (a licence, a hidden file) are passed over.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from mixer.errors import SourceError
from mixer.readers import archive
from mixer.readers.streams import DAMAGE, MAX_ROW_BYTES, damaged, every_line, open_stream, unwrapped

_HINT = "a benchmark is .jsonl or .csv, also .gz or .zst, or a .tar of these; check the path, or fetch the file again"
_WRAPPERS = {".gz", ".zst"}
_ARCHIVES = {".tar", ".tgz", ".tzst"}
_TABLES = {".csv", ".json", ".jsonl", ".ndjson"}
_NO_DATA = {"", ".bib", ".cff", ".htm", ".html", ".jpg", ".md", ".pdf", ".png", ".py", ".rst", ".sh", ".svg", ".toml"}
_NO_DATA |= {".txt", ".yaml", ".yml"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a benchmark file.

    Args:
        place: File and line, for messages.
        line: In its file, from 1; the last one, where a row has several.
        member: The file's name inside a tar, without endings; empty outside of one.
        values: By column.
    """

    place: str
    line: int
    member: str
    values: Mapping[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """Every row of a file, in order.

    Raises:
        SourceError: The file is missing, damaged or empty, or a row cannot be read.
    """
    try:
        with open_stream(str(path)) as stream:
            if _suffix(path.name) in _ARCHIVES:
                yield from _tar(stream, str(path))
            else:
                yield from _file(stream, path.name, str(path))
    except DAMAGE as error:
        raise _unreadable(str(path), error) from error


def bare_name(name: str) -> str:
    """A file's name without the endings that say how it is written.

    Example:
        >>> bare_name("dev/college.physics.csv.zst")
        'dev/college.physics'
    """
    path = PurePosixPath(name)
    while path.suffix.lower() in _WRAPPERS | _ARCHIVES | _TABLES:
        path = path.with_suffix("")
    return str(path)


def _suffix(name: str) -> str:
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in _WRAPPERS else path.suffix


def _unreadable(place: str, error: BaseException) -> SourceError:
    told = damaged(place, error).reason
    return SourceError(f"{place}: got {told}, expected a benchmark file", hint=_HINT)


def _tar(stream: io.BufferedReader, place: str) -> Iterator[Row]:
    seen: set[str] = set()
    with archive.opened(stream) as tar:
        for number, member in enumerate(archive.files(tar)):
            name, inside = archive.neutral(member.name), f"{place}/{archive.neutral(member.name)}"
            suffix = _suffix(name)
            if PurePosixPath(name).name.startswith(".") or suffix in _NO_DATA:
                continue
            if suffix not in _TABLES:
                hint = "write it as .jsonl or .csv, or take it out of the archive"
                raise SourceError(f"{inside}: got a {suffix} file in an archive, expected .jsonl or .csv", hint=hint)
            if member.size > MAX_ROW_BYTES:
                raise SourceError(
                    f"{inside}: got {member.size:,} bytes, expected at most {MAX_ROW_BYTES:,}", hint=_HINT
                )
            # A tar may hold one name twice.
            label = f"{bare_name(name)}@{number}" if bare_name(name) in seen else bare_name(name)
            seen.add(label)
            try:
                yield from _file(unwrapped(io.BytesIO(archive.content(tar, member))), name, inside, label)
            except DAMAGE as error:
                raise _unreadable(inside, error) from error
    if not seen:
        raise SourceError(f"{place}: got an archive without a .jsonl or .csv file, expected one", hint=_HINT)


def _file(stream: io.BufferedReader, name: str, place: str, member: str = "") -> Iterator[Row]:
    found = _csv(stream, place) if _suffix(name) == ".csv" else _json_lines(stream, place)
    rows = 0
    for line, values in found:
        rows += 1
        yield Row(f"{place}:{line}", line, member, values)
    if not rows:
        raise SourceError(f"{place}: got no row, expected one benchmark item a line", hint="check the path")


def _lines(stream: io.BufferedReader, place: str) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(every_line(stream), 1):
        if line is None:
            hint = "a benchmark file holds one item a line"
            raise SourceError(f"{place}:{number}: got a line that is too long to read, expected one item", hint=hint)
        yield number, line


def _json_lines(stream: io.BufferedReader, place: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    hint = "a benchmark file holds one JSON object a line"
    for number, line in _lines(stream, place):
        if not line.strip():
            continue
        try:
            values = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise SourceError(f"{place}:{number}: got bad json ({error.msg}), expected an object", hint=hint) from None
        if not isinstance(values, Mapping):
            raise SourceError(f"{place}:{number}: got {type(values).__name__}, expected an object", hint=hint)
        yield number, values


def _csv(stream: io.BufferedReader, place: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(_text(stream, place), strict=True)
    try:
        header = next(reader, [])
        twice = next((name for name in header if name and header.count(name) > 1), None)
        if twice is not None:
            raise SourceError(
                f"{place}:1: got the column `{twice}` twice, expected names of columns",
                hint="the first line of a .csv names its columns; write one above the rows",
            )
        for cells in reader:
            if cells and len(cells) != len(header):
                told = f"got {len(cells)} cells, expected {len(header)} as in its first line"
                raise SourceError(f"{place}:{reader.line_num}: {told}", hint='put cells with commas in "quotes"')
            if cells:
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        problem = f"{place}:{reader.line_num}: got bad csv ({error}), expected cells between commas"
        raise SourceError(
            problem, hint='put cells with commas or quotes in "quotes", and double quotes in them'
        ) from error


def _text(stream: io.BufferedReader, place: str) -> Iterator[str]:
    for number, line in _lines(stream, place):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            problem = f"{place}:{number}: got invalid utf-8 at byte {error.start}, expected text"
            raise SourceError(problem, hint="convert the file to UTF-8") from None
