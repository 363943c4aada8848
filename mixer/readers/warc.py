"""Web archives: fastwarc reads WARC, warcio reads the older ARC.

Rows are the responses and resources; requests, metadata and the archive's own notes are none. Bodies are decoded
here, with a cap on their size: the archive libraries inflate a hostile body whole.
"""

import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastwarc.stream_io import BrotliReader, ChunkedReader
from fastwarc.warc import ArchiveIterator, WarcRecordType
from warcio.archiveiterator import ArchiveIterator as ArcIterator

from mixer.readers.rows import Part, declared
from mixer.readers.streams import DAMAGE, MAX_ROW_BYTES, DamagedError, too_long, unwrapped
from mixer.recipe.sources import WarcSource
from mixer.types import Failure, Page, Skipped

_GZIP = 16 + zlib.MAX_WBITS
_HTML_TYPES = {"text/html", "application/xhtml+xml"}
_NO_ROWS = WarcRecordType.warcinfo | WarcRecordType.request | WarcRecordType.metadata
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
_LOOKS_LIKE_HTML = re.compile(rb"\s{0,64}(?:\xef\xbb\xbf)?\s{0,64}<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Record:
    """One record in either format; `status` is None where there are no HTTP headers."""

    name: str
    url: str | None
    content_type: str
    status: int | None
    transfer_encoding: str
    content_encoding: str
    body: bytes


def rows(stream: io.BufferedReader, name: str, source: WarcSource, part: Part) -> Iterator[Page | Failure | Skipped]:
    """A Page for each HTML response of ours, a Skipped for each other one; `name#record` counts every record."""
    is_arc = stream.peek(9)[:9] == b"filedesc:"
    for record in (_arc if is_arc else _warc)(stream, name, part):
        yield _row(record, source) if isinstance(record, _Record) else record


def _row(record: _Record, source: WarcSource) -> Page | Failure | Skipped:
    if record.status is not None and record.status != 200:
        return Skipped(record.name, f"http status {record.status}")
    kind = record.content_type.partition(";")[0].strip().lower()
    if kind and kind not in _HTML_TYPES:
        return Skipped(record.name, f"not html: {_plain(kind)}")
    body = _decoded(record)
    if body is None:
        return Failure(record.name, f"bad http body: {_plain(record.transfer_encoding or record.content_encoding)}")
    if len(body) > MAX_ROW_BYTES:
        return too_long(record.name)
    if not kind and not _LOOKS_LIKE_HTML.match(body):
        return Skipped(record.name, "not html: no content type")
    charset = _CHARSET.search(record.content_type)
    metadata = declared(source) | ({"charset": charset[1].lower()} if charset else {})
    return Page(record.name, body, "html", url=_url(record.url), metadata=metadata)


def _plain(text: str) -> str:
    return re.sub(r"[^\w/+.-]", "?", text)[:60]


def _url(url: str | None) -> str | None:
    # wget writes the address in angle brackets, as the WARC 1.0 grammar has it.
    bare = (url or "").strip().removeprefix("<").removesuffix(">")
    return bare.encode("utf-8", "replace").decode() or None


def _warc(stream: io.BufferedReader, name: str, part: Part) -> Iterator[_Record | Failure | Skipped]:
    row = -1
    for number, record in enumerate(_records(partial(ArchiveIterator, stream, parse_http=False))):
        if record.record_type & _NO_ROWS:
            continue
        row += 1
        if part.owns(row):
            yield _warc_record(record, f"{name}#{number}")


def _records(open_archive: Callable[[], Any]) -> Iterator[Any]:
    iterator = iter(_safely(open_archive))
    while (record := _safely(next, iterator, None)) is not None:
        yield record


def _safely(call: Callable[..., Any], *arguments: Any) -> Any:
    """What the call returns; whatever it raises means that the rest of the archive cannot be read."""
    try:
        return call(*arguments)
    except DAMAGE:
        raise
    except BaseException as error:
        # A panic in Rust is no Exception, and must not end the worker.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DamagedError(f"{type(error).__name__}: {error}") from error


def _warc_record(record: Any, name: str) -> _Record | Failure | Skipped:
    if not record.record_type & (WarcRecordType.response | WarcRecordType.resource):
        return Skipped(name, f"{record.record_type} record")
    expected = record.content_length
    if expected > MAX_ROW_BYTES:
        return too_long(name)
    block = _safely(record.reader.read, expected + 1)
    if len(block) < expected:
        return Failure(name, f"cut record: {len(block)} of {expected} bytes")
    url = record.headers.get("WARC-Target-URI")
    if not record.is_http:
        return _Record(name, url, record.headers.get("Content-Type") or "", None, "", "", block)
    return _from_http(block, name, url)


def _from_http(block: bytes, name: str, url: str | None) -> _Record | Failure:
    head, body = _split(block)
    status_line, *fields = head.decode("latin-1").split("\n")
    status = re.match(r"HTTP/\S+\s+(\d{3})\b", status_line)
    if not status:
        return Failure(name, "bad http header: no status line")
    headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in fields)}
    return _Record(
        name=name,
        url=url,
        content_type=headers.get("content-type", ""),
        status=int(status[1]),
        transfer_encoding=headers.get("transfer-encoding", "").lower(),
        content_encoding=headers.get("content-encoding", "").lower(),
        body=body,
    )


def _split(block: bytes) -> tuple[bytes, bytes]:
    """HTTP headers and body; some servers end lines with a bare line feed."""
    end = re.search(rb"\r?\n\r?\n", block)
    return (block[: end.start()], block[end.end() :]) if end else (block, b"")


def _decoded(record: _Record) -> bytes | None:
    """The body as the page's author wrote it, at most one byte over the cap; None where it is damaged.

    Crawlers often store a body decoded and its header untouched, so what does not fit the header is taken as it is
    if it looks like a page.
    """
    body = record.body
    try:
        if "chunked" in record.transfer_encoding and re.match(rb"\s*[0-9a-fA-F]+[ \t;\r\n]", body):
            body = ChunkedReader(io.BytesIO(body)).read(MAX_ROW_BYTES + 1)
        return _inflated(body, record.content_encoding)
    except (*DAMAGE, ValueError):
        return body if body.lstrip()[:1] == b"<" else None


def _inflated(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity") or not body:
        return body
    if encoding in ("gzip", "x-gzip"):
        # A body that the crawler cut off is a page up to there, as it is in a browser.
        return zlib.decompressobj(_GZIP).decompress(body, MAX_ROW_BYTES + 1)
    if encoding == "deflate":
        # Half of the servers send raw deflate, half wrap it as zlib, as the standard says.
        is_zlib = body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS).decompress(body, MAX_ROW_BYTES + 1)
    if encoding == "br":
        return bytes(BrotliReader(io.BytesIO(body)).read(MAX_ROW_BYTES + 1))
    if encoding == "zstd":
        return unwrapped(io.BytesIO(body)).read(MAX_ROW_BYTES + 1)
    raise ValueError(encoding)


def _arc(stream: io.BufferedReader, name: str, part: Part) -> Iterator[_Record | Failure | Skipped]:
    row = -1
    for number, record in enumerate(_records(partial(_arc_archive, stream))):
        if record.rec_type != "response":
            continue
        row += 1
        if part.owns(row):
            yield _arc_record(record, f"{name}#{number}")


def _arc_archive(stream: io.BufferedReader) -> Any:
    archive = ArcIterator(stream, no_record_parse=True)
    # Otherwise it prints a warning of its own for each record that is followed by no empty line.
    archive.INC_RECORD = ""
    return archive


def _arc_record(record: Any, name: str) -> _Record | Failure | Skipped:
    url = record.rec_headers.get_header("uri")
    if not url.startswith(("http:", "https:")):
        return Skipped(name, f"not html: {_plain(record.content_type)}")
    expected = record.length
    if expected > MAX_ROW_BYTES:
        return too_long(name)
    block = _safely(record.raw_stream.read, expected)
    if len(block) < expected:
        return Failure(name, f"cut record: {len(block)} of {expected} bytes")
    return _from_http(block, name, url)
