"""Bytes out of a file, whatever it is wrapped in; what is damaged raises instead of ending early.

The magic bytes decide, never the suffix. `zstandard.stream_reader` ends without a word at a cut file and fastwarc
does so at a cut `.gz`, so both kinds of file are opened here.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from mixer.types import Failure

MAX_ROW_BYTES = 256 * 2**20
"""A longer line, file or page is a Failure: it would not fit in a worker."""

_BUFFER = 1 << 20
_ZSTD_INPUT = 1 << 13
"""Small, because 4 bytes of zstd can stand for 128 kB."""
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
_BOM = b"\xef\xbb\xbf"


class DamagedError(Exception):
    """The rest of the file cannot be read."""


DAMAGE = (DamagedError, OSError, EOFError, zlib.error, zstandard.ZstdError)


def damaged(name: str, error: BaseException) -> Failure:
    """The one Failure that stands for the rest of a file."""
    if isinstance(error, EOFError):
        return Failure(name, f"damaged file: ends too early: {error}")
    detail = " ".join(str(error).split())[:160] or type(error).__name__
    return Failure(name, f"damaged file: {detail}")


def compression(path: str) -> str:
    """`gzip`, `zstd` or `` (plain), by the first bytes of the file."""
    with Path(path).open("rb") as file:
        return _compression(file.read(4))


def _compression(start: bytes) -> str:
    if start[:2] == _GZIP:
        return "gzip"
    skippable = len(start) == 4 and start[1:] == _ZSTD_SKIPPABLE and 0x50 <= start[0] <= 0x5F
    return "zstd" if start == _ZSTD or skippable else ""


def open_stream(path: str) -> io.BufferedReader:
    """The file's bytes, decompressed on the way."""
    return unwrapped(Path(path).open("rb", buffering=0))


def unwrapped(file: io.RawIOBase | io.BytesIO) -> io.BufferedReader:
    """The bytes inside a gzip or zstd file of any number of members; other files pass through."""
    plain = _buffered(file)
    kind = _compression(plain.peek(4)[:4])
    if kind == "gzip":
        return _buffered(_Gzip(fileobj=plain))
    return _buffered(_Zstd(plain)) if kind == "zstd" else plain


def _buffered(file: Any) -> io.BufferedReader:
    return io.BufferedReader(file, _BUFFER)


class _Gzip(gzip.GzipFile):
    """A gzip file that takes the file below with it when it is closed."""

    def close(self) -> None:
        below: Any = self.fileobj
        super().close()
        if below is not None:
            below.close()


class _Zstd(io.RawIOBase):
    """Frame after frame of a zstd file; a frame that is cut off raises EOFError."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._frame: Any = None
        self._ahead = b""
        self._out = memoryview(b"")
        self._given = 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._out:
            if not self._fill():
                return 0
        count = min(len(buffer), len(self._out))
        buffer[:count] = self._out[:count]
        self._out = self._out[count:]
        self._given += count
        return count

    def tell(self) -> int:
        # fastwarc asks, and panics without an answer.
        return self._given

    def _fill(self) -> bool:
        chunk = self._ahead or self._file.read(_ZSTD_INPUT)
        if not chunk:
            if self._frame is not None:
                raise EOFError("cut zstd frame")
            return False
        if self._frame is None:
            # Frames written with --long name windows beyond the library's default limit.
            self._frame = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
        self._out = memoryview(self._frame.decompress(chunk))
        self._ahead = b""
        if self._frame.eof:
            self._ahead, self._frame = self._frame.unused_data, None
        return True


def every_line(stream: io.BufferedReader) -> Iterator[bytes | None]:
    """All lines, without a byte order mark at the start; None stands for a line that is too long."""
    first = True
    while line := stream.readline(MAX_ROW_BYTES + 1):
        if first:
            first, line = False, line.removeprefix(_BOM)
        if len(line) > MAX_ROW_BYTES:
            _skip_line(stream, line)
            yield None
        else:
            yield line


def lines(stream: io.BufferedReader) -> Iterator[bytes | None]:
    """The lines that hold something; None stands for a line that is too long."""
    return (line for line in every_line(stream) if line is None or not (line.isspace() or line == b""))


def _skip_line(stream: io.BufferedReader, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(_BUFFER)


def too_long(name: str) -> Failure:
    """The Failure for what exceeds MAX_ROW_BYTES."""
    return Failure(name, f"too long: over {MAX_ROW_BYTES / 2**20:g} MB")
