"""Each kind of file: its rows as pages, and the reason for each row that is none."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from mixer.errors import SourceError
from mixer.read import read, units
from mixer.readers import streams
from mixer.readers.rows import find
from mixer.recipe.sources import HubSource
from mixer.types import Failure, Page, Skipped
from tests.reading import contents, everything, html, jsonl, lines_of, parquet, reasons, stripes_of, text

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
    starts = ["bad json: ", "not an object: list", "missing field: text", "empty text", "empty text"]
    starts += ["not a string: text is int", "bad json: ", "bad json: ", "empty text"]
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
        split: [(row.id, row.content) for row in everything(text(split), tmp_path)]
        for split in ("file", "blank_line", "line")
    }
    assert got["file"] == [("a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n\r\n \r\nthree\r\n")]
    assert got["blank_line"] == [("a.txt#0", "one\r\ntwo"), ("a.txt#1", "three")]
    assert got["line"] == [("a.txt#0", "one"), ("a.txt#1", "two"), ("a.txt#2", "three")]


def test_a_line_that_is_not_utf8_is_a_failure(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntw\xffo\nthree\n")
    found = everything(text("line"), tmp_path)
    assert contents(found) == ["one", "three"]
    assert reasons(found) == ["bad text: invalid utf-8 at byte 2"]


# HTML and tar


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


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
    assert reasons(found)[-1].startswith("damaged file: ")
    assert len(contents(found)) == kept // 3584


def test_a_cut_sparse_member_does_not_hang(tmp_path):
    info = tarfile.TarInfo("s.html")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "s",
        "GNU.sparse.realsize": "9",
    }
    info.size = 512
    (tmp_path / "t.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + b"9" * 512)
    assert reasons(everything(html(), tmp_path)) == ["damaged file: sparse member"]


# Parquet and hub


def test_parquet_rows_become_pages_and_bad_ones_failures(tmp_path):
    table = pa.table({"text": ["a", None, ""], "n": [1, 2, 3], "unread": [b"x", b"y", b"z"]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = everything(parquet(columns={"keep": ["n"]}), tmp_path)
    assert found[0] == Page("a.parquet#0", "a", "text", None, {"n": "1"})
    assert reasons(found) == ["empty text", "empty text"]
    assert all(isinstance(row, Skipped) for row in found[1:])


def test_parquet_text_that_is_not_utf8_is_one_failure(tmp_path):
    values = pa.array([b"good", b"b\xffd", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    found = everything(parquet(), tmp_path)
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
        found = [row for part in stripes_of(path, parquet(), stripes) for row in part]
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
    assert reasons(found) == ["empty text"]
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
