"""One JSON object a line. A line that is not ours is skipped unparsed; blank lines are no rows."""

import io
from collections.abc import Iterator

import orjson

from mixer.readers.rows import Part, Tabular, page
from mixer.readers.streams import lines, too_long
from mixer.types import Failure, Page, Skipped


def rows(stream: io.BufferedReader, name: str, source: Tabular, part: Part) -> Iterator[Page | Skipped | Failure]:
    """A Page or a Failure for each row of ours, `name#row` where no column holds the id."""
    for number, line in enumerate(lines(stream)):
        if part.owns(number):
            yield _row(line, f"{name}#{number}", source)


def _row(line: bytes | None, name: str, source: Tabular) -> Page | Skipped | Failure:
    if line is None:
        return too_long(name)
    try:
        # orjson refuses lone surrogates and invalid UTF-8, and stops at 1024 levels instead of recursing on.
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Failure(name, f"bad json: {error.msg} at column {error.colno}")
    return page(row, name, source)
