"""Units and rows: how files are sliced, and that every row comes out once, whatever the bytes."""

import gzip
import os
import time
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mixer.read
from mixer.errors import SourceError
from mixer.read import read, units
from mixer.readers import rows
from mixer.readers.parquet import BLOCK, blocks
from mixer.readers.rows import Part
from mixer.types import Failure, Page, Skipped
from tests.reading import (
    PAGE,
    contents,
    everything,
    html,
    jsonl,
    lines_of,
    parquet,
    record,
    stripes_of,
    text,
    unpack,
    warc,
)


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
    assert list(cache) == [f"{path}|3|{path.stat().st_mtime_ns}|{path.stat().st_ctime_ns}|{path.stat().st_ino}"]
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
    with pytest.raises(SourceError, match=r"sources\.web\.path: no file: got") as caught:
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
    source = jsonl() if kind == "jsonl" else text("line")
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
    parts = stripes_of(path, parquet(), stripes)
    assert sorted(int(row.content) for part in parts for row in part) == list(range(1, count + 1))
    assert all(row.id == f"a.parquet#{int(row.content) - 1}" for part in parts for row in part)
    assert blocks(str(path)) == max(1, -(-count // BLOCK))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_whatever_raise(tmp_path, data):
    seeds = [
        record(PAGE),
        gzip.compress(lines_of({"text": "x"})),
        zstandard.compress(b"{}\n"),
        b"filedesc://a 0 1 t 2\n",
    ]
    damaged = bytearray(data.draw(st.sampled_from(seeds)))
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)), max_size=8)
    ):
        damaged[place] = value
    name = data.draw(st.sampled_from(["a.jsonl", "a.tar", "a.warc", "a.parquet", "a.txt"]))
    (tmp_path / name).write_bytes(damaged)
    by_name = {"a.tar": html(), "a.warc": warc(), "a.parquet": parquet()}
    source = by_name.get(name, jsonl() if name == "a.jsonl" else text("line"))
    found = list(rows(str(tmp_path / name), name, source, Part(0, 1)))
    assert all(isinstance(row, Page | Failure | Skipped) for row in found)


# Real input


def test_every_hostile_file_is_read_as_every_kind_without_an_exception(shared, tmp_path):
    files = [
        path for archive in (shared / "hostile").glob("*.zst") for path in unpack(archive, tmp_path / archive.stem)
    ]
    files += [path for path in (shared / "hostile").iterdir() if path.is_file()]
    files += [path for path in (shared / "warc").rglob("*") if path.is_file()]
    sources = [jsonl(), html(), warc(), parquet()]
    sources += [text(split) for split in ("file", "line", "blank_line")]
    outcomes: Counter[str] = Counter()
    start = time.process_time()
    for path in files:
        for source in sources:
            found = list(rows(str(path), path.name, source, Part(0, 1)))
            outcomes.update(type(row).__name__ for row in found)
            for row in found:
                row.id.encode()
                assert not isinstance(row, Page) or isinstance(row.content, bytes) or row.content.encode() is not None
    assert len(files) > 100
    assert min(outcomes[kind] for kind in ("Page", "Failure", "Skipped")) > 50
    assert time.process_time() - start < 30


def test_json_torture_files_are_judged_as_their_names_say(shared, tmp_path):
    judged = 0
    for path in unpack(shared / "hostile" / "json-parsing.tar.zst", tmp_path):
        found = list(rows(str(path), path.name, jsonl(), Part(0, 1)))
        if path.name.startswith("n_"):
            judged += 1
            assert found
            assert all(isinstance(row, Failure) for row in found)
    assert judged >= 20


def test_bad_parquet_is_counted_and_odd_parquet_is_read(shared, tmp_path):
    bad = [p for p in unpack(shared / "hostile" / "parquet-bad.tar.zst", tmp_path / "b") if p.suffix == ".parquet"]
    for path in bad:
        found = list(rows(str(path), path.name, parquet(), Part(0, 1)))
        assert found
        assert all(isinstance(row, Failure) for row in found)
    assert len(bad) == 2
    odd = unpack(shared / "hostile" / "parquet-odd-but-valid.tar.zst", tmp_path / "o")
    source = parquet(columns={"text": "string_col"})
    found = {path.name: list(rows(str(path), path.name, source, Part(0, 1))) for path in odd}
    assert contents(found["alltypes_plain.parquet"]) == list("01010101")
    assert all(found.values())


def test_shared_rows_have_the_count_that_their_catalogue_states(shared):
    source = html("geosci-em.jsonl.zst", columns={"id": "id", "keep": ["subject"]})
    found = everything(source, shared / "science_html")
    assert [type(row) for row in found] == [Page] * 353
    assert found[0].metadata["licence"] == "CC-BY-4.0"
    assert len({row.id for row in found}) == 353
