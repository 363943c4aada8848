"""Web archives: what is a page, what is counted, and what damage does."""

import gzip
import os
import zlib
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from mixer.types import Page
from tests.reading import PAGE, contents, everything, reasons, record, stripes_of, warc


def archive(tmp_path: Path, *records: bytes, name: str = "a.warc") -> list:
    (tmp_path / name).write_bytes(b"".join(records))
    return everything(warc(name), tmp_path)


def test_only_html_that_was_found_becomes_pages(tmp_path):
    found = archive(
        tmp_path,
        record(PAGE, headers="Content-Type: Text/HTML; charset=ISO-8859-2"),
        record(PAGE, kind="request"),
        record(b"x", headers="Content-Type: image/png"),
        record(PAGE, status="404 Not Found"),
        record(PAGE, headers="A: b"),
        record(b"text", headers="A: b"),
    )
    assert found[0] == Page("a.warc#0", PAGE, "html", "http://a/", {"charset": "iso-8859-2"})
    assert [row.id for row in found] == ["a.warc#0", "a.warc#2", "a.warc#3", "a.warc#4", "a.warc#5"]
    assert reasons(found) == ["not html: image/png", "http status 404", "not html: no content type"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Encoding: gzip", gzip.compress(PAGE, mtime=0)),
        ("Content-Encoding: gzip", PAGE),
        ("Content-Encoding: deflate", zlib.compress(PAGE)),
        ("Content-Encoding: deflate", zlib.compress(PAGE)[2:-4]),
        ("Content-Encoding: zstd", zstandard.compress(PAGE)),
        ("Content-Encoding: unheard-of", PAGE),
        ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(PAGE), PAGE)),
        ("Transfer-Encoding: chunked", PAGE),
    ],
)
def test_bodies_are_decoded_and_headers_that_lie_are_seen_through(tmp_path, headers, body):
    found = archive(tmp_path, record(body, headers=f"Content-Type: text/html\r\n{headers}"), record(PAGE))
    assert contents(found) == [PAGE, PAGE]


def test_a_body_that_inflates_beyond_the_cap_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("mixer.readers.warc.MAX_ROW_BYTES", 10_000)
    bomb = record(gzip.compress(b"\0" * 10**7), headers="Content-Type: text/html\r\nContent-Encoding: gzip")
    assert reasons(archive(tmp_path, bomb, record(PAGE)))[0].startswith("too long")


def test_a_cut_archive_is_never_silent(tmp_path):
    """fastwarc ends without a word at a cut member, and gives out a cut record as if it were whole."""
    whole = gzip.compress(record(PAGE)) + gzip.compress(record(os.urandom(3000).hex().encode()))
    assert reasons(archive(tmp_path, whole[:-500], name="a.warc.gz"))[0].startswith("damaged file: ends too early")
    plain = record(PAGE) + record(PAGE)
    found = archive(tmp_path, plain[:-100], name="b.warc")
    assert len(contents(found)) == 1
    assert reasons(found)[0].startswith("cut record: ")


def test_responses_are_dealt_out_evenly_though_requests_lie_between(tmp_path):
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(record(PAGE) + record(PAGE, kind="request") for _ in range(8)))
    assert [len(part) for part in stripes_of(path, warc(), 2)] == [4, 4]


def test_damaged_archives_give_what_lies_before_the_damage(shared):
    folder = shared / "warc" / "bad"
    counts = {
        path.name: Counter(type(row).__name__ for row in everything(warc(path.name), folder))
        for path in sorted(folder.iterdir())
    }
    assert counts == {
        "bad.arc": {"Failure": 3},
        "example-bad-non-chunked.warc.gz": {"Page": 1, "Skipped": 1},
        "example-bad.warc.gz.bad": {"Page": 1, "Skipped": 2},
        "example-trunc.warc": {"Page": 1, "Failure": 1},
        "example-wrong-chunks.warc.gz": {"Page": 1},
    }


def test_a_real_crawl_is_read_whole(shared):
    found = everything(warc("dolma-*.warc.gz"), shared / "warc")
    pages = [row for row in found if isinstance(row, Page)]
    assert (len(pages), len(found)) == (15, 17)
    assert all(page.url.startswith("https://") and b"<" in page.content for page in pages)
