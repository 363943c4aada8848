"""Reading: what a unit is, and that every row of every file comes out once, as a page or with a reason."""

import gzip
import io
import os
import tarfile
import time
import zlib
from collections import Counter
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mixer.read
from mixer.errors import SourceError
from mixer.read import read, units
from mixer.readers import parquet, rows, streams
from mixer.readers.rows import Part, find
from mixer.recipe import HtmlSource, HubSource, JsonlSource, ParquetSource, TextSource, WarcSource
from mixer.types import Failure, Page, Skipped, Unit


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


# Worked cases: one row


def test_case_1_a_row_becomes_a_page_with_its_metadata(tmp_path):
    row = {"text": "Hi.", "url": "http://a/", "licence": "CC0", "lang": "en", "year": 2020, "x": None}
    (tmp_path / "a.jsonl").write_bytes(lines_of(row))
    found = everything(jsonl(columns={"keep": ["year", "x"]}), tmp_path)
    metadata = {"year": "2020", "licence": "CC0", "language": "en"}
    assert found == [Page("a.jsonl#0", "Hi.", "text", "http://a/", metadata)]


def test_case_2_what_the_recipe_states_replaces_what_the_row_says(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines_of({"text": "Hi.", "licence": "CC0", "lang": "en"}))
    [page] = everything(jsonl(licence="MIT", language="de"), tmp_path)
    assert page.metadata == {"licence": "MIT", "language": "de"}


def test_case_3_each_bad_row_is_a_failure_with_its_reason(tmp_path):
    good = lines_of({"text": "ok"})
    bad = [b'{"text": \n', b"[1]\n", b"{}\n", b'{"text": ""}\n', b'{"text": " "}\n', b'{"text": 3}\n']
    bad += [b'{"text": "\xff"}\n', b'{"text": "\\ud800"}\n', b'{"text": null}\n']
    (tmp_path / "a.jsonl").write_bytes(good + b"".join(bad) + b"\n \r\n" + good)
    found = everything(jsonl(), tmp_path)
    assert [row.id for row in found] == [f"a.jsonl#{row}" for row in range(11)]
    assert isinstance(found[0], Page)
    assert isinstance(found[10], Page)
    starts = ["bad json: ", "not an object: list", "missing field: text", "empty field: text", "empty field: text"]
    starts += ["not a string: text is int", "bad json: ", "bad json: ", "missing field: text"]
    assert [r[: len(s)] for r, s in zip(reasons(found), starts, strict=True)] == starts


def test_case_4_several_fields_are_joined_and_lists_fan_out(tmp_path):
    row = {"html": "<p>q</p>", "answers": [{"html": "<p>a</p>"}, {"html": "<p>b</p>"}]}
    (tmp_path / "a.jsonl").write_bytes(lines_of(row))
    columns = {"text": ["html", "answers.html"]}
    plain, fragments = jsonl(columns=columns), jsonl(columns=columns, format="html")
    assert contents(everything(plain, tmp_path)) == ["<p>q</p>\n\n<p>a</p>\n\n<p>b</p>"]
    joined = "<div><p>q</p></div>\n<div><p>a</p></div>\n<div><p>b</p></div>"
    assert contents(everything(fragments, tmp_path)) == [joined]


def test_case_5_a_field_of_the_very_name_goes_before_a_path():
    assert find({"a.b": 1, "a": {"b": 2}}, "a.b") == [1]
    assert find({"a": [{"b": 2}, {"b": [3, 4]}]}, "a.b") == [2, 3, 4]


def test_case_6_ids_come_from_a_column_and_must_be_there(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines_of({"text": "x", "id": 7}, {"text": "x"}, {"text": "x", "id": [1, 2]}))
    found = everything(jsonl(columns={"id": "id"}), tmp_path)
    assert [row.id for row in found] == ["7", "a.jsonl#1", "a.jsonl#2"]
    assert reasons(found) == ["missing field: id", "not an id: id is list"]


def test_a_byte_order_mark_does_not_spoil_the_first_row(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines_of({"text": "x"}))
    assert contents(everything(jsonl(), tmp_path)) == ["x"]


# Worked cases: files


def test_compression_is_told_by_content_not_by_name(tmp_path):
    plain = lines_of({"text": "x"})
    (tmp_path / "a.jsonl.gz").write_bytes(plain)
    (tmp_path / "b.jsonl").write_bytes(gzip.compress(plain))
    (tmp_path / "c.jsonl.gz").write_bytes(zstandard.compress(plain))
    assert contents(everything(jsonl(), tmp_path)) == ["x", "x", "x"]


def test_files_of_several_gzip_members_or_zstd_frames_are_read_to_the_end(tmp_path):
    first, second = lines_of({"text": "1"}), lines_of({"text": "2"})
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(first) + gzip.compress(second))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(first) + skippable + zstandard.compress(second))
    (tmp_path / "c.jsonl.zst").write_bytes(skippable + zstandard.compress(first))
    assert contents(everything(jsonl(), tmp_path)) == ["1", "2", "1", "2", "1"]


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("stripes", [1, 3])
def test_a_cut_file_gives_the_rows_before_the_cut_and_one_failure(tmp_path, compress, stripes):
    packed = compress(lines_of(*({"text": f"row {row} {os.urandom(30).hex()}"} for row in range(20_000))))
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    parts = stripes_of(path, jsonl(), stripes)
    failures = [row for part in parts for row in part if isinstance(row, Failure)]
    numbers = sorted(int(row.id.partition("#")[2]) for part in parts for row in part if isinstance(row, Page))
    assert [(row.id, row.reason[:29]) for row in failures] == [("a.jsonl.zst", "damaged file: ends too early:")]
    assert failures[0] == parts[0][-1]
    assert len(numbers) > 5_000
    assert numbers == list(range(len(numbers)))


def test_a_line_beyond_the_cap_is_one_failure_and_reading_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "MAX_ROW_BYTES", 1000)
    (tmp_path / "a.jsonl").write_bytes(lines_of({"text": "x"}, {"text": "y" * 5000}, {"text": "z"}))
    found = everything(jsonl(), tmp_path)
    assert contents(found) == ["x", "z"]
    assert reasons(found)[0].startswith("too long: ")


def test_a_large_single_line_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines_of({"text": "x" * 50_000_000}))
    assert [len(text) for text in contents(everything(jsonl(), tmp_path))] == [50_000_000]


def test_nested_json_neither_crashes_nor_hangs(tmp_path):
    bomb = b"[" * 100_000
    nested = b'{"text": ' + b"[" * 900 + b'"x"' + b"]" * 900 + b', "k": ' + b"[" * 900 + b"]" * 900 + b"}"
    (tmp_path / "a.jsonl").write_bytes(bomb + b"\n" + nested + b"\n")
    found = everything(jsonl(columns={"keep": ["k"]}), tmp_path)
    assert reasons(found)[0].startswith("bad json: ")
    assert contents(found) == ["x"]


def test_text_is_split_by_file_paragraph_or_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\n \r\nthree\r\n")
    got = {
        split: [(row.id, row.content) for row in everything(TextSource(kind="text", path="*", split=split), tmp_path)]
        for split in ("file", "blank_line", "line")
    }
    assert got["file"] == [("a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n\r\n \r\nthree\r\n")]
    assert got["blank_line"] == [("a.txt#0", "one\r\ntwo"), ("a.txt#1", "three")]
    assert got["line"] == [("a.txt#0", "one"), ("a.txt#1", "two"), ("a.txt#2", "three")]


def test_a_line_that_is_not_utf8_is_a_failure(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntw\xffo\nthree\n")
    found = everything(TextSource(kind="text", path="*", split="line"), tmp_path)
    assert contents(found) == ["one", "three"]
    assert reasons(found) == ["bad text: invalid utf-8 at byte 2"]


# HTML and tar


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def html(path="*", **options) -> HtmlSource:
    return HtmlSource(kind="html", path=path, **options)


def test_html_files_keep_their_bytes(tmp_path):
    (tmp_path / "b.html.gz").write_bytes(gzip.compress(b"<p>\xff"))
    (tmp_path / "a.html").write_bytes(b"<p>a")
    (tmp_path / "c.html.gz").write_bytes(b"not gzip")
    found = everything(html(language="en"), tmp_path)
    assert [(row.id, row.content) for row in found] == [
        ("a.html", b"<p>a"),
        ("b.html.gz", b"<p>\xff"),
        ("c.html.gz", b"not gzip"),
    ]
    assert found[0].metadata == {"language": "en"}


def test_a_tar_gives_its_pages_and_says_what_is_none(tmp_path):
    members = [("p/a.html", b"<p>a"), ("p/x.PNG", b"\x89PNG"), ("p/St._Ives", b"<p>b"), ("d.html.gz", b"\x1f\x8bxx")]
    write_tar(tmp_path / "t.tar.gz", members, "w:gz")
    found = everything(html(), tmp_path)
    assert [type(row) for row in found] == [Page, Skipped, Page, Failure]
    assert [row.id for row in found] == [f"t.tar.gz/{name}" for name, _ in members]
    assert reasons(found)[0] == "not html: .png"


def test_names_in_a_tar_cannot_lead_out_or_repeat(tmp_path):
    names = ["../../etc/passwd", "/abs\n\x1b[2J.html", "./a.html", "a.html", ".."]
    write_tar(tmp_path / "t.tar", [(name, b"<p>") for name in names])
    found = everything(html(), tmp_path)
    assert [row.id for row in found] == [
        "t.tar/_/_/etc/passwd",
        "t.tar/abs__[2J.html",
        "t.tar/a.html",
        "t.tar/a.html#3",
        "t.tar/_",
    ]


def test_a_tar_that_is_damaged_in_the_middle_says_so(tmp_path):
    """tarfile alone takes the bad header for the end of the archive."""
    path = tmp_path / "t.tar"
    write_tar(path, [(f"{n}.html", b"<p>" * 300) for n in range(9)])
    data = bytearray(path.read_bytes())
    data[5 * 1536 : 5 * 1536 + 300] = b"\xaa" * 300
    path.write_bytes(data)
    for stripes in (1, 2):
        parts = stripes_of(path, html(), stripes)
        assert sum(isinstance(row, Page) for part in parts for row in part) == 5
        assert [row.reason[:28] for part in parts for row in part[-1:] if isinstance(row, Failure)] == [
            "damaged file: bad tar header"
        ]


@pytest.mark.parametrize("kept", [3000, 4096, 512 * 7])
def test_a_cut_tar_says_so(tmp_path, kept):
    path = tmp_path / "t.tar"
    write_tar(path, [(f"{n}.html", b"<p>" * 1000) for n in range(3)])
    path.write_bytes(path.read_bytes()[:kept])
    found = everything(html(), tmp_path)
    assert reasons(found)[-1].startswith("damaged file: ") or len(contents(found)) == 1


def test_a_cut_sparse_member_does_not_hang(tmp_path):
    info = tarfile.TarInfo("s.html")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": "9"}
    info.size = 512
    (tmp_path / "t.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + b"9" * 512)
    assert reasons(everything(html(), tmp_path)) == ["damaged file: sparse member"]


# WARC


def record(body: bytes, *, headers: str = "Content-Type: text/html", status: str = "200 OK", kind="response") -> bytes:
    http = f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n".encode() + body
    fields = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: <http://a/>\r\nWARC-Record-ID: <urn:uuid:1>\r\n"
    fields += "WARC-Date: 2020-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
    return f"{fields}Content-Length: {len(http)}\r\n\r\n".encode() + http + b"\r\n\r\n"


def warc(tmp_path: Path, *records: bytes, name: str = "a.warc") -> list:
    (tmp_path / name).write_bytes(b"".join(records))
    return everything(WarcSource(kind="warc", path=name), tmp_path)


PAGE = b"<html><body>" + b"hello world " * 50


def test_only_html_that_was_found_becomes_pages(tmp_path):
    found = warc(
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
        ("Content-Encoding: gzip", gzip.compress(PAGE)),
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
    found = warc(tmp_path, record(body, headers=f"Content-Type: text/html\r\n{headers}"), record(PAGE))
    assert contents(found) == [PAGE, PAGE]


def test_a_body_that_inflates_beyond_the_cap_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("mixer.readers.warc.MAX_ROW_BYTES", 10_000)
    bomb = record(gzip.compress(b"\0" * 10**7), headers="Content-Type: text/html\r\nContent-Encoding: gzip")
    assert reasons(warc(tmp_path, bomb, record(PAGE)))[0].startswith("too long")


def test_a_cut_archive_is_never_silent(tmp_path):
    """fastwarc ends without a word at a cut member, and gives out a cut record as if it were whole."""
    whole = gzip.compress(record(PAGE)) + gzip.compress(record(os.urandom(3000).hex().encode()))
    assert reasons(warc(tmp_path, whole[:-500], name="a.warc.gz"))[0].startswith("damaged file: ends too early")
    plain = record(PAGE) + record(PAGE)
    found = warc(tmp_path, plain[:-100], name="b.warc")
    assert len(contents(found)) == 1
    assert reasons(found)[0].startswith("cut record: ")


def test_responses_are_dealt_out_evenly_though_requests_lie_between(tmp_path):
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(record(PAGE) + record(PAGE, kind="request") for _ in range(8)))
    assert [len(part) for part in stripes_of(path, WarcSource(kind="warc", path="x"), 2)] == [4, 4]


# Parquet and hub


def parquet_source(**options) -> ParquetSource:
    return ParquetSource(kind="parquet", path="*.parquet", **options)


def test_parquet_rows_become_pages_and_bad_ones_failures(tmp_path):
    table = pa.table({"text": ["a", None, ""], "n": [1, 2, 3], "unread": [b"x", b"y", b"z"]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = everything(parquet_source(columns={"keep": ["n"]}), tmp_path)
    assert found[0] == Page("a.parquet#0", "a", "text", None, {"n": "1"})
    assert reasons(found) == ["missing field: text", "empty field: text"]


def test_parquet_text_that_is_not_utf8_is_one_failure(tmp_path):
    values = pa.array([b"good", b"b\xffd", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    found = everything(parquet_source(), tmp_path)
    assert contents(found) == ["good", "fine"]
    assert reasons(found)[0].startswith("bad text: invalid utf-8")


def test_a_damaged_row_group_is_one_failure_and_the_others_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"{row} {'x' * 40}" for row in range(4000)]})
    pq.write_table(table, path, row_group_size=1000, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + 40 : column.data_page_offset + 90] = b"\xaa" * 50
    path.write_bytes(data)
    for stripes in (1, 2, 5):
        found = [row for part in stripes_of(path, parquet_source(), stripes) for row in part]
        assert [row.id for row in found if isinstance(row, Failure)] == ["a.parquet#group-1"]
        numbers = {int(row.id.partition("#")[2]) for row in found if isinstance(row, Page)}
        assert numbers >= {*range(1000), *range(2000, 4000)}


def test_a_local_folder_is_read_as_a_hub_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_bytes(lines_of({"text": "a"}, {"text": ""}, {"text": "c"}))
    source = HubSource(kind="hub", path="set")
    [unit] = units("s", source, tmp_path)
    found = list(read(unit, source))
    assert [row.id for row in found] == ["set#0", "set#1", "set#2"]
    assert reasons(found) == ["empty field: text"]
    (tmp_path / "set" / "train.jsonl").write_bytes(lines_of({"text": "b"}))
    assert units("s", source, tmp_path)[0].digest != unit.digest


def test_a_split_that_is_not_there_is_a_source_error(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_bytes(lines_of({"text": "a"}))
    source = HubSource(kind="hub", path="set", split="nope")
    with pytest.raises(SourceError, match="expected split `nope`"):
        list(read(units("s", source, tmp_path)[0], source))


def test_a_hub_that_cannot_be_reached_is_a_source_error(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="cannot reach the hub") as caught:
        units("s", HubSource(kind="hub", path="nobody/nothing"), tmp_path)
    assert "give its folder as `path`" in caught.value.hint


# Units


def test_small_files_share_a_unit_in_the_order_of_their_names(tmp_path):
    for name in ("b/2.html", "a/10.html", "a/2.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"<p>")
    [unit] = units("s", html("**/*.html"), tmp_path)
    assert unit.names == ("a/10.html", "a/2.html", "b/2.html")
    assert (unit.stripe, unit.stripes) == (0, 1)


def test_a_group_ends_when_it_is_large_and_a_large_file_is_striped(tmp_path, monkeypatch):
    monkeypatch.setattr(mixer.read, "GROUP_BYTES", 100)
    monkeypatch.setattr(mixer.read, "STRIPE_BYTES", 200)
    for name, size in (("a", 60), ("b", 60), ("c", 500), ("d", 40)):
        (tmp_path / f"{name}.jsonl").write_bytes(b" " * size)
    cut = [(unit.names, unit.stripe, unit.stripes) for unit in units("s", jsonl(), tmp_path)]
    assert cut == [
        (("a.jsonl",), 0, 1),
        (("b.jsonl",), 0, 1),
        *((("c.jsonl",), stripe, 3) for stripe in range(3)),
        (("d.jsonl",), 0, 1),
    ]


def test_a_large_page_is_not_striped_and_max_documents_makes_one_unit(tmp_path, monkeypatch):
    monkeypatch.setattr(mixer.read, "STRIPE_BYTES", 10)
    (tmp_path / "a.html").write_bytes(b"x" * 100)
    assert [unit.stripes for unit in units("s", html(), tmp_path)] == [1]
    (tmp_path / "a.jsonl").write_bytes(lines_of(*({"text": str(row)} for row in range(9))))
    (tmp_path / "b.jsonl").write_bytes(lines_of({"text": "b"}))
    source = jsonl(max_documents=10)
    [unit] = units("s", source, tmp_path)
    assert contents(list(read(unit, source))) == [*map(str, range(9)), "b"]
    assert contents(list(read(unit, source, limit=2))) == ["0", "1"]


def test_a_digest_follows_content_and_names_not_times_or_place(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    for folder in ("x", "y"):
        (tmp_path / folder / "a.jsonl").write_bytes(b"same")
    os.utime(tmp_path / "y" / "a.jsonl", (1, 1))
    first, second = (units("s", jsonl(), tmp_path / folder)[0].digest for folder in ("x", "y"))
    (tmp_path / "y" / "a.jsonl").rename(tmp_path / "y" / "b.jsonl")
    assert first == second != units("s", jsonl(), tmp_path / "y")[0].digest


def test_the_cache_of_hashes_is_filled_used_and_never_stale(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one")
    cache: dict[str, str] = {}
    [before] = units("s", jsonl(), tmp_path, cache=cache)
    assert list(cache) == [f"{path}|3|{path.stat().st_mtime_ns}|{path.stat().st_ino}"]
    cache[next(iter(cache))] = "remembered"
    assert units("s", jsonl(), tmp_path, cache=cache)[0].digest != before.digest
    path.write_bytes(b"other")
    assert len(units("s", jsonl(), tmp_path, cache=cache)) == 1
    assert len(cache) == 2


def test_a_file_that_two_patterns_match_is_read_once(tmp_path):
    (tmp_path / "a[1].jsonl").write_bytes(lines_of({"text": "x"}))
    source = jsonl(["a[1].jsonl", "./*.jsonl", str(tmp_path / "*.jsonl")])
    assert len(everything(source, tmp_path)) == 1


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("*.jsonl", "a path is relative to the recipe"),
        ("nowhere/*.jsonl", "nowhere does not exist"),
        ("folder", "this is a folder; write `folder/**/*`"),
    ],
)
def test_a_pattern_without_a_file_is_an_error_that_names_it(tmp_path, pattern, hint):
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match="sources.web.path: no file: got") as caught:
        units("web", jsonl(pattern), tmp_path)
    assert f"`{pattern}` in {tmp_path}" in str(caught.value)
    assert hint in caught.value.hint


def test_a_file_that_is_gone_when_it_is_read_is_one_failure(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"{}")
    [unit] = units("s", jsonl(), tmp_path)
    (tmp_path / "a.jsonl").unlink()
    assert [row.reason[:14] for row in read(unit, jsonl())] == ["damaged file: "]


# Properties


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blanks=st.lists(st.booleans(), max_size=60), stripes=st.integers(1, 9), kind=st.sampled_from(["jsonl", "text"]))
def test_stripes_partition_the_rows_exactly(tmp_path, blanks, stripes, kind):
    path = tmp_path / "a"
    path.write_bytes(b"".join(b" \n" if blank else lines_of({"text": str(n)}) for n, blank in enumerate(blanks)))
    source = jsonl() if kind == "jsonl" else TextSource(kind="text", path="x", split="line")
    [whole] = stripes_of(path, source, 1)
    parts = stripes_of(path, source, stripes)
    assert len(whole) == blanks.count(False)
    assert sorted((row.id, row.content) for part in parts for row in part) == sorted((r.id, r.content) for r in whole)
    assert [row.id for row in whole] == [f"a#{row}" for row in range(len(whole))]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 1500), group=st.integers(1, 900), stripes=st.integers(1, 9))
def test_stripes_partition_a_parquet_file_exactly(tmp_path, count, group, stripes):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [str(row + 1) for row in range(count)]}), path, row_group_size=group)
    parts = stripes_of(path, parquet_source(), stripes)
    assert sorted(int(row.content) for part in parts for row in part) == list(range(1, count + 1))
    assert all(row.id == f"a.parquet#{int(row.content) - 1}" for part in parts for row in part)
    assert parquet.blocks(str(path)) == max(1, -(-count // parquet.BLOCK))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_whatever_raise(tmp_path, data):
    seeds = [record(PAGE), gzip.compress(lines_of({"text": "x"})), zstandard.compress(b"{}\n"), b"filedesc://a 0 1 t 2\n"]
    damaged = bytearray(data.draw(st.sampled_from(seeds)))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)), max_size=8)):
        damaged[place] = value
    name = data.draw(st.sampled_from(["a.jsonl", "a.tar", "a.warc", "a.parquet", "a.txt"]))
    (tmp_path / name).write_bytes(damaged)
    by_name = {"a.tar": html(), "a.warc": WarcSource(kind="warc", path="x"), "a.parquet": parquet_source()}
    source = by_name.get(name, jsonl() if name == "a.jsonl" else TextSource(kind="text", path="x", split="line"))
    found = list(rows(str(tmp_path / name), name, source, Part(0, 1)))
    assert all(isinstance(row, Page | Failure | Skipped) for row in found)


# Real input


def unpack(archive: Path, folder: Path) -> list[Path]:
    with zstandard.open(archive, "rb") as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
        tar.extractall(folder, filter="data")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_hostile_file_is_read_as_every_kind_without_an_exception(shared, tmp_path):
    files = [path for archive in (shared / "hostile").glob("*.zst") for path in unpack(archive, tmp_path / archive.stem)]
    files += [path for path in (shared / "hostile").iterdir() if path.is_file()]
    files += [path for path in (shared / "warc").rglob("*") if path.is_file()]
    sources = [jsonl(), html(), WarcSource(kind="warc", path="x"), parquet_source()]
    sources += [TextSource(kind="text", path="x", split=split) for split in ("file", "line", "blank_line")]
    outcomes: Counter[str] = Counter()
    start = time.monotonic()
    for path in files:
        for source in sources:
            found = list(rows(str(path), path.name, source, Part(0, 1)))
            outcomes.update(type(row).__name__ for row in found)
            for row in found:
                row.id.encode()
                assert not isinstance(row, Page) or isinstance(row.content, bytes) or row.content.encode() is not None
    assert len(files) > 100
    assert min(outcomes[kind] for kind in ("Page", "Failure", "Skipped")) > 100
    assert time.monotonic() - start < 30


def test_json_torture_files_are_judged_as_their_names_say(shared, tmp_path):
    judged = 0
    for path in unpack(shared / "hostile" / "json-parsing.tar.zst", tmp_path):
        found = list(rows(str(path), path.name, jsonl(), Part(0, 1)))
        if path.name.startswith("n_"):
            judged += 1
            assert found
            assert all(isinstance(row, Failure) for row in found)
    assert judged >= 20


def test_damaged_archives_give_what_lies_before_the_damage(shared):
    folder = shared / "warc" / "bad"
    counts = {
        path.name: Counter(type(row).__name__ for row in everything(WarcSource(kind="warc", path=path.name), folder))
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
    found = everything(WarcSource(kind="warc", path="dolma-*.warc.gz"), shared / "warc")
    pages = [row for row in found if isinstance(row, Page)]
    assert (len(pages), len(found)) == (15, 17)
    assert all(page.url.startswith("https://") and b"<" in page.content for page in pages)


def test_bad_parquet_is_counted_and_odd_parquet_is_read(shared, tmp_path):
    bad = [p for p in unpack(shared / "hostile" / "parquet-bad.tar.zst", tmp_path / "b") if p.suffix == ".parquet"]
    for path in bad:
        found = list(rows(str(path), path.name, parquet_source(), Part(0, 1)))
        assert [row.reason[:14] for row in found] == ["damaged file: "]
    odd = unpack(shared / "hostile" / "parquet-odd-but-valid.tar.zst", tmp_path / "o")
    source = parquet_source(columns={"text": "string_col"})
    found = {path.name: list(rows(str(path), path.name, source, Part(0, 1))) for path in odd}
    assert [row.content for row in found["alltypes_plain.parquet"]] == [*"01010101"][:0] or len(
        found["alltypes_plain.parquet"]
    ) == 8


def test_shared_rows_have_the_count_that_their_catalogue_states(shared):
    source = HtmlSource(kind="html", path="geosci-em.jsonl.zst", columns={"id": "id", "keep": ["subject"]})
    found = everything(source, shared / "science_html")
    assert [type(row) for row in found] == [Page] * 353
    assert found[0].metadata["licence"] == "CC-BY-4.0"
    assert len({row.id for row in found}) == 353
