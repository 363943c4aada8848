"""What the tests of reading share: sources in one word, and the rows that come out."""

import tarfile
from pathlib import Path

import orjson
import zstandard

from mixer.read import read, units
from mixer.recipe.sources import HtmlSource, JsonlSource, ParquetSource, TextSource, WarcSource
from mixer.types import Page, Unit


def jsonl(path="*.jsonl*", **options) -> JsonlSource:
    return JsonlSource(kind="jsonl", path=path, **options)


def lines_of(*objects) -> bytes:
    return b"".join(orjson.dumps(value) + b"\n" for value in objects)


def everything(source, base: Path) -> list:
    return [row for unit in units("s", source, base) for row in read(unit, source)]


def reasons(found: list) -> list[str]:
    return [row.reason for row in found if not isinstance(row, Page)]


def contents(found: list) -> list:
    return [row.content for row in found if isinstance(row, Page)]


def stripes_of(path: Path, source, stripes: int) -> list[list]:
    unit = [Unit("s", (str(path),), (path.name,), "d", stripe, stripes) for stripe in range(stripes)]
    return [list(read(each, source)) for each in unit]


def html(path="*", **options) -> HtmlSource:
    return HtmlSource(kind="html", path=path, **options)


def text(split="file", path="*") -> TextSource:
    return TextSource(kind="text", path=path, split=split)


def parquet(**options) -> ParquetSource:
    return ParquetSource(kind="parquet", path="*.parquet", **options)


def warc(path="*") -> WarcSource:
    return WarcSource(kind="warc", path=path)


def unpack(archive: Path, folder: Path) -> list[Path]:
    """The files of a `.tar.zst`, written to a folder."""
    with zstandard.open(archive, "rb") as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
        tar.extractall(folder, filter="data")
    return sorted(path for path in folder.rglob("*") if path.is_file())


PAGE = b"<html><body>" + b"hello world " * 50


def record(body: bytes, *, headers: str = "Content-Type: text/html", status: str = "200 OK", kind="response") -> bytes:
    """One WARC record that holds an HTTP exchange."""
    http = f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n".encode() + body
    fields = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: <http://a/>\r\nWARC-Record-ID: <urn:uuid:1>\r\n"
    fields += "WARC-Date: 2020-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
    return f"{fields}Content-Length: {len(http)}\r\n\r\n".encode() + http + b"\r\n\r\n"
