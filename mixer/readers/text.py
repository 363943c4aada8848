"""Plain text: one document a file, a paragraph or a line."""

import io
from collections.abc import Iterator

from mixer.readers.rows import Part, declared
from mixer.readers.streams import MAX_ROW_BYTES, every_line, lines, too_long
from mixer.recipe.sources import TextSource
from mixer.types import Failure, Page


def rows(stream: io.BufferedReader, name: str, source: TextSource, part: Part) -> Iterator[Page | Failure]:
    """A Page or a Failure for each piece of ours: `name` for a whole file, else `name#number`."""
    if source.split == "file":
        yield _file(stream, name, source)
        return
    pieces = lines(stream) if source.split == "line" else _paragraphs(stream)
    for number, piece in enumerate(pieces):
        if part.owns(number):
            yield _piece(piece, f"{name}#{number}", source)


def _file(stream: io.BufferedReader, name: str, source: TextSource) -> Page | Failure:
    content = stream.read(MAX_ROW_BYTES + 1)
    if len(content) > MAX_ROW_BYTES:
        return too_long(name)
    # Not decoded here: an old text file may be in any encoding.
    return Page(name, content, source.format, metadata=declared(source))


def _piece(piece: bytes | None, name: str, source: TextSource) -> Page | Failure:
    if piece is None:
        return too_long(name)
    try:
        text = piece.decode().strip("\r\n")
    except UnicodeDecodeError as error:
        return Failure(name, f"bad text: invalid utf-8 at byte {error.start}")
    return Page(name, text, source.format, metadata=declared(source))


def _paragraphs(stream: io.BufferedReader) -> Iterator[bytes | None]:
    held: list[bytes] = []
    size = 0
    for line in every_line(stream):
        if line is None or not line.isspace():
            size += MAX_ROW_BYTES + 1 if line is None else len(line)
            if size <= MAX_ROW_BYTES and line is not None:
                held.append(line)
        elif size:
            yield b"".join(held) if size <= MAX_ROW_BYTES else None
            held, size = [], 0
    if size:
        yield b"".join(held) if size <= MAX_ROW_BYTES else None
